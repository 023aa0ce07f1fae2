"""The directory of the queues that are pairs of sockets, and the names in it."""

import errno
import math
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import ipcq
from backends import socketpair
from backends.socketpair import Handle, fcntl
from ipcq.backend import Request
from ipcq.errors import MessageQueueError, PermissionDenied, QueueGone, QueueNotFound, TimedOutError
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
    monkeypatch.setattr(_place, "_TURN", 0.05)
    queue = ipcq.open(name, "socketpair")
    home = os.open(_place.directory(), os.O_RDONLY)
    try:
        fcntl.flock(home, fcntl.LOCK_EX)
        with pytest.raises(TimedOutError, match="lslocks"), _place.alone(0.05):
            pass
        queue.close()
        assert os.path.lexists(_place.path_of(name))
    finally:
        os.close(home)
    assert not ipcq.exists(name, "socketpair")
    os.unlink(_place.path_of(name))


def test_a_file_that_somebody_removed_is_the_queues_end(queue: Handle) -> None:
    """C14: `rm` is an unlink."""
    os.unlink(_place.path_of(queue.name))
    time.sleep(2 * _place.BLIND)
    with pytest.raises(QueueGone):
        queue.put(b"x")


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
        path = _place.path_of(name)
        _place.free(name, (0, 0))
        answers = iter([True, False])
        monkeypatch.setattr(_place, "leads_to", lambda path, found: next(answers))
        monkeypatch.setattr(_place, "alive", lambda path: False)
        _place.tidied(path, (0, 0))
        monkeypatch.undo()
        queue.put(1)
        assert queue.get() == 1


def test_a_name_that_goes_while_it_is_unlinked_is_not_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: somebody was faster."""
    _place.make()
    monkeypatch.setattr(_place, "alive", lambda path: True)
    with pytest.raises(QueueNotFound):
        SocketpairBackend().unlink(name)


def test_a_queue_that_goes_while_it_is_listed_is_left_out() -> None:
    """C18: a long name that nobody answers for."""
    _place.make()
    file = Path(_place.directory(), "0" * 64)
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
    """Contract clause 3: who cannot say that there is no queue does not say so."""

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
