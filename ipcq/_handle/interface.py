"""What other packages of ipcq may do with a handle, beside what its users may: `aio`, the faces, the command line.

These are functions, because each method of `Handle` without an underscore would be one of `ipcq.Queue` as well: `dir`
and completion would offer it, and programs would come to rest on it. Where one only gives a method of `Handle` its name
here, it is that method and no function around it, so that no call is added.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from ipcq._handle.handle import Handle, check_signal
from ipcq._handle.queue import Queue
from ipcq._handle.waits import Waits
from ipcq.backend import Channel, Received
from ipcq.errors import MessageQueueError

__all__ = (
    "check_signal",
    "count_wait",
    "encode",
    "encode_all",
    "expect_no_close",
    "on_channel",
    "out_of_time",
    "put_encoded",
    "taker",
    "waits",
)

T = TypeVar("T")

#: ``on_channel(handle, operation)`` calls `operation` with the channel, which nobody closes meanwhile.
on_channel = Handle._with_channel

#: ``put_encoded(handle, data, priority, deadline)`` puts bytes, and waits for space until the deadline.
put_encoded = Handle._put_encoded

#: ``out_of_time(handle, kind)`` makes the `QueueFull` or `QueueEmpty` of a call that ran out of time.
out_of_time = Handle._out_of_time


def taker(handle: Handle) -> Callable[[], Received | None]:
    """Return a function that takes the next message as it is now, or returns None; for who calls it again and again."""
    return handle._try_take


def waits(handle: Handle) -> Waits:
    """Return how this handle waits; to be called by `on_channel`, for a slice of time at most."""
    return handle._waits


def count_wait(handle: Handle, served: bool) -> None:
    """Note that a call had to wait, and whether it was served in the end. It raises nothing of ours."""
    try:
        on_channel(handle, lambda channel: channel.count_wait(served))
    except (MessageQueueError, MemoryError):
        pass  # closed, ended or out of memory; what was taken has to be returned all the same


def encode(queue: Queue[T], item: T, priority: int) -> bytes:
    """Encode what is to be put later, and refuse what `Queue.put` would."""

    def encoded(_: Channel) -> bytes:
        queue._check_priority(priority)
        data = queue._encode(item)
        if len(data) > queue._largest:
            queue._refuse_size(data)
        return data

    return on_channel(queue, encoded)


def encode_all(queue: Queue[T], items: Iterable[T]) -> list[bytes]:
    """Encode a batch that is to be put later, and refuse what `Queue.put_many` would."""
    return on_channel(queue, lambda _: queue._encode_all(items))


def expect_no_close(handle: Handle) -> None:
    """Let this handle be dropped without a close and without a `ResourceWarning`."""
    handle._inherited = True
