"""Packets of a pair of sockets: hostile ones, and large messages."""

import errno
import os
import socket
from array import array
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import ipcq
from backends import socketpair
from backends.socketpair import LARGE_BYTES, Handle, count_descriptors, ends, fcntl, send_packet
from ipcq.errors import CorruptQueue, LimitExceeded, MessageQueueError, NoSpace
from ipcq_socketpair import _buffer, _sealed

name, queue, bounded = socketpair.name, socketpair.queue, socketpair.bounded


# Hostile packets

LARGE_HEADER = _buffer.HEADER.pack(1, 5)


@pytest.mark.parametrize(
    "packet",
    [b"", b"\x02", b"\x01", b"\xff" * 9, LARGE_HEADER, b"\x00" + bytes(_buffer.INLINE_BYTES + 1), b"\x01" + bytes(200)],
    ids=["empty", "unknown", "short", "large-unknown", "without-a-file", "too-long", "long-header"],
)
def test_an_invalid_packet_is_reported_and_dropped(packet: bytes, queue: Handle) -> None:
    """C28: CorruptQueue, and the next get works."""
    send_packet(queue, packet)
    queue.put(b"good")
    with pytest.raises(CorruptQueue):
        queue.get(timeout=5)
    assert queue.get(timeout=5) == b"good"


def test_peek_does_not_mistake_an_invalid_packet_for_the_end(queue: Handle) -> None:
    """C14, C28: an empty packet looks like the end, but a message follows it."""
    send_packet(queue, b"")
    queue.put(b"good")
    queue.shutdown()
    with pytest.raises(ipcq.QueueEmpty):
        queue.peek()
    assert queue.get(timeout=5) == b"good"


@pytest.mark.parametrize("packet", [b"", b"\x00", _buffer.HEADER.pack(0, 65).ljust(73, b"\0"), bytes(100)])
def test_an_invalid_packet_in_a_bounded_queue_is_reported_and_dropped(packet: bytes, bounded: Handle) -> None:
    """C28: the same where packets are padded."""
    send_packet(bounded, packet)
    bounded.put(b"good")
    with pytest.raises(CorruptQueue):
        bounded.get(timeout=5)
    assert bounded.get(timeout=5) == b"good"


def create_memfd(content: bytes = b"hello", *, seals: int = _sealed._SEALS) -> int:
    """Create a file like that of a large message."""
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(descriptor, content)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def create_write_only() -> int:
    """Create a sealed file, and return a descriptor that cannot read it."""
    descriptor = create_memfd()
    reopened = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)
    os.close(descriptor)
    return reopened


def create_pipe() -> int:
    """Create a pipe without a writer."""
    read, write = os.pipe()
    os.close(write)
    return read


DESCRIPTORS: dict[str, Callable[[], int]] = {
    "unsealed": lambda: create_memfd(seals=0),
    "growing": lambda: create_memfd(seals=2 | 8),
    "shrinking": lambda: create_memfd(seals=4 | 8),
    "written to": lambda: create_memfd(seals=2 | 4),
    "another size": lambda: create_memfd(b"hello, world"),
    "write only": create_write_only,
    "endless": lambda: os.open("/dev/zero", os.O_RDONLY),
    "pipe": create_pipe,
    "directory": lambda: os.open("/", os.O_RDONLY),
    "socket": lambda: socket.socket(socket.AF_UNIX).detach(),
    "path": lambda: os.open("/", os.O_PATH),
    "eventfd": lambda: os.eventfd(0),
}


@pytest.mark.parametrize("kind", DESCRIPTORS)
def test_a_descriptor_of_anything_but_a_sealed_file_does_no_harm(kind: str, queue: Handle) -> None:
    """C28: CorruptQueue at once, the next get works, and no descriptor stays open."""
    send_packet(queue, b"\x00warm")
    queue.get(timeout=5)
    before = count_descriptors()
    hostile = DESCRIPTORS[kind]()
    send_packet(queue, LARGE_HEADER, hostile)
    os.close(hostile)
    queue.put(b"good")
    with pytest.raises(CorruptQueue):
        queue.get(timeout=5)
    assert queue.get(timeout=5) == b"good"
    assert count_descriptors() == before


def test_unexpected_descriptors_are_closed(queue: Handle) -> None:
    """C28: one beside a message inside its packet, and several beside a large message."""
    before = count_descriptors()
    good = create_memfd()
    send_packet(queue, b"\x00plain", good)
    send_packet(queue, LARGE_HEADER, good, good, good)
    send_packet(queue, LARGE_HEADER, good)
    os.close(good)
    for _ in range(2):
        with pytest.raises(CorruptQueue):
            queue.get(timeout=5)
    assert queue.get(timeout=5) == b"hello"
    assert count_descriptors() == before


def test_a_file_larger_than_the_limit_is_not_read(name: str) -> None:
    """C28: nothing is allocated beyond max_message_size."""
    with ipcq.open(name, "socketpair", max_message_size=LARGE_BYTES, serializer="raw") as queue:
        hostile = create_memfd(bytes(LARGE_BYTES + 1))
        send_packet(queue, _buffer.HEADER.pack(1, LARGE_BYTES + 1), hostile)
        os.close(hostile)
        with pytest.raises(CorruptQueue):
            queue.get(timeout=5)


def test_invalid_packets_do_not_prevent_an_immediate_shutdown(queue: Handle) -> None:
    """C14: any packet can be dropped."""
    send_packet(queue, b"\xff")
    queue.put(b"x")
    queue.shutdown(immediate=True)
    with pytest.raises(ipcq.QueueShutDown):
        queue.get(timeout=5)


def test_invalid_packets_do_not_prevent_a_clear(queue: Handle) -> None:
    """C37: any packet is dropped, and so are those behind it."""
    queue.put(b"before")
    ends(queue).write.send(b"\x07strange")
    queue.put(b"behind")
    assert (queue.clear(), queue.empty()) == (3, True)


def test_large_messages_are_dropped_unread(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36, C37: a message that nobody gets needs no memory."""
    queue.put(bytes(LARGE_BYTES))
    queue.put(b"small")
    monkeypatch.setattr(_sealed, "opened", None)
    assert (queue.clear(), queue.empty()) == (2, True)


def test_an_error_of_the_system_while_dropping_is_raised(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C37: the call does not claim that everything was dropped."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    queue.put(b"kept")
    monkeypatch.setattr(queue._channel, "_receive_all", refuse)
    with pytest.raises(ipcq.MessageQueueError, match="broken"):
        queue.clear()


def test_unexpected_descriptors_do_not_prevent_a_clear(queue: Handle) -> None:
    """C37: a packet with too many is dropped, and so are those behind it."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [0, 0, 0]))]
    ends(queue).write.sendmsg([b"\x07strange"], rights)
    queue.put(b"behind")
    assert (queue.clear(), queue.empty()) == (2, True)


def test_a_clear_ends_when_others_take_the_rest(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C37: messages that were counted may be gone before they are dropped."""
    queue.put(b"only")
    monkeypatch.setattr(queue._channel, "_count", lambda: 5)
    assert queue.clear() == 1


def test_a_peek_at_an_invalid_packet_is_an_error(queue: Handle) -> None:
    """C28: peek and get raise; get then drops the packet."""
    send_packet(queue, b"\xff")
    for look in (queue.peek, queue.get_nowait):
        with pytest.raises(CorruptQueue):
            look()
    assert queue.empty()


def test_credentials_are_not_mistaken_for_descriptors(queue: Handle) -> None:
    """C28: other control messages leave nothing behind."""
    ends(queue).read.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    before = count_descriptors()
    send_packet(queue, b"\x00x")
    with pytest.raises(CorruptQueue):
        queue.get(timeout=5)
    assert count_descriptors() == before


# Large messages


def test_a_large_message_can_be_peeked_at(queue: Handle) -> None:
    """Clause 20: peek takes nothing, and leaves no descriptor open."""
    queue.put(b"x" * LARGE_BYTES)
    before = count_descriptors()
    assert queue.peek() == b"x" * LARGE_BYTES
    assert queue.get(timeout=5) == b"x" * LARGE_BYTES
    assert count_descriptors() == before


def test_small_and_large_messages_keep_their_order(queue: Handle) -> None:
    """C8: whichever way they travel."""
    items = [bytes([number]) * (LARGE_BYTES if number % 2 else 10) for number in range(10)]
    for item in items:
        queue.put(item)
    assert [queue.get(timeout=5) for _ in items] == items


def test_too_many_descriptors_in_flight_make_the_queue_full(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C7: a put waits for consumers, as it does for space."""

    class Refusing:
        def sendmsg(self, *arguments: object) -> None:
            raise OSError(errno.ETOOMANYREFS, "too many references")

        def __getattr__(self, what: str) -> Any:
            return getattr(real, what)

    real = ends(queue).write
    monkeypatch.setattr(ends(queue), "write", Refusing())
    with pytest.raises(ipcq.QueueFull):
        queue.put(b"x" * LARGE_BYTES, timeout=0.05)
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
    before = count_descriptors()
    with pytest.raises(expected):
        queue.put(b"x" * LARGE_BYTES)
    monkeypatch.undo()
    assert queue.empty()
    assert count_descriptors() == before


def test_full_works_without_a_limit_in_messages(name: str) -> None:
    """C7: full is true exactly when the smallest message does not fit."""
    with ipcq.open(name, "socketpair", buffer_size=8192, serializer="raw") as queue:
        stored = 0
        while not queue.full():
            queue.put_nowait(b"")
            stored += 1
        assert queue.qsize() >= stored
        with pytest.raises(ipcq.QueueFull):
            queue.put_nowait(b"x" * LARGE_BYTES)
        assert len(queue.get_many()) == stored
        assert queue.qsize() == 0
        assert queue.stats().depth is None


def test_no_large_message_is_put_into_a_full_queue_that_is_shut_down(name: str) -> None:
    """C14: QueueShutDown and not QueueFull."""
    with ipcq.open(name, "socketpair", buffer_size=8192, serializer="raw") as queue:
        with suppress(ipcq.QueueFull):
            while True:
                queue.put_nowait(b"")
        queue.shutdown()
        with pytest.raises(ipcq.QueueShutDown):
            queue.put(b"x" * LARGE_BYTES)


def test_a_peek_at_a_small_message_takes_nothing(queue: Handle) -> None:
    """Clause 20: also where messages may be large."""
    assert queue._channel.peek() is None  # type: ignore[attr-defined]  # below the core, which raises for an empty queue
    queue.put(b"small")
    assert (queue.peek(), queue.get(timeout=5)) == (b"small", b"small")


def test_a_packet_right_before_the_end_is_got(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C1, C14: the kernel may report the end once although a packet is left."""
    channel = queue._channel  # type: ignore[attr-defined]  # it makes the system calls
    queue.put(b"last")
    queue.shutdown()
    answers = iter([(b"", [])])
    real = channel._take
    monkeypatch.setattr(channel, "_large", True)
    monkeypatch.setattr(channel, "_take", lambda how: next(answers, None) or real(how))
    assert queue.get(timeout=5) == b"last"


def fail(*_: object) -> Any:
    """Simulate a call that runs out of memory."""
    raise MemoryError


@pytest.fixture
def kept(queue: Handle) -> Handle:
    """Return a handle that ran out of memory while it read a large message that it had taken; another one is behind."""
    queue.put(bytes(LARGE_BYTES))
    queue.put(b"behind")
    with pytest.MonkeyPatch.context() as scarce:
        scarce.setattr(_sealed, "opened", fail)
        with pytest.raises(MemoryError):
            queue.get()
    return queue


def test_a_large_message_without_memory_for_it_is_got_next(kept: Handle) -> None:
    """C36: its file is kept."""
    assert kept.qsize() >= 2
    assert (kept.peek(), kept.get(), kept.get()) == (bytes(LARGE_BYTES), bytes(LARGE_BYTES), b"behind")


def test_a_peek_without_memory_takes_nothing(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: the message is still in the queue."""
    queue.put(bytes(LARGE_BYTES))
    with monkeypatch.context() as scarce:
        scarce.setattr(_sealed, "opened", fail)
        with pytest.raises(MemoryError):
            queue.peek()
    assert queue.get() == bytes(LARGE_BYTES)


def test_a_clear_drops_the_message_kept_for_lack_of_memory(kept: Handle) -> None:
    """C37: it counts as dropped."""
    assert (kept.clear(), kept.empty()) == (2, True)


def test_an_immediate_shutdown_drops_the_message_kept_for_lack_of_memory(kept: Handle) -> None:
    """C37: no message can be taken afterwards."""
    kept.shutdown(immediate=True)
    with pytest.raises(ipcq.QueueShutDown):
        kept.get()


def test_closing_warns_of_the_message_kept_for_lack_of_memory(kept: Handle) -> None:
    """C36: no message that was taken is lost without a warning."""
    with pytest.warns(UserWarning, match="1 messages"):
        kept.close()


def test_a_small_message_without_memory_for_it_is_got_next(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: its packet is kept."""

    class Uncut(bytes):
        def __getitem__(self, place: Any) -> Any:
            return fail() if place == slice(1, None) else super().__getitem__(place)

    channel = queue._channel
    monkeypatch.setattr(channel, "_receive_all", lambda *_: (Uncut(b"\0small"), (), 0, None))
    with pytest.raises(MemoryError):
        queue.get()
    channel._unopened[0] = (b"\0small", [])
    assert queue.get() == b"small"
