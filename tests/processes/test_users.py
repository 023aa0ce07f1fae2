"""C27: between users, permissions are exact and squatters are refused."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import ipcq
from ipcq.testing.processes import Peers, say
from processes.needs import usable
from processes.programs import SMALL
from processes.users import NOBODY, become, free_user, places, warm_up

pytestmark = pytest.mark.usefixtures("as_root")


def do_nothing() -> None:
    pass


@pytest.fixture(scope="module")
def nursery() -> Iterator[Peers]:
    """Return a group of processes for all tests of this file: to start its interpreter takes longer than a test."""
    with Peers(patience=None) as peers:
        peers.fork(do_nothing).done()
        yield peers


@pytest.fixture
def peers(nursery: Peers) -> Iterator[Peers]:
    """Return that group, and end the processes that the test started in it."""
    yield nursery
    for peer in [each for each in nursery.peers if each.label != "nursery#1"]:
        peer.kill()
        nursery.peers.remove(peer)


def try_as(uid: int, name: str, backend: str, verb: str, other_users: bool = False) -> None:
    """As another user, make one call on a queue and report the result."""
    warm_up(backend)
    become(uid)
    say(outcome(name, backend, verb, other_users))


def outcome(name: str, backend: str, verb: str, other_users: bool = False) -> list[object]:
    """Make one call on a queue and return the result."""
    try:
        if verb == "unlink":
            ipcq.unlink(name, backend)
        elif verb == "exists":
            return ["returned", ipcq.exists(name, backend)]
        else:
            rights = {"read": verb != "put", "write": verb == "put"}
            with ipcq.open(
                name, backend, create=verb == "create", other_users=other_users, open_timeout=2.0, **rights
            ) as queue:
                if verb == "put":
                    queue.put_nowait("stray")
                elif verb == "get":
                    return ["returned", queue.get_nowait()]
    except ipcq.MessageQueueError as error:
        return ["raised", type(error).__name__, str(error), error.errno]
    return ["returned", None]


def create_and_keep(uid: int, name: str, backend: str, mode: int, umask: int = 0o022) -> None:
    """As another user, create a queue with one message, report its mode, and keep it until told to stop."""
    warm_up(backend)
    become(uid)
    os.umask(umask)
    with ipcq.open(name, backend, exclusive=True, mode=mode, other_users=bool(mode & 0o077), **SMALL) as queue:
        queue.put("mine")
        say(queue.mode)


def can_grant_access(backend: str) -> bool:
    """Return whether a backend's queues can grant others access; if not, each user has separate names."""
    return any(
        info.name == backend and info.capabilities is not None and info.capabilities.other_users
        for info in ipcq.backends()
    )


def require_other_users(backend: str) -> None:
    """Skip a backend whose queues cannot grant others access."""
    if not can_grant_access(backend):
        pytest.skip(f"capabilities.other_users is False on backend {backend!r}")


@pytest.mark.parametrize("verb", ["get", "put", "unlink"])
def test_a_queue_of_mode_0600_is_closed_to_other_users(
    verb: str, name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C27: root's queue of mode 0600 denies another user get, put and unlink, and keeps its message."""
    queue.put("mine")
    kind, what, *_ = peers.fork(try_as, NOBODY, name, backend, verb).hear()
    assert (kind, what) == ("raised", "PermissionDenied" if can_grant_access(backend) else "QueueNotFound")
    assert queue.get_nowait() == "mine"


def test_a_queue_that_another_user_may_not_open_still_exists_for_that_user(
    name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C27: a queue that denies a user access does not count as missing, so no second one is created."""
    require_other_users(backend)
    assert peers.fork(try_as, NOBODY, name, backend, "exists").hear() == ["returned", True]


@pytest.mark.parametrize(
    ("mode", "verb", "expected"),
    [
        (0o666, "get", "returned"),
        (0o666, "put", "returned"),
        (0o622, "get", "raised"),
        (0o622, "put", "returned"),
        (0o644, "get", "returned"),
        (0o644, "put", "raised"),
    ],
)
def test_the_mode_of_roots_queue_decides_what_other_users_may(
    mode: int, verb: str, expected: str, name: str, backend: str, peers: Peers
) -> None:
    """C27: everybody trusts root's queue, so its mode alone decides who may get and put."""
    require_other_users(backend)
    if backend in {"pyshm", "shm"} and mode != 0o666:
        expected = "raised"  # every call reads and writes the file
    with ipcq.open(name, backend, exclusive=True, mode=mode, other_users=True, **SMALL) as queue:
        queue.put("for all")
        kind, *rest = peers.fork(try_as, NOBODY, name, backend, verb).hear()
        assert kind == expected, rest


@pytest.mark.parametrize(
    ("mode", "umask"), [(0o600, 0o000), (0o600, 0o777), (0o640, 0o077), (0o622, 0o777), (0o666, 0o000), (0o666, 0o077)]
)
def test_a_queue_has_exactly_its_mode_as_another_user_under_any_umask(
    mode: int, umask: int, name: str, backend: str, peers: Peers
) -> None:
    """C27: an ordinary user's queue has the requested mode, whatever the umask."""
    require_other_users(backend)
    owner = peers.fork(create_and_keep, NOBODY, name, backend, mode, umask)
    assert owner.hear() == mode
    owner.done()


@pytest.mark.parametrize("verb", ["get", "put", "create"])
def test_a_squatters_queue_is_refused_by_root(verb: str, name: str, backend: str, peers: Peers) -> None:
    """C27: a queue that another user created under the name is refused, not used, and keeps its message."""
    require_other_users(backend)
    peers.fork(create_and_keep, NOBODY, name, backend, 0o600).done()
    kind, what, text, _ = outcome(name, backend, verb)
    assert (kind, what) == ("raised", "PermissionDenied")
    assert "other_users=True" in str(text)
    with ipcq.open(name, backend, create=False, other_users=True) as queue:
        assert queue.get_many() == ["mine"]


@pytest.mark.parametrize("verb", ["get", "put", "create"])
def test_a_squatters_queue_is_refused_by_an_ordinary_user(verb: str, name: str, backend: str, peers: Peers) -> None:
    """C27: an ordinary user's queue that grants everything is refused by another one, and keeps its message."""
    require_other_users(backend)
    with free_user() as uid:
        peers.fork(create_and_keep, NOBODY, name, backend, 0o666).done()
        kind, what, text, _ = peers.fork(try_as, uid, name, backend, verb).hear()
    assert (kind, what) == ("raised", "PermissionDenied")
    assert "other_users=True" in text
    with ipcq.open(name, backend, create=False, other_users=True) as queue:
        assert queue.get_many() == ["mine"]


def test_a_queue_of_another_user_is_used_with_other_users(name: str, backend: str, peers: Peers) -> None:
    """C27: with other_users=True the mode alone decides."""
    require_other_users(backend)
    with free_user() as uid:
        peers.fork(create_and_keep, NOBODY, name, backend, 0o666).done()
        assert peers.fork(try_as, uid, name, backend, "get", True).hear() == ["returned", "mine"]


# The lock directory


def owned_by_another(path: Path, uid: int) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)


def open_to_others(path: Path, uid: int) -> None:
    path.mkdir()
    path.chmod(0o777)
    os.chown(path, uid, uid)


def readable_to_others(path: Path, uid: int) -> None:
    path.mkdir()
    path.chmod(0o755)
    os.chown(path, uid, uid)


def symlink(path: Path, uid: int) -> None:
    path.symlink_to(f"{path}-target")


def regular_file(path: Path, uid: int) -> None:
    path.write_text("")
    os.chown(path, uid, uid)


def fifo(path: Path, uid: int) -> None:
    os.mkfifo(path)
    os.chown(path, uid, uid)


def lock_file_as_symlink(path: Path, uid: int) -> None:
    path.mkdir(mode=0o700)
    (path / "names.lock").symlink_to(f"{path}-target/names.lock")
    os.chown(path, uid, uid)


def lock_file_as_directory(path: Path, uid: int) -> None:
    path.mkdir(mode=0o700)
    (path / "names.lock").mkdir()
    os.chown(path, uid, uid)


SQUATS = [
    owned_by_another,
    open_to_others,
    readable_to_others,
    symlink,
    regular_file,
    fifo,
    lock_file_as_symlink,
    lock_file_as_directory,
]


@contextmanager
def squatted(path: Path, squat: Callable[[Path, int], None], uid: int) -> Iterator[None]:
    """Squat at a path for a while, and check that nothing is written there, nor to the target of a link."""
    target = Path(f"{path}-target")
    target.mkdir(mode=0o777)
    target.chmod(0o777)
    squat(path, uid)
    try:
        before = tree(path), tree(target)
        yield
        assert (tree(path), tree(target)) == before
    finally:
        with suppress(OSError):
            (target / "names.lock").unlink()
        target.rmdir()


@pytest.mark.parametrize("squat", SQUATS)
@pytest.mark.parametrize("verb", ["create", "unlink"])
def test_squatted_lock_directories_are_refused_and_nothing_is_written(
    verb: str, squat: Callable[[Path, int], None], name: str, backend: str, peers: Peers
) -> None:
    """C27: lock directories of another owner, mode or kind raise PermissionDenied, which says how to remove them."""
    with free_user() as uid, ExitStack() as squatting:
        for place in places(uid):
            squatting.enter_context(squatted(Path(place), squat, uid))
        kind, what, text, errno = peers.fork(try_as, uid, name, backend, verb).hear()
        assert (kind, what) == ("raised", "PermissionDenied"), text
        assert all(f"sudo rm -r {place}" in text for place in places(uid))
        assert errno is not None
        assert not ipcq.exists(name, backend)


@pytest.mark.parametrize("squat", SQUATS)
@pytest.mark.parametrize("which", [0, 1])
def test_a_squatted_lock_directory_is_skipped(
    which: int, squat: Callable[[Path, int], None], name: str, peers: Peers
) -> None:
    """C27, C31: the other directory is used, and nothing is written to the squatter's."""
    with free_user() as uid, squatted(Path(places(uid)[which]), squat, uid):
        assert peers.fork(try_as, uid, name, usable("shm"), "create").hear() == ["returned", None]


def tree(path: Path) -> list[tuple[str, int, int, int]]:
    """Return the files at a path and below, with owner, mode and time of the last change."""
    found = [path, *sorted(path.iterdir())] if path.is_dir() else [path]
    return [
        (str(each), status.st_uid, status.st_mode, status.st_mtime_ns) for each in found for status in [each.lstat()]
    ]


def test_a_lock_directory_is_made_private_under_any_umask(name: str, backend: str, peers: Peers) -> None:
    """C27: the lock directory that ipcq creates has mode 0700 and the lock file 0600, whatever the umask."""
    with free_user() as uid, TemporaryDirectory() as directory:
        os.chown(directory, uid, uid)
        if backend == "sqlite":
            backend = f"sqlite://{directory}/"  # a user without a home has no default place
        peers.fork(create_and_keep, uid, name, backend, 0o600, 0o777).done()
        paths = [Path(place, part) for place in places(uid) for part in ("", "names.lock")]
        assert [path.lstat().st_mode & 0o7777 for path in paths] == 2 * [0o700, 0o600]
