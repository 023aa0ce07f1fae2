"""The directory of the queues that are pairs of sockets, and the names in it."""

import errno
import math
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ipcq
from backends import socketpair
from backends.socketpair import Handle, fcntl, path_of
from ipcq._process import private_directory
from ipcq.backend import Channel, Request
from ipcq.errors import MessageQueueError, PermissionDenied, QueueExists, QueueGone, QueueNotFound, TimedOutError
from ipcq_socketpair import SocketpairBackend, _channel, _ends, _host, _place

name, queue, place = socketpair.name, socketpair.queue, socketpair.place


# The directory


def squat_file(place: Path) -> None:
    place.parent.mkdir(mode=0o700)
    place.write_text("")


def squat_link(place: Path) -> None:
    place.parent.mkdir(mode=0o700)
    place.symlink_to("/tmp")


def squat_mode(place: Path) -> None:
    place.mkdir(parents=True)
    place.parent.chmod(0o755)
    place.chmod(0o700)


def squat_owner(place: Path) -> None:
    place.mkdir(parents=True, mode=0o700)
    place.parent.chmod(0o700)
    os.chown(place.parent, 12345, 12345)


@pytest.mark.parametrize("squat", [squat_file, squat_link, squat_mode, squat_owner])
def test_a_directory_that_is_not_ours_alone_is_refused(squat: Callable[[Path], None], place: Path, name: str) -> None:
    """C27: PermissionDenied with the way out, no queue is seen there, and nothing is written."""
    if squat is squat_owner and os.geteuid():
        pytest.skip("only root can give a directory away: run the tests as root")
    squat(place)
    with pytest.raises(PermissionDenied, match="sudo rm -r"):
        SocketpairBackend().create(name, Request())
    assert not SocketpairBackend().exists(name)
    assert SocketpairBackend().names() == []
    with pytest.raises(QueueNotFound):
        SocketpairBackend().attach(name, Request())


@pytest.mark.parametrize("umask", [0, 0o777], ids=oct)
def test_the_directory_and_the_file_have_their_modes_under_any_umask(umask: int, place: Path, name: str) -> None:
    """C27: nobody else can enter, and this user can connect."""
    before = os.umask(umask)
    try:
        channel = SocketpairBackend().create(name, Request())
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(each.lstat().st_mode) for each in (place.parent, place, place / name[1:])]
    channel.close()
    assert modes == [0o700, 0o700, 0o600]


def test_what_is_no_queue_in_the_directory_is_passed_over(place: Path, name: str) -> None:
    """C18: listing and looking live with whatever lies there."""
    SocketpairBackend().create(name, Request()).close()
    (place / "file").write_text("")
    (place / os.fsdecode(b"\xff")).write_text("")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(place / "stream"))
        other.listen()
        assert SocketpairBackend().names() == []
        assert not SocketpairBackend().exists("/stream")


def test_a_long_name_is_listed_as_it_is(name: str) -> None:
    """C25: though its file is called otherwise; by a holder in this process and by one in another."""
    long = name + "x" * (255 - len(name))
    with ipcq.open(long, "socketpair"):
        assert long in SocketpairBackend().names()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_host, "offered", lambda found: None)
            assert long in SocketpairBackend().names()


def test_a_stopped_process_at_the_directory_holds_nobody_for_long(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C11: creating and unlinking end with TimedOutError, and closing leaves the file."""
    monkeypatch.setattr(_place, "_TURN_SECONDS", 0.05)
    queue = ipcq.open(name, "socketpair")
    homes = _place.directories()
    home = os.open(homes[0], os.O_RDONLY)
    try:
        fcntl.flock(home, fcntl.LOCK_EX)
        with pytest.raises(TimedOutError, match="lslocks"), _place.alone(homes, 0.05):
            pass
        queue.close()
        path = path_of(name)
        assert os.path.lexists(path)
    finally:
        os.close(home)
    assert not ipcq.exists(name, "socketpair")
    os.unlink(path)


def test_a_file_that_somebody_removed_is_the_queues_end(queue: Handle) -> None:
    """C14: `rm` is an unlink."""
    os.unlink(path_of(queue.name))
    time.sleep(2 * _place.BLIND_SECONDS)
    with pytest.raises(QueueGone):
        queue.put(b"x")


def test_a_copy_of_the_descriptor_does_not_keep_the_lock(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C35: a child has one if a handler forked it just as the directory was opened."""
    copies: list[int] = []
    opened = _place.opened

    def copied(call: Callable[[], int]) -> int:
        copies.append(os.dup(descriptor := opened(call)))
        return descriptor

    monkeypatch.setattr(_place, "opened", copied)
    homes = _place.make()
    with _place.alone(homes):
        pass
    with _place.alone(homes, 0.0):
        pass
    for copy in copies:
        os.close(copy)


# Several places


@pytest.fixture
def two(place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return the two directories where queues may be, the first choice first."""
    roots = place.parent, place.parent.with_name("other")
    use(monkeypatch, *roots)
    return roots[0] / "socketpair", roots[1] / "socketpair"


def use(monkeypatch: pytest.MonkeyPatch, *roots: Path) -> None:
    monkeypatch.setattr(private_directory, "_roots", lambda: tuple(map(str, roots)))


def test_a_queue_is_bound_in_the_first_place(two: tuple[Path, Path], name: str) -> None:
    """C31: no variable moves it."""
    channel = SocketpairBackend().create(name, Request())
    bound = [(each / name[1:]).exists() for each in two]
    channel.close()
    assert bound == [True, False]


@pytest.fixture
def second(two: tuple[Path, Path], name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Channel]:
    """Return a channel to a queue in the second place, whose maker could not use the first."""
    with monkeypatch.context() as context:
        use(context, two[1].parent)
        channel = SocketpairBackend().create(name, Request())
    yield channel
    channel.close()


def test_a_queue_in_any_place_exists(second: Channel, name: str) -> None:
    """C31: also for who would have bound it in another."""
    assert (SocketpairBackend().exists(name), list(SocketpairBackend().names())) == (True, [name])


def test_a_queue_in_any_place_is_attached_to(second: Channel, name: str) -> None:
    """C31: by a process that has it, and by one that asks its holder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_host, "offered", lambda found: None)
        channel = SocketpairBackend().attach(name, Request())
    channel.try_put(b"item", 0)
    channel.close()
    assert second.try_get() == (b"item", 0)


def test_a_queue_in_any_place_keeps_its_name(second: Channel, name: str) -> None:
    """C31: no second one is made."""
    with pytest.raises(QueueExists):
        SocketpairBackend().create(name, Request())


def test_a_queue_in_any_place_is_unlinked(second: Channel, name: str) -> None:
    """C14: and its holders know."""
    SocketpairBackend().unlink(name)
    assert (SocketpairBackend().exists(name), second.linked()) == (False, False)


def test_who_makes_a_queue_waits_for_who_makes_one_elsewhere(
    two: tuple[Path, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C31: neither of the two need be able to write where the other can."""
    monkeypatch.setattr(_place, "_TURN_SECONDS", 0.05)
    with _place.alone(_place.make()[1:]), pytest.raises(TimedOutError, match=f"holds {two[1]}"):
        SocketpairBackend().create(name, Request())


def test_one_directory_in_two_places_is_locked_once(two: tuple[Path, Path], name: str) -> None:
    """A container may mount one volume on both; the lock would wait for itself."""
    home, _ = _place.make()
    with _place.alone([home, home], 0.05):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_place_is_passed_over(
    two: tuple[Path, Path], name: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """C31: the next one does."""
    monkeypatch.setattr(_place, "_bind", failing_in(two[0], number))
    SocketpairBackend().create(name, Request()).close()


def failing_in(home: Path, number: int) -> Callable[[socket.socket, bytes], None]:
    bind = _place._bind

    def fail(listener: socket.socket, path: bytes) -> None:
        if Path(os.fsdecode(path)).parent == home:
            raise OSError(number, os.strerror(number))
        bind(listener, path)

    return fail


@pytest.mark.parametrize(("which", "number"), [(0, errno.EMFILE), (1, errno.ENOSPC)])
def test_another_refusal_is_an_error(
    two: tuple[Path, Path], name: str, monkeypatch: pytest.MonkeyPatch, which: int, number: int
) -> None:
    """C24: as is that of the last place."""
    if which:
        use(monkeypatch, two[1].parent)
    monkeypatch.setattr(_place, "_bind", failing_in(two[which], number))
    with pytest.raises(MessageQueueError) as caught:
        SocketpairBackend().create(name, Request())
    assert caught.value.errno == number


# Names


def test_a_busy_queue_exists_and_one_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """C18: a full backlog is an answer, another error is not."""

    class Line:
        def __init__(self, error: OSError) -> None:
            self._error = error

        def connect(self, path: bytes) -> None:
            raise self._error

    assert not _place._connects(Line(BlockingIOError()), b"/")  # type: ignore[arg-type]  # fails as it should
    with pytest.raises(OSError, match="no"):
        _place._connects(Line(OSError(errno.EIO, "no")), b"/")  # type: ignore[arg-type]  # the same


def test_a_name_that_cannot_be_looked_at_counts_as_there(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C27: a process that has become another user goes on."""

    def refuse(path: bytes) -> Any:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(_place, "_found", refuse)
    assert queue._channel.linked()  # type: ignore[attr-defined]  # what the core asks
    monkeypatch.undo()


def test_where_nothing_is_left_nothing_is_found(place: Path, name: str) -> None:
    """Clause 19: no finding without a reason."""
    SocketpairBackend().create(name, Request()).close()
    assert SocketpairBackend().findings() == []


def test_a_name_that_is_another_queues_by_now_is_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C16, C18: whoever cleans up looks whose file it is, also at the last moment."""
    with ipcq.open(name, "socketpair") as queue:
        path = path_of(name)
        _place.free(path, (0, 0))
        answers = iter([True, False])
        monkeypatch.setattr(_place, "leads_to", lambda path, found: next(answers))
        monkeypatch.setattr(_place, "alive", lambda path: False)
        _place.tidied(path, (0, 0))
        monkeypatch.undo()
        queue.put(1)
        assert queue.get() == 1


def test_a_name_that_goes_while_it_is_unlinked_is_not_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: somebody was faster."""
    monkeypatch.setattr(_place, "_place_of", path_of)
    with pytest.raises(QueueNotFound):
        SocketpairBackend().unlink(name)


def test_a_file_that_goes_while_it_is_looked_at_is_no_queue(name: str) -> None:
    """C14: the same for who asks whether it is there."""
    assert not _place.alive(path_of(name))


def test_a_file_that_nobody_holds_is_not_unlinked(place: Path, name: str) -> None:
    """C16: it is no queue."""
    Path(os.fsdecode(path_of(name))).write_text("")
    with pytest.raises(QueueNotFound):
        SocketpairBackend().unlink(name)


def test_a_queue_where_others_can_enter_is_not_seen(place: Path, name: str) -> None:
    """C27: others can have put it there."""
    channel = SocketpairBackend().create(name, Request())
    place.chmod(0o755)
    seen = SocketpairBackend().exists(name)
    place.chmod(0o700)
    channel.close()
    assert not seen


def test_a_queue_that_goes_while_it_is_listed_is_left_out() -> None:
    """C18: a long name that nobody answers for."""
    file = Path(_place.make()[0], "0" * 64)
    file.write_text("")
    try:
        assert "0" * 64 not in "".join(SocketpairBackend().names())
    finally:
        file.unlink()


def test_who_cannot_look_takes_the_queue_for_linked(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: a look that the system refuses says nothing about the queue, and ends no call."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(_place, "leads_to", refuse)
    queue.put(b"item")
    assert queue.get(timeout=5) == b"item"


def test_a_directory_that_cannot_be_looked_at_is_not_taken_for_missing(
    queue: Handle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 3: who cannot say that there is no queue does not say so."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    with monkeypatch.context() as patch, pytest.raises(MessageQueueError):
        patch.setattr(os, "lstat", refuse)
        SocketpairBackend().exists(name)


def test_a_queue_whose_file_cannot_be_removed_is_unlinked(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: its holders know by then, so an error would say that nothing happened."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "as ordered")

    with monkeypatch.context() as patch:
        patch.setattr(_place, "os", SimpleNamespace(**{**vars(os), "unlink": refuse}))
        ipcq.unlink(queue.name, "socketpair")
    assert not ipcq.exists(queue.name, "socketpair")
    with pytest.raises(QueueGone):
        queue.get(timeout=0)


def test_a_line_that_cannot_be_bound_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """C17: an address has 107 bytes at the most (unix(7))."""
    monkeypatch.setattr(_ends, "_ENDING", b"\0" + bytes(200))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="too long"):
        _ends.ending_line()
    assert os.listdir("/proc/self/fd") == before


def test_a_descriptor_that_cannot_be_had_is_told_of(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: what tells of messages and of the end takes one more."""

    def refuse() -> None:
        raise OSError(errno.EMFILE, "as ordered")

    monkeypatch.setattr(_channel, "_epoll", refuse)
    with pytest.raises(ipcq.LimitExceeded, match="RLIMIT_NOFILE"):
        queue.fileno()


def test_who_was_woken_by_the_descriptor_learns_of_an_unlink_at_once(queue: Handle) -> None:
    """C32: also before this handle looks at the name the next time."""
    assert queue.fileno() >= 0
    ipcq.unlink(queue.name, "socketpair")
    queue._channel._next_look = math.inf  # type: ignore[attr-defined]
    with pytest.raises(QueueGone):
        queue.get(timeout=0)
