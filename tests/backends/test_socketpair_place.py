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
from ipcq.errors import (
    MessageQueueError,
    PermissionDenied,
    QueueEmpty,
    QueueExists,
    QueueGone,
    QueueNotFound,
    TimedOutError,
)
from ipcq_socketpair import SocketpairBackend, _channel, _ends, _host, _place

name, queue, directory = socketpair.name, socketpair.queue, socketpair.directory


# The directory


def squat_file(directory: Path) -> None:
    directory.parent.mkdir(mode=0o700)
    directory.write_text("")


def squat_link(directory: Path) -> None:
    directory.parent.mkdir(mode=0o700)
    directory.symlink_to("/tmp")


def squat_mode(directory: Path) -> None:
    directory.mkdir(parents=True)
    directory.parent.chmod(0o755)
    directory.chmod(0o700)


def squat_owner(directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o700)
    directory.parent.chmod(0o700)
    os.chown(directory.parent, 12345, 12345)


@pytest.mark.parametrize("squat", [squat_file, squat_link, squat_mode, squat_owner])
def test_a_directory_that_is_not_private_is_refused(squat: Callable[[Path], None], directory: Path, name: str) -> None:
    """C27: PermissionDenied with the way out; no queue is seen there, and nothing is written."""
    if squat is squat_owner and os.geteuid():
        pytest.skip("only root can give a directory away: run the tests as root")
    squat(directory)
    with pytest.raises(PermissionDenied, match="sudo rm -r"):
        SocketpairBackend().create(name, Request())
    assert not SocketpairBackend().exists(name)
    assert SocketpairBackend().names() == []
    with pytest.raises(QueueNotFound):
        SocketpairBackend().attach(name, Request())


@pytest.mark.parametrize("umask", [0, 0o777], ids=oct)
def test_the_directory_and_the_file_have_their_modes_under_any_umask(umask: int, directory: Path, name: str) -> None:
    """C27: no other user can enter, and this user can connect."""
    before = os.umask(umask)
    try:
        channel = SocketpairBackend().create(name, Request())
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(each.lstat().st_mode) for each in (directory.parent, directory, directory / name[1:])]
    channel.close()
    assert modes == [0o700, 0o700, 0o600]


def test_files_that_are_no_queues_are_ignored(directory: Path, name: str) -> None:
    """C18: listing and looking ignore foreign files."""
    SocketpairBackend().create(name, Request()).close()
    (directory / "file").write_text("")
    (directory / os.fsdecode(b"\xff")).write_text("")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.bind(str(directory / "stream"))
        other.listen()
        assert SocketpairBackend().names() == []
        assert not SocketpairBackend().exists("/stream")


def test_a_long_name_is_listed_in_full(name: str) -> None:
    """C25: although its file name differs; by a holder in this process and by one in another."""
    long = name + "x" * (255 - len(name))
    with ipcq.open(long, "socketpair"):
        assert long in SocketpairBackend().names()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_host, "offered", lambda found: None)
            assert long in SocketpairBackend().names()


def test_a_stopped_process_blocks_the_directory_for_a_limited_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C11: creating and unlinking raise TimedOutError, and closing leaves the file."""
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


def test_removing_the_file_ends_the_queue(queue: Handle) -> None:
    """C14: `rm` is an unlink."""
    os.unlink(path_of(queue.name))
    time.sleep(2 * _place.PATH_SECONDS)
    with pytest.raises(QueueGone):
        queue.put(b"x")


def test_a_copy_of_the_descriptor_does_not_keep_the_lock(
    directory: Path, name: str, monkeypatch: pytest.MonkeyPatch
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


# Several directories


@pytest.fixture
def two(directory: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return the two directories of queues, the first choice first."""
    roots = directory.parent, directory.parent.with_name("other")
    use(monkeypatch, *roots)
    return roots[0] / "socketpair", roots[1] / "socketpair"


def use(monkeypatch: pytest.MonkeyPatch, *roots: Path) -> None:
    monkeypatch.setattr(private_directory, "_roots", lambda: tuple(map(str, roots)))


def test_a_queue_is_bound_in_the_first_directory(two: tuple[Path, Path], name: str) -> None:
    """C31: no variable changes it."""
    channel = SocketpairBackend().create(name, Request())
    bound = [(each / name[1:]).exists() for each in two]
    channel.close()
    assert bound == [True, False]


@pytest.fixture
def second(two: tuple[Path, Path], name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Channel]:
    """Return a channel to a queue in the second directory, whose creator could not use the first."""
    with monkeypatch.context() as context:
        use(context, two[1].parent)
        channel = SocketpairBackend().create(name, Request())
    yield channel
    channel.close()


def test_a_queue_in_any_directory_exists(second: Channel, name: str) -> None:
    """C31: also for a process that would have created it in the other."""
    assert (SocketpairBackend().exists(name), list(SocketpairBackend().names())) == (True, [name])


def test_a_queue_in_any_directory_is_attached_to(second: Channel, name: str) -> None:
    """C31: by a process that holds it, and by one that connects to its holder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_host, "offered", lambda found: None)
        channel = SocketpairBackend().attach(name, Request())
    channel.try_put(b"item", 0)
    channel.close()
    assert second.try_get() == (b"item", 0)


def test_a_queue_in_any_directory_keeps_its_name(second: Channel, name: str) -> None:
    """C31: no second queue is created."""
    with pytest.raises(QueueExists):
        SocketpairBackend().create(name, Request())


def test_a_queue_in_any_directory_is_unlinked(second: Channel, name: str) -> None:
    """C14: and its holders notice."""
    SocketpairBackend().unlink(name)
    assert (SocketpairBackend().exists(name), second.linked()) == (False, False)


def test_a_creator_waits_for_one_in_another_directory(
    two: tuple[Path, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C31: neither process needs write permission in the other's directory."""
    monkeypatch.setattr(_place, "_TURN_SECONDS", 0.05)
    with _place.alone(_place.make()[1:]), pytest.raises(TimedOutError, match=f"holds {two[1]}"):
        SocketpairBackend().create(name, Request())


def test_one_directory_under_two_paths_is_locked_once(two: tuple[Path, Path], name: str) -> None:
    """A container may mount one volume at both paths; the lock would wait for itself."""
    home, _ = _place.make()
    with _place.alone([home, home], 0.05):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_directory_is_skipped(
    two: tuple[Path, Path], name: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """C31: the next one is used."""
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
    """C24: so is a refusal in the last directory."""
    if which:
        use(monkeypatch, two[1].parent)
    monkeypatch.setattr(_place, "_bind", failing_in(two[which], number))
    with pytest.raises(MessageQueueError) as caught:
        SocketpairBackend().create(name, Request())
    assert caught.value.errno == number


# Names


def test_a_busy_queue_exists_and_an_unreachable_one_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """C18: a full backlog proves that the queue exists; another error proves nothing."""

    class Line:
        def __init__(self, error: OSError) -> None:
            self._error = error

        def connect(self, path: bytes) -> None:
            raise self._error

    assert not _place._connects(Line(BlockingIOError()), b"/")  # type: ignore[arg-type]  # only connect() is used
    with pytest.raises(OSError, match="no"):
        _place._connects(Line(OSError(errno.EIO, "no")), b"/")  # type: ignore[arg-type]  # the same


def test_a_name_that_cannot_be_looked_at_counts_as_linked(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C27: a process that has changed its user continues."""

    def refuse(path: bytes) -> Any:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(_place, "_found", refuse)
    assert queue._channel.linked()  # type: ignore[attr-defined]  # the core calls it
    monkeypatch.undo()


def test_without_leftover_files_there_is_no_finding(directory: Path, name: str) -> None:
    """Clause 19: no finding without a reason."""
    SocketpairBackend().create(name, Request()).close()
    assert SocketpairBackend().findings() == []


def test_a_name_that_belongs_to_another_queue_by_now_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C16, C18: a cleanup checks whose file it is, also at the last moment."""
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


def test_a_name_that_is_removed_during_an_unlink_is_not_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: another process unlinked it first."""
    monkeypatch.setattr(_place, "_place_of", path_of)
    with pytest.raises(QueueNotFound):
        SocketpairBackend().unlink(name)


@pytest.fixture
def just_looked(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> Handle:
    """Return a handle that has just checked its queue; the next unlink acts as if in another process."""
    monkeypatch.setattr(_place, "_held_here", lambda path: None)
    queue._channel._next_look = queue._channel._next_path_look = 0.0
    queue.qsize()
    return queue


def test_an_unlink_returns_when_a_slow_holder_has_noticed(just_looked: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: a call that begins after the unlink returned raises."""
    accepted = _host.accepted

    def slowly(listener: socket.socket) -> Any:
        connection = accepted(listener)
        time.sleep(5 * _place.BLIND_SECONDS)
        return connection

    monkeypatch.setattr(_host, "accepted", slowly)
    ipcq.unlink(just_looked.name, "socketpair")
    with pytest.raises(QueueGone):
        just_looked.put(b"x")


def full(by: socket.socket, path: bytes) -> bool:
    """Find the backlog full, as if no holder had accepted connections for long."""
    return False


@pytest.mark.parametrize(
    ("module", "call", "replacement"),
    [(_host, "asks_to_end", lambda *_: False), (_place, "_connects", full), (_place, "_END_SECONDS", 0.0)],
    ids=["refused", "busy", "late"],
)
def test_an_unlink_that_only_removed_the_file_lasts_until_every_channel_checks_it(
    just_looked: Handle, module: Any, call: str, replacement: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C14: here all holders seem to be stopped."""
    monkeypatch.setattr(module, call, replacement)
    if call == "_END_SECONDS":
        monkeypatch.setattr(_host, "asks_to_end", lambda *_: False)
    ipcq.unlink(just_looked.name, "socketpair")
    with pytest.raises(QueueGone):
        just_looked.put(b"x")


def test_a_file_that_is_removed_during_a_look_is_no_queue(name: str) -> None:
    """C14: exists() returns False."""
    assert not _place.alive(path_of(name))


def test_a_file_that_nobody_holds_is_not_unlinked(directory: Path, name: str) -> None:
    """C16: it is no queue."""
    Path(os.fsdecode(path_of(name))).write_text("")
    with pytest.raises(QueueNotFound):
        SocketpairBackend().unlink(name)


def test_a_queue_in_a_directory_open_to_others_is_not_seen(directory: Path, name: str) -> None:
    """C27: other users can have put it there."""
    channel = SocketpairBackend().create(name, Request())
    directory.chmod(0o755)
    seen = SocketpairBackend().exists(name)
    directory.chmod(0o700)
    channel.close()
    assert not seen


def test_a_queue_that_is_removed_during_a_listing_is_left_out() -> None:
    """C18: a long name without a holder."""
    file = Path(_place.make()[0], "0" * 64)
    file.write_text("")
    try:
        assert "0" * 64 not in "".join(SocketpairBackend().names())
    finally:
        file.unlink()


def test_after_a_failed_look_the_queue_counts_as_linked(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: a failed look says nothing about the queue, and ends no call."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(_place, "leads_to", refuse)
    queue.put(b"item")
    assert queue.get(timeout=5) == b"item"


def test_a_directory_that_cannot_be_looked_at_does_not_count_as_missing(
    queue: Handle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 3: a failed look does not mean that there is no queue."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    with monkeypatch.context() as patch, pytest.raises(MessageQueueError):
        patch.setattr(os, "lstat", refuse)
        SocketpairBackend().exists(name)


def test_a_queue_whose_file_cannot_be_removed_is_unlinked(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: its holders have noticed by then, so an error would wrongly claim that nothing happened."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "as ordered")

    with monkeypatch.context() as patch:
        patch.setattr(_place, "os", SimpleNamespace(**{**vars(os), "unlink": refuse}))
        ipcq.unlink(queue.name, "socketpair")
    assert not ipcq.exists(queue.name, "socketpair")
    with pytest.raises(QueueGone):
        queue.get(timeout=0)


def test_a_socket_that_cannot_be_bound_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """C17: an address has at most 107 bytes (unix(7))."""
    monkeypatch.setattr(_ends, "_ENDING", b"\0" + bytes(200))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="too long"):
        _ends.ending_line()
    assert os.listdir("/proc/self/fd") == before


def test_a_fileno_without_a_free_descriptor_is_a_limit(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: fileno() opens one more, which reports messages and the end."""

    def refuse() -> None:
        raise OSError(errno.EMFILE, "as ordered")

    monkeypatch.setattr(_channel, "_epoll", refuse)
    with pytest.raises(ipcq.LimitExceeded, match="RLIMIT_NOFILE"):
        queue.fileno()


def test_a_get_for_a_poller_finds_a_linked_queue_empty(queue: Handle) -> None:
    """C32: the descriptor may be readable for another reason."""
    assert queue.fileno() >= 0
    with pytest.raises(QueueEmpty):
        queue.get(timeout=0)


def test_a_check_that_the_system_refuses_finds_the_queue_linked(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the put itself may succeed."""

    def refuse(*_: object) -> bool:
        raise OSError(errno.ENOMEM, "as ordered")

    queue.put(b"x")
    queue._channel._next_look = 0.0
    monkeypatch.setattr(_channel, "has_ended", refuse)
    queue.put(b"y")
    monkeypatch.undo()
    assert [queue.get(), queue.get()] == [b"x", b"y"]


def test_a_poller_that_was_woken_sees_an_unlink_at_once(queue: Handle) -> None:
    """C32: also before the handle's next check of the name."""
    assert queue.fileno() >= 0
    ipcq.unlink(queue.name, "socketpair")
    queue._channel._next_look = math.inf
    with pytest.raises(QueueGone):
        queue.get(timeout=0)
