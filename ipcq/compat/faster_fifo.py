"""A drop-in replacement for the queue of faster-fifo: ``from ipcq.compat.faster_fifo import Queue``.

Other processes continue if one is killed at any point, while faster-fifo's mutex stays locked. Timeouts use the
monotonic clock. This module needs the backend `shm`, as faster-fifo needs a compiler.
"""

from collections.abc import Callable, Sequence
from ctypes import c_bool
from multiprocessing import RawValue
from multiprocessing.context import assert_spawning
from time import monotonic
from typing import Any, Final, Generic, NoReturn, TypeVar

from ipcq._handle.interface import on_channel
from ipcq._process.deadline import pause
from ipcq.backend import Request
from ipcq.compat import _pickling
from ipcq.compat._messages import deadline_of
from ipcq.compat._nameless import create
from ipcq.errors import InvalidArgument, MessageTooLarge, QueueFull

__all__ = ("DEFAULT_CIRCULAR_BUFFER_SIZE", "DEFAULT_TIMEOUT", "Queue", "QueueError")

_T = TypeVar("_T")

DEFAULT_TIMEOUT: Final = 10.0
DEFAULT_CIRCULAR_BUFFER_SIZE: Final = 1_000_000
_UNBOUNDED: Final = 10**9

#: Bytes that faster-fifo counts for a message's header, and for the smallest message with its header.
_HEADER_BYTES: Final = 8
_LEAST_MESSAGE_BYTES: Final = _HEADER_BYTES + 1
#: The longest interval at which a put of a batch checks for space.
_SPACE_POLL_SECONDS: Final = 0.002


class QueueError(Exception):
    """The operation is not supported."""


class Queue(Generic[_T]):
    """A queue of objects between the processes that inherit or receive it.

    Args:
        max_size_bytes: Bytes that the queue holds at least, including 8 for each message.
        maxsize: Largest number of messages.
        loads: Decodes `bytes` to an object, in place of pickle.
        dumps: Encodes an object as `bytes`.

    Raises:
        InvalidArgument: One of the sizes is less than 1.
        BackendUnavailable: No backend can create such a queue here.
    """

    def __init__(
        self,
        max_size_bytes: int = DEFAULT_CIRCULAR_BUFFER_SIZE,
        maxsize: int = _UNBOUNDED,
        loads: Callable[[bytes], _T] | None = None,
        dumps: Callable[[_T], bytes] | None = None,
    ) -> None:
        if min(max_size_bytes, maxsize) < 1:
            raise InvalidArgument(f"max_size_bytes and maxsize are 1 or more, not {max_size_bytes!r} and {maxsize!r}")
        self.max_size_bytes = max_size_bytes
        self.maxsize = maxsize
        self.last_error: str | None = None
        if loads is not None:
            self.loads = loads
        if dumps is not None:
            self.dumps = dumps
        self.closed = RawValue(c_bool, False)
        # A message's header in the ring is longer than 8 bytes, so small messages take more space there.
        request = Request(buffer_size=2 * max_size_bytes + 64, max_message_size=max_size_bytes)
        if maxsize < _UNBOUNDED:
            request = Request(buffer_size=4 * max_size_bytes + 64, max_messages=maxsize)
        self._queue = create(request)

    # Static, so that a call goes to the pickler directly; subclasses may define methods instead.
    dumps: Callable[[_T], bytes] = staticmethod(_pickling.dumps)
    loads: Callable[[bytes], _T] = staticmethod(_pickling.loads)

    def put(self, x: _T, block: bool = True, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Put an object.

        Args:
            x: Any object that `dumps` accepts.
            block: Wait for space.
            timeout: Longest wait, in seconds; None waits without a limit.

        Raises:
            queue.Full: The queue was full until the timeout.
            MessageTooLarge: The message can never fit.
            Exception: Any exception of `dumps`; nothing is put.
        """
        data = self.dumps(x)
        try:
            self._queue.put(data, bool(block), _seconds(timeout))
        except MessageTooLarge as error:
            raise self._too_large("message", 1, len(data)) from error

    def put_nowait(self, x: _T) -> None:
        """Put an object if there is space now."""
        self.put(x, False)

    def put_many(self, xs: Sequence[_T], block: bool = True, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Put all of these objects atomically, or none of them.

        Args:
            xs: A list or a tuple.
            block: Wait for space for all of them.
            timeout: Longest wait, in seconds; None waits without a limit.

        Raises:
            queue.Full: There was not enough space until the timeout.
            MessageTooLarge: One of the messages, or all together, can never fit.
            QueueError: `xs` is neither a list nor a tuple.
        """
        if not isinstance(xs, list | tuple):
            self._error(f"put_many() expects a list or tuple, got {type(xs)}")
        batch = [self.dumps(x) for x in xs]
        size = sum(map(len, batch)) + _HEADER_BYTES * len(batch)
        if len(batch) > self.maxsize or size > self.max_size_bytes + _HEADER_BYTES:
            raise self._too_large("batch", len(batch), size)
        deadline = deadline_of(block, timeout)
        since = monotonic()
        while batch and not on_channel(self._queue, lambda channel: channel.try_put_all(batch)):
            if monotonic() >= deadline:
                raise QueueFull().at(self._queue.name, self._queue.backend)
            pause(since, deadline, _SPACE_POLL_SECONDS)

    def put_many_nowait(self, xs: Sequence[_T]) -> None:
        """Put all of these objects if there is space for all of them now."""
        self.put_many(xs, False)

    def get(self, block: bool = True, timeout: float | None = DEFAULT_TIMEOUT) -> _T:
        """Take the next object.

        Args:
            block: Wait for an object.
            timeout: Longest wait, in seconds; None waits without a limit.

        Raises:
            queue.Empty: The queue was empty until the timeout.
            Exception: Any exception of `loads`; the message is lost.
        """
        return self.loads(self._queue.get(bool(block), _seconds(timeout)))

    def get_nowait(self) -> _T:
        """Take the next object if the queue is not empty."""
        return self.get(False)

    def get_many(
        self, block: bool = True, timeout: float | None = DEFAULT_TIMEOUT, max_messages_to_get: int = _UNBOUNDED
    ) -> list[_T]:
        """Take at least one object, and further ones without waiting.

        Args:
            block: Wait for the first object.
            timeout: Longest wait for the first object, in seconds; None waits without a limit.
            max_messages_to_get: Largest number of objects to take.

        Raises:
            queue.Empty: The queue was empty until the timeout.
        """
        return list(map(self.loads, self._queue.get_many(max_messages_to_get, bool(block), _seconds(timeout))))

    def get_many_nowait(self, max_messages_to_get: int = _UNBOUNDED) -> list[_T]:
        """Take all objects that are in the queue now, at least one."""
        return self.get_many(False, max_messages_to_get=max_messages_to_get)

    def qsize(self) -> int:
        """Return the number of objects in the queue."""
        return self._queue.qsize()

    def data_size(self) -> int:
        """Return the number of bytes in the queue, including 8 for each message."""
        figures = self._queue.stats()
        return (figures.bytes or 0) + _HEADER_BYTES * (figures.depth or 0)

    def empty(self) -> bool:
        """Return whether a get would have to wait."""
        return self._queue.empty()

    def full(self) -> bool:
        """Return whether `max_size_bytes` or `maxsize` is reached."""
        return self.data_size() + _LEAST_MESSAGE_BYTES > self.max_size_bytes or self.qsize() >= self.maxsize

    def close(self) -> None:
        """Mark the queue as closed in all processes; as in faster-fifo, puts and gets keep working."""
        self.closed.value = True

    def is_closed(self) -> bool:
        """Return whether any process has closed the queue."""
        return bool(self.closed.value)

    def join_thread(self) -> None:
        """Do nothing, because there is no thread."""

    def cancel_join_thread(self) -> None:
        """Do nothing, because there is no thread."""

    def __getstate__(self) -> dict[str, Any]:
        assert_spawning(self)
        return self.__dict__

    def _too_large(self, what: str, count: int, size: int) -> MessageTooLarge:
        return MessageTooLarge(
            f"the {what} has {count} messages (limit {self.maxsize}) and {size} bytes (limit {self.max_size_bytes}): "
            f"put less at a time, or create the queue with max_size_bytes={max(size, self.max_size_bytes)} and "
            f"maxsize={max(count, self.maxsize)}",
            size=size,
            limit=self.max_size_bytes,
        ).at(self._queue.name, self._queue.backend)

    def _error(self, message: str) -> NoReturn:
        self.last_error = message
        raise QueueError(message)


def _seconds(timeout: float | None) -> float | None:
    return timeout if timeout is None or timeout > 0 else 0.0
