"""The internal interface of a handle, for the rest of ipcq: `aio`, `compat` and the command line.

These are functions, because a method of `Handle` without an underscore would be a public method of `ipcq.Queue`: `dir`
and completion would offer it, and programs would depend on it. Plain aliases of methods add no call.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from ipcq._abilities.in_place import writable
from ipcq._abilities.leases import Leases
from ipcq._abilities.view import View
from ipcq._handle.handle import Handle, check_signal
from ipcq._handle.queue import Queue, check_max_items
from ipcq._handle.waits import Waits
from ipcq._process.deadline import PASSED
from ipcq._process.operation import ANSWER_SECONDS, Asking, asking_deadline
from ipcq.backend import Backend, Channel, Received
from ipcq.errors import MessageQueueError, QueueEmpty

__all__ = (
    "LeaseLoop",
    "asking",
    "check_max_items",
    "check_signal",
    "copy_into",
    "count_wait",
    "decoded",
    "descriptor",
    "encode",
    "encode_all",
    "expect_no_close",
    "finish_body",
    "keep",
    "may_block",
    "next_lease",
    "on_channel",
    "out_of_time",
    "put_encoded",
    "skip_message",
    "slice_of",
    "stop_lingering",
    "take",
    "take_latest",
    "take_more",
    "taker",
    "viewed",
    "waits",
    "wake",
    "writable",
)

T = TypeVar("T")

#: ``on_channel(handle, operation)`` calls `operation` with the channel, which stays open during the call.
on_channel = Handle._with_channel

#: ``out_of_time(handle, kind)`` makes the `QueueFull` or `QueueEmpty` of a call that timed out.
out_of_time = Handle._timed_out


#: The iterator over leases, and the steps of an iteration over it: ``finish_body(loop)`` acknowledges the last message,
#: ``next_lease(loop)`` leases the next one without a wait, and ``skip_message(loop, error)`` logs one that was skipped.
LeaseLoop = Leases
finish_body = Leases._finish
next_lease = Leases._attempt
skip_message = Leases._skip


def descriptor(handle: Handle) -> Backend:
    """Return the descriptor of the queue's backend, which is bound to the queue's place and has its credentials."""
    return handle._origin.backend


def put_encoded(handle: Handle, data: bytes, priority: int, deadline: float, delay: float = 0) -> None:
    """Put bytes, and wait for space until the deadline."""
    handle._put_encoded(data, priority, deadline, delay)  # not an alias: handles to queues on servers override it


def taker(handle: Handle) -> Callable[[], Received | None]:
    """Return a function that takes the next message as bytes, or returns None if the queue is empty."""
    return handle._try_take


def waits(handle: Handle) -> Waits:
    """Return how this handle waits; call its methods inside `on_channel`, for at most `slice_of` seconds."""
    return handle._waits


def slice_of(handle: Handle) -> float:
    """Return the longest time of one wait, in seconds."""
    return handle._channel.slice


def may_block(handle: Handle) -> bool:
    """Return whether calls may take long even if they do not wait."""
    return handle._channel.may_block


def asking(handle: Handle, deadline: float) -> Asking:
    """Return what runs calls that do not wait; a server must answer them by the deadline."""
    return Asking(asking_deadline(ANSWER_SECONDS) if deadline == PASSED else deadline, handle._check_open)


def wake(handle: Handle) -> None:
    """End the waits on the channel soon."""
    handle._channel.wake()


def take(queue: Queue[T], max_items: int | None) -> list[Received]:
    """Take up to `max_items` messages that are in the queue now, or all, as bytes.

    Raises:
        QueueEmpty: The queue is empty.
    """

    def take_now(channel: Channel) -> list[Received]:
        first = queue._try_get()
        if first is None:
            raise queue._timed_out(QueueEmpty)
        messages = [first]
        if max_items != 1:
            queue._add_rest(messages, channel, max_items)
        return messages

    return on_channel(queue, take_now)


def take_latest(queue: Queue[T]) -> list[Received]:
    """Take the newest message as bytes, and drop the older ones; raises as `Queue.get_latest` without a wait."""
    queue._require_ability("drop_oldest", "drop its older messages")
    return on_channel(queue, lambda _: [queue._wait_latest(PASSED)])


def take_more(queue: Queue[T], messages: list[Received], max_items: int | None) -> list[Received]:
    """Take what may follow the messages of a lingering call now; empty if the call has to end.

    Raises:
        QueueEmpty: The queue is empty.
    """

    def take_now(channel: Channel) -> list[Received]:
        left = queue._left(channel, messages, max_items)
        rest = channel.try_get_many(left) if left else []
        if left and not rest:
            raise queue._timed_out(QueueEmpty)
        return rest

    return on_channel(queue, take_now)


#: ``stop_lingering(queue, error, messages, rest)`` keeps what a lingering call took, and raises the error; see there.
stop_lingering = Queue._stop_lingering


def decoded(queue: Queue[T], messages: list[Received]) -> list[T]:
    """Decode the messages that `take` returned, also if the handle was closed meanwhile; raises as `Queue.get_many`."""
    try:
        return queue._extended([], messages)
    except MessageQueueError as error:
        raise error.at(queue.name, queue.backend)


def keep(handle: Handle, messages: list[Received]) -> None:
    """Let the next gets return the messages that `take` returned."""
    handle._keep_batch(messages)


def count_wait(handle: Handle, served: bool) -> None:
    """Count a call that had to wait, and whether it succeeded; raise neither our errors nor `MemoryError`."""
    try:
        on_channel(handle, lambda channel: channel.count_wait(served))
    except (MessageQueueError, MemoryError):
        pass  # closed, shut down or out of memory; the caller must still return the message that it took


def encode(queue: Queue[T], item: T, priority: int) -> bytes:
    """Encode an item for a later put, with the same checks as `Queue.put`."""

    def encoded(_: Channel) -> bytes:
        queue._check_priority(priority)
        data = queue._encode(item)
        if len(data) > queue._max_message_size:
            queue._refuse_size(data)
        return data

    return on_channel(queue, encoded)


def encode_all(queue: Queue[T], items: Iterable[T], priority: int) -> list[bytes]:
    """Encode a batch for a later put, with the same checks as `Queue.put_many`."""
    return on_channel(queue, lambda _: queue._encode_all(items, priority))


def expect_no_close(handle: Handle) -> None:
    """Suppress the `ResourceWarning` if this handle is dropped without a close."""
    handle._inherited = True


def viewed(queue: Queue[T], received: Received) -> View[T]:
    """Make the view of a message that `take` returned, on a queue without leases."""
    return on_channel(queue, lambda _: queue._viewed(received))


def copy_into(queue: Queue[T], received: Received, target: memoryview) -> int:
    """Copy the bytes of a message that `take` returned; raises as `Queue.get_into`."""
    return on_channel(queue, lambda _: queue._copy_into(received, target))
