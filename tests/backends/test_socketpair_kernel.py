"""What only the pair of sockets has: its directory, strangers at its rendezvous, hostile packets, and its limits."""

import errno
import os
import secrets
import socket
import stat
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ipcq
from ipcq import _private
from ipcq.backend import Request
from ipcq.errors import (
    CorruptQueue,
    LimitExceeded,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueGone,
    QueueNotFound,
    TimedOutError,
    Unsupported,
    VersionMismatch,
)
from ipcq_socketpair import SocketpairBackend

if not SocketpairBackend().probe().usable:
    pytest.skip(SocketpairBackend().probe().reason, allow_module_level=True)

import fcntl
import resource

from ipcq_socketpair import _buffer, _channel, _host, _place, _sealed

Handle = ipcq.Queue[Any]
LARGE = 100_000


@pytest.fixture
def name() -> str:
    """Return a name that no queue has."""
    return f"/kernel-{os.getpid()}-{secrets.token_hex(4)}"


@pytest.fixture
def queue(name: str) -> Iterator[Handle]:
    """Return a handle to a new queue without limits, of bytes alone."""
    with ipcq.open(name, "socketpair", exclusive=True, serializer="raw") as queue:
        yield queue


@pytest.fixture
def bounded(name: str) -> Iterator[Handle]:
    """Return a handle to a new queue of 4 messages of 64 bytes, of bytes alone."""
    with ipcq.open(name, "socketpair", exclusive=True, serializer="raw", max_messages=4, max_message_size=64) as queue:
        yield queue


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return where queues are during the test: nowhere yet."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a socket's path has 107 bytes at the most: unix(7)
        place = Path(short, "ipcq", "socketpair")
        monkeypatch.setattr(_private, "_root", lambda: str(place.parent))
        yield place


def ends(queue: Handle) -> Any:
    """Return the sockets of a handle, as a hostile holder has them."""
    return queue._channel._ends  # type: ignore[attr-defined]  # what is attacked


def send(queue: Handle, packet: bytes, *descriptors: int) -> None:
    """Put a packet past ipcq."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
    ends(queue).write.sendmsg([packet], rights)


def count() -> int:
    """Count the descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


# Packets that no ipcq sends

LARGE_HEADER = _buffer.HEADER.pack(1, 5)


@pytest.mark.parametrize(
    "packet",
    [b"", b"\x02", b"\x01", b"\xff" * 9, LARGE_HEADER, b"\x00" + bytes(_buffer.INLINE + 1), b"\x01" + bytes(200)],
    ids=["empty", "unknown", "short", "large-unknown", "without-a-file", "too-long", "long-header"],
)
def test_a_strange_packet_is_told_and_dropped(packet: bytes, queue: Handle) -> None:
    """C28: CorruptQueue, and the next get works."""
    send(queue, packet)
    queue.put(b"good")
    with pytest.raises(CorruptQueue):
        queue.get(timeout=5)
    assert queue.get(timeout=5) == b"good"


@pytest.mark.parametrize("packet", [b"", b"\x00", _buffer.HEADER.pack(0, 65).ljust(73, b"\0"), bytes(100)])
def test_a_strange_packet_in_a_bounded_queue_is_told_and_dropped(packet: bytes, bounded: Handle) -> None:
    """C28: the same where packets are padded."""
    send(bounded, packet)
    bounded.put(b"good")
    with pytest.raises(CorruptQueue):
        bounded.get(timeout=5)
    assert bounded.get(timeout=5) == b"good"


def memfd(content: bytes = b"hello", *, seals: int = _sealed._SEALS) -> int:
    """Make a file as a large message is one."""
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(descriptor, content)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def write_only() -> int:
    """Make a sealed file that cannot be read by this descriptor."""
    descriptor = memfd()
    reopened = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)
    os.close(descriptor)
    return reopened


def pipe() -> int:
    """Make a pipe that nobody writes to."""
    read, write = os.pipe()
    os.close(write)
    return read


DESCRIPTORS: dict[str, Callable[[], int]] = {
    "unsealed": lambda: memfd(seals=0),
    "growing": lambda: memfd(seals=2 | 8),
    "shrinking": lambda: memfd(seals=4 | 8),
    "written to": lambda: memfd(seals=2 | 4),
    "another size": lambda: memfd(b"hello, world"),
    "write only": write_only,
    "endless": lambda: os.open("/dev/zero", os.O_RDONLY),
    "pipe": pipe,
    "directory": lambda: os.open("/", os.O_RDONLY),
    "socket": lambda: socket.socket(socket.AF_UNIX).detach(),
    "path": lambda: os.open("/", os.O_PATH),
    "eventfd": lambda: os.eventfd(0),
}


@pytest.mark.parametrize("kind", DESCRIPTORS)
def test_a_descriptor_that_is_no_sealed_file_does_no_harm(kind: str, queue: Handle) -> None:
    """C28: CorruptQueue at once, the next get works, and no descriptor stays open."""
    send(queue, b"\x00warm")
    queue.get(timeout=5)
    before = count()
    hostile = DESCRIPTORS[kind]()
    send(queue, LARGE_HEADER, hostile)
    os.close(hostile)
    queue.put(b"good")
    with pytest.raises(CorruptQueue):
        queue.get(timeout=5)
    assert queue.get(timeout=5) == b"good"
    assert count() == before


def test_descriptors_that_come_unasked_are_closed(queue: Handle) -> None:
    """C28: one beside a message that is in its packet, and several beside one that is not."""
    before = count()
    good = memfd()
    send(queue, b"\x00plain", good)
    send(queue, LARGE_HEADER, good, good, good)
    send(queue, LARGE_HEADER, good)
    os.close(good)
    for _ in range(2):
        with pytest.raises(CorruptQueue):
            queue.get(timeout=5)
    assert queue.get(timeout=5) == b"hello"
    assert count() == before


def test_a_file_larger_than_the_queue_takes_is_not_read(name: str) -> None:
    """C28: nothing is allocated beyond max_message_size."""
    with ipcq.open(name, "socketpair", max_message_size=LARGE, serializer="raw") as queue:
        hostile = memfd(bytes(LARGE + 1))
        send(queue, _buffer.HEADER.pack(1, LARGE + 1), hostile)
        os.close(hostile)
        with pytest.raises(CorruptQueue):
            queue.get(timeout=5)


def test_strange_packets_do_not_hinder_an_immediate_shutdown(queue: Handle) -> None:
    """C14: what is dropped may be anything."""
    send(queue, b"\xff")
    queue.put(b"x")
    queue.shutdown(immediate=True)
    with pytest.raises(ipcq.QueueShutDown):
        queue.get(timeout=5)


# Large messages


def test_a_large_message_can_be_looked_at(queue: Handle) -> None:
    """Clause 20: peek takes nothing, and leaves no descriptor."""
    queue.put(b"x" * LARGE)
    before = count()
    assert queue.peek() == b"x" * LARGE
    assert queue.get(timeout=5) == b"x" * LARGE
    assert count() == before


def test_small_and_large_messages_keep_their_order(queue: Handle) -> None:
    """C8: whichever way they travel."""
    items = [bytes([number]) * (LARGE if number % 2 else 10) for number in range(10)]
    for item in items:
        queue.put(item)
    assert [queue.get(timeout=5) for _ in items] == items


def test_more_descriptors_under_way_than_a_user_may_have_is_full(
    queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C7: a put waits for getters, as for space."""

    class Refusing:
        def sendmsg(self, *arguments: object) -> None:
            raise OSError(errno.ETOOMANYREFS, "too many references")

        def __getattr__(self, what: str) -> Any:
            return getattr(real, what)

    real = ends(queue).write
    monkeypatch.setattr(ends(queue), "write", Refusing())
    with pytest.raises(ipcq.QueueFull):
        queue.put(b"x" * LARGE, timeout=0.05)
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.EMFILE, LimitExceeded), (errno.ENOSPC, NoSpace), (errno.EIO, MessageQueueError)]
)
def test_a_file_that_cannot_be_made_is_explained(
    number: int, expected: type[Exception], queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5, C24: nothing was queued, and no descriptor is left."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_sealed.os, "write", refuse)
    before = count()
    with pytest.raises(expected):
        queue.put(b"x" * LARGE)
    monkeypatch.undo()
    assert queue.empty()
    assert count() == before


def test_full_is_told_without_a_bound_in_messages(name: str) -> None:
    """C7: the smallest message does not fit exactly where full says so."""
    with ipcq.open(name, "socketpair", buffer_size=8192, serializer="raw") as queue:
        stored = 0
        while not queue.full():
            queue.put_nowait(b"")
            stored += 1
        assert queue.qsize() >= stored
        with pytest.raises(ipcq.QueueFull):
            queue.put_nowait(b"x" * LARGE)
        assert len(queue.get_many()) == stored
        assert queue.qsize() == 0
        assert queue.stats().depth is None


def test_nothing_large_is_put_into_a_full_queue_that_is_shut_down(name: str) -> None:
    """C14: QueueShutDown and not QueueFull."""
    with ipcq.open(name, "socketpair", buffer_size=8192, serializer="raw") as queue:
        with suppress(ipcq.QueueFull):
            while True:
                queue.put_nowait(b"")
        queue.shutdown()
        with pytest.raises(ipcq.QueueShutDown):
            queue.put(b"x" * LARGE)


# Limits


def test_more_messages_than_the_buffer_may_hold_names_the_setting(name: str) -> None:
    """C24: net.core.wmem_max, with the command that raises it."""
    with pytest.raises(LimitExceeded, match=r"sudo sysctl net.core.wmem_max=") as caught:
        ipcq.open(name, "socketpair", max_messages=100_000)
    assert caught.value.limit == "net.core.wmem_max"
    assert caught.value.errno == errno.ENOBUFS


def test_what_no_setting_allows_is_said_to_be_so(name: str) -> None:
    """C24: there is no command that would help."""
    with pytest.raises(LimitExceeded, match="ask for less"):
        ipcq.open(name, "socketpair", buffer_size=1 << 40)


def test_a_limit_that_cannot_be_read_is_met_all_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: where /proc/sys does not show it."""
    monkeypatch.setattr(_buffer, "_most", lambda: _buffer._HIGHEST)
    with pytest.raises(LimitExceeded):
        ipcq.open(name, "socketpair", max_messages=100_000)


def test_more_large_messages_than_descriptors_names_the_limit(name: str) -> None:
    """C24: RLIMIT_NOFILE, where each message would be a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        with pytest.raises(LimitExceeded, match="ulimit -n 400") as caught:
            ipcq.open(name, "socketpair", max_messages=400, max_message_size=LARGE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.limit == "RLIMIT_NOFILE"


def test_many_messages_get_smaller_packets(name: str) -> None:
    """C7: as many as asked for fit, whatever the default of the largest one."""
    with ipcq.open(name, "socketpair", max_messages=2000, serializer="raw") as queue:
        assert queue.put_many([b""] * 2001, block=False) == 2000


@pytest.mark.parametrize(
    "request_",
    [Request(buffer_size=1), Request(max_messages=4, buffer_size=9000), Request(priorities=True), Request(mode=0o640)],
)
def test_what_cannot_be_honoured_is_refused(request_: Request, name: str) -> None:
    """Clause 6: Unsupported, and nothing is created."""
    with pytest.raises(Unsupported):
        SocketpairBackend().create(name, request_)
    assert not ipcq.exists(name, "socketpair")


def test_the_buffer_is_the_size_that_was_asked_for(name: str) -> None:
    """Clause 6: and every handle says so."""
    with ipcq.open(name, "socketpair", buffer_size=10_000), ipcq.open(name, "socketpair", create=False) as other:
        assert other.buffer_size == 10_000


def test_a_default_timeout_of_the_program_makes_no_call_wait(name: str) -> None:
    """C10: nor does it change what other holders see."""
    socket.setdefaulttimeout(5)
    try:
        with ipcq.open(name, "socketpair") as queue:
            began = time.monotonic()
            with pytest.raises(ipcq.QueueEmpty):
                queue.get_nowait()
            assert time.monotonic() - began < 5
            assert os.get_blocking(queue.fileno())
    finally:
        socket.setdefaulttimeout(None)


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


# The rendezvous


def test_who_connects_and_says_nothing_holds_nobody_up(queue: Handle) -> None:
    """C27: a hundred idle connections, and some that talk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_host, "offered", lambda found: None)  # as in another process
        idle = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(100)]
        for number, each in enumerate(idle):
            each.connect(_place.path_of(queue.name))
            if number % 2:
                with suppress(OSError):
                    each.send(b"garbage")
        with ipcq.open(queue.name, "socketpair", create=False, serializer="raw") as other:
            other.put(b"through")
        for each in idle:
            each.close()
    assert queue.get(timeout=5) == b"through"


ANSWERS: dict[str, tuple[bytes, int, type[Exception]]] = {
    "nothing": (b"", 0, QueueNotFound),
    "garbage": (b"garbage", 0, CorruptQueue),
    "a list": (b"[]", 0, CorruptQueue),
    "no terms": (b'{"version": 1}', 0, CorruptQueue),
    "another version": (b'{"version": 2}', 0, VersionMismatch),
    "too few descriptors": (b"TERMS", 2, CorruptQueue),
    "no sockets": (b"TERMS", 3, CorruptQueue),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_a_strange_answer_is_told(kind: str, name: str) -> None:
    """C18, C28: whatever stands behind the name, attaching ends with what is wrong, and leaves no descriptor."""
    text, descriptors, expected = ANSWERS[kind]
    with ipcq.open(f"{name}-real", "socketpair") as real:
        terms = real._channel._terms.packed()  # type: ignore[attr-defined]  # what a holder says
    _place.make()
    before = count()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as impostor:
        impostor.bind(_place.path_of(name))
        impostor.listen()
        over = threading.Event()

        def answer() -> None:
            impostor.settimeout(0.05)
            while not over.is_set():
                with suppress(OSError):
                    line, _ = impostor.accept()
                    with line:
                        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [1] * descriptors))]
                        line.sendmsg([terms if text == b"TERMS" else text], rights if descriptors else [])

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with pytest.raises(expected):
                SocketpairBackend().attach(name, Request())
        finally:
            over.set()
            thread.join()
    os.unlink(_place.path_of(name))
    assert count() == before


def test_the_thread_serves_all_queues_and_goes_with_the_last(name: str) -> None:
    """C17: one thread, whatever the number of queues, and none afterwards."""
    before = threading.active_count()
    queues = [ipcq.open(f"{name}-{number}", "socketpair") for number in range(3)]
    during = threading.active_count()
    for queue in queues:
        queue.close()
    assert (during - before, threading.active_count()) == (1, before)


def test_without_a_thread_there_is_no_queue(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C16: a queue that nobody could attach to is not made, and nothing stays open."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = count()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(MessageQueueError, match="no thread starts"):
        ipcq.open(name, "socketpair", max_messages=4)
    assert not ipcq.exists(name, "socketpair")
    assert count() == before


def test_without_proc_a_bounded_queue_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C7: its putters could not exclude each other; the way out is said."""
    real = os.open

    def refuse(path: Any, *arguments: Any, **keywords: Any) -> int:
        if str(path).startswith("/proc/self/fd"):
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return real(path, *arguments, **keywords)

    before = count()
    monkeypatch.setattr(_channel.os, "open", refuse)
    with pytest.raises(MessageQueueError, match="mount /proc"):
        ipcq.open(name, "socketpair", max_messages=4)
    monkeypatch.undo()
    assert count() == before
    assert not ipcq.exists(name, "socketpair")


# What comes up rarely


def test_a_look_at_a_small_message_takes_nothing(queue: Handle) -> None:
    """Clause 20: also where messages may be large."""
    assert queue._channel.peek() is None  # type: ignore[attr-defined]  # below the exception for an empty queue
    queue.put(b"small")
    assert (queue.peek(), queue.get(timeout=5)) == (b"small", b"small")


def test_a_look_at_a_strange_packet_is_told(queue: Handle) -> None:
    """C28: as a get is, which then drops it."""
    send(queue, b"\xff")
    for look in (queue.peek, queue.get_nowait):
        with pytest.raises(CorruptQueue):
            look()
    assert queue.empty()


def test_credentials_that_a_holder_asked_for_are_no_descriptors(queue: Handle) -> None:
    """C28: other control messages leave nothing behind."""
    ends(queue).read.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    before = count()
    send(queue, b"\x00x")
    with pytest.raises(CorruptQueue):
        queue.get(timeout=5)
    assert count() == before


def test_a_packet_that_came_right_before_the_end_is_got(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C1, C14: the kernel may tell the end once while there still is one."""
    channel = queue._channel  # type: ignore[attr-defined]  # what meets the kernel
    queue.put(b"last")
    queue.shutdown()
    answers = iter([(b"", [])])
    real = channel._take
    monkeypatch.setattr(channel, "_large", True)
    monkeypatch.setattr(channel, "_take", lambda how: next(answers, None) or real(how))
    assert queue.get(timeout=5) == b"last"


class Refusing:
    """A socket whose calls fail."""

    def __init__(self, real: socket.socket, number: int) -> None:
        self._real = real
        self._number = number

    def __getattr__(self, what: str) -> Any:
        return getattr(self._real, what)

    def _accept(self) -> None:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("verb", ["put", "get", "peek"])
def test_what_the_kernel_refuses_is_explained(verb: str, queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 18: with its errno."""
    channel = queue._channel  # type: ignore[attr-defined]  # what meets the kernel

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(channel, "_send", refuse)
    monkeypatch.setattr(channel, "_receive_all", refuse)
    with pytest.raises(MessageQueueError, match="the system refused") as caught:
        queue.put(b"x") if verb == "put" else getattr(queue, verb)()
    assert caught.value.errno == errno.EIO


def test_a_stopped_putter_makes_the_queue_full_for_the_moment(bounded: Handle) -> None:
    """C11: who cannot have its turn times out on schedule, and goes on when the lock is free."""
    lock = os.open(f"/proc/self/fd/{ends(bounded).lock}", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ipcq.QueueFull):
            bounded.put(b"x", timeout=0.1)
    finally:
        os.close(lock)
    bounded.put(b"x")


def test_a_put_inside_a_put_is_refused(bounded: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: a signal handler that strikes between counting and sending cannot break the bound."""
    channel = bounded._channel  # type: ignore[attr-defined]  # where the handler strikes
    real = channel._has_space
    monkeypatch.setattr(channel, "_has_space", lambda: bounded.put(b"handler") or real())
    with pytest.raises(Unsupported, match="signal handler"):
        bounded.put(b"x")
    monkeypatch.undo()
    bounded.put(b"y")
    assert bounded.get_many() == [b"y"]


def test_a_channel_takes_a_lock_of_its_own_after_a_fork(bounded: Handle) -> None:
    """C20: and works on."""
    assert bounded._channel.after_fork()  # type: ignore[attr-defined]  # as in the child
    bounded.put(b"x")
    assert bounded.get(timeout=5) == b"x"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES])
def test_a_channel_without_a_lock_of_its_own_is_not_used_after_a_fork(
    number: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C20, clause 17: it gives everything back."""
    before = count()
    channel = SocketpairBackend().create(name, Request(max_messages=4))

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_channel.os, "open", refuse)
    assert not channel.after_fork()
    monkeypatch.undo()
    assert count() == before
    with suppress(FileNotFoundError):
        os.unlink(_place.path_of(name))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_leaves_the_parent_as_it_was(queue: Handle) -> None:
    """C20: newcomers are let in as before."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_host, "offered", lambda found: None)
        ipcq.open(queue.name, "socketpair", create=False).close()


def strand() -> None:
    """Leave this process as a forked child is: with the queues, without the thread."""
    (host,) = _host._hosts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "release", lambda: None)
        os.eventfd_write(host._bell, 1)
        host._thread.join()
    _host._process = -1


@pytest.mark.parametrize("given", [True, False])
def test_a_child_lets_newcomers_in_if_it_gets_a_thread(
    given: bool, queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C20: and where it gets none, its own handles work on."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    strand()
    with pytest.MonkeyPatch.context() as patch:
        if not given:
            patch.setattr(threading.Thread, "start", refuse)
        _host.inherit()
    assert len(_host._hosts) == given
    queue.put(b"x")
    assert queue.get(timeout=5) == b"x"


def test_the_thread_ends_with_the_interpreter(queue: Handle) -> None:
    """C17: and the handles that are open then can still be used and closed."""
    before = threading.active_count()
    _host._end()
    assert threading.active_count() == before - 1
    queue.put(b"x")
    assert queue.get(timeout=5) == b"x"


def test_a_queue_that_a_handler_opens_while_the_last_is_closed_is_served(
    queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C12: the thread goes on for it."""
    opened: list[Handle] = []

    class Interrupted(list[Any]):
        def remove(self, host: object) -> None:
            opened.append(ipcq.open(f"{queue.name}-handler", "socketpair"))
            super().remove(host)

    monkeypatch.setattr(_host, "_hosts", Interrupted(_host._hosts))
    queue.close()
    assert len(_host._hosts) == 1
    monkeypatch.setattr(_host, "_hosts", list(_host._hosts))
    opened[0].close()
    monkeypatch.undo()
    _host._hosts.clear()


def test_a_queue_that_a_finaliser_closes_in_the_thread_ends_it(name: str) -> None:
    """C17: the thread cannot wait for itself."""
    before = count()
    queue = ipcq.open(name, "socketpair")
    (host,) = _host._hosts
    thread = host._thread
    host._thread = threading.current_thread()  # as if this were it
    queue.close()
    thread.join(5)
    assert not thread.is_alive()
    assert count() == before


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ECONNABORTED])
def test_an_accept_that_fails_is_survived(number: int, queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: a full table is told, so that the thread waits; all else is the newcomer's."""
    offer = queue._channel._offer  # type: ignore[attr-defined]  # what the thread serves
    monkeypatch.setattr(offer.ends, "listener", Refusing(offer.ends.listener, number))
    if number == errno.EMFILE:
        with pytest.raises(OSError, match="Too many open files"):
            offer.answer()
    else:
        offer.answer()
    monkeypatch.undo()


def test_another_user_gets_and_gives_nothing(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C27: SO_PEERCRED decides on both sides."""
    from ipcq_socketpair import _ends

    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        monkeypatch.setattr(_ends, "_peer", lambda connection: 12345)
        channel = queue._channel  # type: ignore[attr-defined]  # what would be handed out
        _ends.sent(one, channel._terms, channel._ends)
        with pytest.raises(BlockingIOError):
            other.recv(1, socket.MSG_DONTWAIT)
        with pytest.raises(PermissionDenied, match="12345"):
            _ends.received(other)


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


def test_a_backend_that_is_asked_past_the_core_keeps_the_clauses(name: str) -> None:
    """Clauses 1 and 4: a taken name is QueueExists, a missing one QueueNotFound."""
    backend = SocketpairBackend()
    channel = backend.create(name, Request())
    with pytest.raises(ipcq.QueueExists):
        backend.create(name, Request())
    backend.unlink(name)
    with pytest.raises(QueueNotFound):
        backend.unlink(name)
    channel.close()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EMFILE, LimitExceeded),
        (errno.ENFILE, LimitExceeded),
        (errno.ENOMEM, NoSpace),
        (errno.EACCES, PermissionDenied),
        (errno.EIO, MessageQueueError),
    ],
)
def test_what_the_system_refuses_at_creation_is_explained(
    number: int, expected: type[Exception], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24, clause 18: each error number by its meaning, and nothing stays."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    before = count()
    monkeypatch.setattr(_place.os, "chmod", refuse)
    _place.private()
    with pytest.raises(expected):
        SocketpairBackend().create(name, Request())
    monkeypatch.undo()
    with suppress(FileNotFoundError):
        os.unlink(_place.path_of(name))
    assert count() == before


def test_elsewhere_than_on_linux_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: and knows no queues."""
    monkeypatch.setattr("sys.platform", "darwin")
    backend = SocketpairBackend()
    assert not backend.probe().usable
    assert "this is darwin" in backend.probe().reason
    assert (backend.exists("/x"), backend.names(), backend.findings()) == (False, [], [])


def test_a_setting_that_is_not_shown_is_taken_for_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: in containers that hide /proc/sys."""

    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", refuse)
    most = _buffer._most()
    monkeypatch.undo()
    assert most == _buffer._HIGHEST


def test_where_nothing_is_left_nothing_is_found(place: Path, name: str) -> None:
    """Clause 19: no finding without a reason."""
    SocketpairBackend().create(name, Request()).close()
    assert SocketpairBackend().findings() == []


def test_a_reserve_that_cannot_be_had_is_tried_for_again(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the next get needs it, and not this one."""
    channel = queue._channel  # type: ignore[attr-defined]  # what keeps it
    channel._drop_spare()

    def refuse(descriptor: int) -> int:
        raise OSError(errno.EMFILE, "full")

    monkeypatch.setattr(_channel.os, "dup", refuse)
    channel._refill()
    monkeypatch.undo()
    assert not channel._spare
    channel._refill()
    assert len(channel._spare) == 1


def test_an_unbounded_channel_is_used_on_after_a_fork(queue: Handle) -> None:
    """C20: there is no lock to exchange."""
    assert queue._channel.after_fork()  # type: ignore[attr-defined]  # as in the child


def test_a_child_without_queues_begins_no_thread() -> None:
    """C20: nothing is there to hand out."""
    before = threading.active_count()
    _host._process = -1
    _host.inherit()
    assert threading.active_count() == before


def test_more_descriptors_than_there_is_room_for_names_the_limit() -> None:
    """C24: what did not fit is told as the full table that it mostly is, and nothing stays open."""
    from ipcq_socketpair import _ends

    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        before = count()
        one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [1] * 5))])
        with pytest.raises(LimitExceeded):
            _ends.received(other)
        assert count() == before


def test_a_holder_that_lets_go_before_it_answers_is_no_answer() -> None:
    """C16: the newcomer asks again."""
    from ipcq_socketpair import _ends

    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        other.send(b"unread")
        one.close()
        assert _ends.received(other) is None


def test_the_thread_waits_where_it_cannot_accept(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: and answers afterwards."""
    offer = queue._channel._offer  # type: ignore[attr-defined]  # what the thread serves
    waited = threading.Event()
    monkeypatch.setattr(_host, "sleep", lambda seconds: waited.set())
    monkeypatch.setattr(_host, "offered", lambda found: None)
    refusals = iter([OSError(errno.EMFILE, "full")])
    real = offer.answer

    def answer() -> None:
        for refusal in refusals:
            raise refusal
        real()

    monkeypatch.setattr(offer, "answer", answer)
    ipcq.open(queue.name, "socketpair", create=False).close()
    assert waited.is_set()


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


def test_a_queue_whose_backlog_is_full_is_asked_again(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C11: until the patience is over."""
    monkeypatch.setattr(_host, "offered", lambda found: None)
    monkeypatch.setattr(_place, "_connects", lambda end, path: False)
    with pytest.raises(QueueNotFound, match="kill -CONT"):
        SocketpairBackend().attach(queue.name, Request())
    monkeypatch.undo()


def test_a_queue_that_goes_while_it_is_listed_is_left_out() -> None:
    """C18: a long name that nobody answers for."""
    _place.make()
    file = Path(_place.directory(), "0" * 64)
    file.write_text("")
    try:
        assert "0" * 64 not in "".join(SocketpairBackend().names())
    finally:
        file.unlink()


def test_a_handle_is_closed_only_when_nobody_is_handed_its_descriptors(queue: Handle) -> None:
    """C16: a newcomer never gets what has the same number by then."""
    (host,) = _host._hosts
    host._answering = ends(queue).listener.fileno()
    began = time.monotonic()
    threading.Timer(0.1, setattr, (host, "_answering", _host._NOBODY)).start()
    queue.close()
    assert time.monotonic() - began >= 0.1


def test_who_cannot_look_takes_the_queue_for_linked(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: a look that the system refuses says nothing about the queue, and ends no call."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(_place, "leads_to", refuse)
    queue.put(b"item")
    assert queue.get(timeout=5) == b"item"


def test_a_turn_that_the_system_refuses_is_our_error(bounded: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: with its number, and nothing is put."""
    flock = fcntl.flock

    def refuse(descriptor: int, how: int) -> None:
        if how != fcntl.LOCK_UN:
            raise OSError(errno.ENOLCK, "no locks")
        flock(descriptor, how)

    with monkeypatch.context() as patch, pytest.raises(MessageQueueError) as caught:
        patch.setattr(fcntl, "flock", refuse)
        bounded.put(b"item")
    assert caught.value.errno == errno.ENOLCK
    assert bounded.empty()


def test_a_directory_that_cannot_be_looked_at_is_not_taken_for_missing(
    queue: Handle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contract clause 3: who cannot say that there is no queue does not say so."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    with monkeypatch.context() as patch, pytest.raises(MessageQueueError):
        patch.setattr(os, "lstat", refuse)
        SocketpairBackend().exists(name)
