"""What only the kernel's queue has: its errors on messages, its shutdown mark, and foreign programs."""

import errno
import os
import select
import stat
import sys
from itertools import count
from typing import Any

import pytest

import ipcq
from backends import mqueue
from backends.mqueue import Handle, as_root, channels, descriptors, posix_ipc, refuse
from ipcq.backend import Request
from ipcq.errors import MessageQueueError, NoSpace, PermissionDenied, QueueGone, QueueShutDown
from ipcq_mqueue import MqueueBackend

name, queue = mqueue.name, mqueue.queue


# Messages


class Failing:
    """A proxy of posix_ipc's queue whose calls fail."""

    def __init__(self, queue: Any, error: BaseException) -> None:
        self._queue = queue
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def fail(self, *_: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "kind"),
    [(MemoryError(), NoSpace), (OSError(5, "no"), MessageQueueError), (posix_ipc.Error("no"), MessageQueueError)],
)
@pytest.mark.parametrize("verb", ["put", "get", "drain"])
def test_an_error_of_posix_ipc_on_a_message_becomes_ours(
    queue: Handle, verb: str, error: Exception, kind: type[MessageQueueError]
) -> None:
    """C23, clause 18: if there is no memory for a message, the error is NoSpace."""
    channel: Any = queue._channel
    if verb == "drain":
        channel.shutdown(False)
        calls = iter([posix_ipc.BusyError("empty"), error])
        channel._receive = lambda: Failing(None, next(calls)).fail()
    else:
        channel._send = channel._receive = Failing(None, error).fail
    with pytest.raises(kind):
        queue.put(b"x") if verb == "put" else queue.get(block=False)


def test_a_received_message_takes_no_more_memory_than_its_size(queue: Handle) -> None:
    """DESIGN 6: posix_ipc allocates a buffer of the maximum size for each message, so small ones are copied."""
    queue.put(b"x")
    assert sys.getsizeof(queue.get(timeout=5)) == sys.getsizeof(b"x")


def test_a_wait_polls_again_before_it_sleeps(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that arrives at once is taken without the cost of a sleep."""
    asked: list[float] = []

    class Poll:
        def register(self, *_: int) -> None:
            pass

        def poll(self, timeout: float) -> list[object]:
            asked.append(timeout)
            return []

    monkeypatch.setattr(channels.select, "poll", Poll)
    monkeypatch.setattr(channels, "_SPIN_SECONDS", 2)
    monkeypatch.setattr(channels, "monotonic", count().__next__)  # a second passes at each look
    queue._channel.wait_readable(0, 100)
    assert asked == [0, 0, 97_000]


def test_statistics_have_the_figures_of_the_kernel(queue: Handle) -> None:
    """stats: depth and bytes; a figure that the mechanism cannot provide is None."""
    queue.put_many([b"xx", b"yyy"])
    assert queue.stats() == ipcq.Stats(depth=2, bytes=5)


def test_a_handle_that_does_not_read_cannot_know_the_bytes(queue: Handle) -> None:
    """The kernel reports them only to readers."""
    queue.put(b"xx")
    with ipcq.open(queue.name, "mqueue", read=False) as writer:
        assert writer.stats() == ipcq.Stats(depth=1)


# Shutdown


def test_the_mark_of_a_shutdown_is_not_in_the_mode(queue: Handle) -> None:
    """DESIGN 6: the sticky bit is masked."""
    queue.shutdown()
    with ipcq.open(queue.name, "mqueue") as other:
        assert other.mode == 0o600


def test_the_mark_of_a_shutdown_is_the_sticky_bit(queue: Handle) -> None:
    """DESIGN 6: other handles see it by fstat."""
    queue.shutdown()
    assert stat.S_IMODE(os.fstat(queue.fileno()).st_mode) == 0o1600


def test_a_put_that_races_with_the_shutdown_is_drained(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: a getter that finds the queue empty and shut down waits once for late messages."""
    with ipcq.open(queue.name, "mqueue", serializer="raw") as other:
        queue.shutdown()
        late = posix_ipc.MessageQueue(queue.name)
        slept: list[float] = []

        def put_meanwhile(seconds: float) -> None:
            slept.append(seconds)
            late.send(b"late")

        monkeypatch.setattr(channels, "sleep", put_meanwhile)
        try:
            assert other.get(timeout=5) == b"late"
        finally:
            late.close()


def test_a_put_that_races_with_an_immediate_shutdown_is_dropped(queue: Handle) -> None:
    """C37: a message that a producer checks before and sends after the shutdown cannot be taken."""
    with ipcq.open(queue.name, "mqueue", serializer="raw") as other:
        queue.put(b"dropped")
        queue.shutdown(immediate=True)
        late = posix_ipc.MessageQueue(queue.name)
        late.send(b"late")
        late.close()
        for handle in (queue, other):
            with pytest.raises(ipcq.QueueShutDown):
                handle.get(timeout=5)
        assert (other.qsize(), other.stats().bytes) == (0, 0)


def test_a_getter_that_waits_for_late_messages_sees_an_immediate_shutdown(
    queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C37: an immediate shutdown may follow one that lets consumers drain."""
    with ipcq.open(queue.name, "mqueue", serializer="raw") as other:
        queue.shutdown()

        def drop_meanwhile(seconds: float) -> None:
            monkeypatch.undo()
            queue.shutdown(immediate=True)
            late = posix_ipc.MessageQueue(queue.name)
            late.send(b"late")
            late.close()

        monkeypatch.setattr(channels, "sleep", drop_meanwhile)
        with pytest.raises(ipcq.QueueShutDown):
            other.get(timeout=5)


def test_an_error_of_the_system_while_dropping_is_raised(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C37: the call does not claim that everything was dropped."""
    monkeypatch.setattr(queue._channel, "_receive", refuse)
    with pytest.raises(ipcq.MessageQueueError, match="broken"):
        queue.shutdown(immediate=True)


def test_a_getter_waits_for_late_messages_once(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C14: a message that arrives later than that is lost."""
    queue.shutdown()
    slept: list[float] = []
    monkeypatch.setattr(channels, "sleep", slept.append)
    for _ in range(3):
        with pytest.raises(QueueShutDown):
            queue.get(block=False)
    assert len(slept) == 1


def test_a_shutdown_by_another_user_is_denied(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """DESIGN 6: a process of another user gets PermissionDenied."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(channels.os, "fchmod", refuse)
    with pytest.raises(PermissionDenied, match=f"only the queue's owner \\(user {os.geteuid()}\\) or root"):
        queue.shutdown()


# Waiting


def test_the_descriptor_is_the_kernels(queue: Handle) -> None:
    """A message queue descriptor is a file descriptor on Linux."""
    queue.put(b"x")
    assert select.select([queue.fileno()], [], [], 0)[0]


# Foreign ends


def test_a_foreign_program_gets_the_bytes_alone(queue: Handle) -> None:
    """DESIGN 6: `raw` puts exactly the user's bytes on the wire."""
    queue.put(b"\xc1\x00bytes", priority=7)
    foreign = posix_ipc.MessageQueue(queue.name)
    try:
        assert foreign.receive(timeout=5) == (b"\xc1\x00bytes", 7)
    finally:
        foreign.close()


def test_a_foreign_programs_bytes_arrive_alone(queue: Handle) -> None:
    """DESIGN 6: the same in the other direction."""
    foreign = posix_ipc.MessageQueue(queue.name)
    foreign.send(b"\x00\xc1", priority=9)
    foreign.close()
    message = queue.get_message(timeout=5)
    assert (message.item, message.priority) == (b"\x00\xc1", 9)


def test_a_foreign_programs_queue_is_attached_to(name: str) -> None:
    """Its limits are those that the foreign program gave."""
    foreign = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, mode=0o640, max_messages=2, max_message_size=32)
    foreign.close()
    with ipcq.open(name) as queue:
        assert (queue.backend, queue.max_messages, queue.max_message_size, queue.mode) == ("mqueue", 2, 32, 0o640)


def test_a_foreign_program_that_unlinks_ends_the_handles(queue: Handle) -> None:
    """C14: after an unlink (by ipcq, rm or RemoveIPC) every operation raises QueueGone."""
    posix_ipc.unlink_message_queue(queue.name)
    with pytest.raises(QueueGone):
        queue.get(timeout=5)


@as_root
def test_a_queue_of_another_user_is_refused(queue: Handle) -> None:
    """C27: an object owned by neither this user nor root is refused."""
    os.fchown(queue.fileno(), 12345, -1)
    with pytest.raises(PermissionDenied, match=r"its owner is user 12345.*other_users=True"):
        ipcq.open(queue.name, "mqueue")


@as_root
def test_a_refused_queue_of_another_user_leaves_no_descriptor(queue: Handle) -> None:
    """C17: a refusal closes what it opened."""
    os.fchown(queue.fileno(), 12345, -1)
    before = descriptors()
    with pytest.raises(PermissionDenied):
        ipcq.open(queue.name, "mqueue")
    assert descriptors() == before


@as_root
def test_a_queue_of_another_user_can_be_trusted(queue: Handle) -> None:
    """DESIGN 4: other_users=True."""
    os.fchown(queue.fileno(), 12345, -1)
    with ipcq.open(queue.name, "mqueue", other_users=True) as other:
        other.put(b"x")
    assert queue.qsize() == 1


# Refusals


@pytest.mark.parametrize("verb", ["qsize", "shutdown", "unlink", "attach"])
def test_an_fstat_that_the_system_refuses_is_our_error(
    verb: str, queue: Handle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5: the error has the number, no descriptor is left open, and the queue still works."""
    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patch, pytest.raises(MessageQueueError) as caught:
        patch.setattr(os, "fstat", refuse)
        if verb == "attach":
            MqueueBackend().attach(name, Request())
        else:
            getattr(queue, verb)()
    assert (caught.value.errno, os.listdir("/proc/self/fd")) == (errno.EIO, before)
    queue.put(b"item")


def test_a_shutdown_that_the_system_refuses_is_our_error(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: also where the reason is not a missing permission."""
    with monkeypatch.context() as patch, pytest.raises(MessageQueueError) as caught:
        patch.setattr(os, "fchmod", refuse)
        queue.shutdown()
    assert caught.value.errno == errno.EIO
    queue.put(b"item")


def test_a_state_that_the_system_refuses_is_our_error(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: also in calls that move no message."""
    with monkeypatch.context() as patch, pytest.raises(MessageQueueError) as caught:
        patch.setattr(os, "fstat", refuse)
        queue._channel.linked()
    assert caught.value.errno == errno.EIO


def test_a_message_that_cannot_be_copied_is_returned_as_it_came() -> None:
    """C36: the message was taken; only its copy would have been smaller."""

    class Uncopied:
        def __bytes__(self) -> bytes:
            raise MemoryError

    message = Uncopied(), 5
    assert channels._copied(message) is message


def test_a_message_that_cannot_be_copied_is_got_as_it_came(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: also by a get, which has its own code for the copy."""

    class Uncopied:
        def __bytes__(self) -> bytes:
            raise MemoryError

    message = Uncopied(), 5
    monkeypatch.setattr(queue._channel, "_receive", lambda: message)
    assert queue._channel.try_get() is message
