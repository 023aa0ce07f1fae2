"""The queue of faster-fifo, over ipcq: ``from ipcq.compat.faster_fifo import Queue`` and go on.

Any number of processes may be killed anywhere without the others noticing, which its mutex does not survive, and
timeouts are monotonic. It needs the backend `shm`, as faster-fifo needs a compiler.
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
_ANY_NUMBER: Final = 10**9

#: Bytes that it counts for a message beside its own, and those of the smallest one with them.
_HEAD: Final = 8
_SMALLEST: Final = _HEAD + 1
#: Seconds at the most between two looks whether a batch finds space.
_SPACE: Final = 0.002


class QueueError(Exception):
    """It was asked for what it cannot do."""


class Queue(Generic[_T]):
    """A queue of objects that lies between the processes that inherit it or are handed it.

    Args:
        max_size_bytes: Bytes that it holds at least, 8 for each message included.
        maxsize: How many messages it holds at the most.
        loads: Turns `bytes` into an object, in place of pickle.
        dumps: Turns an object into `bytes`.

    Raises:
        InvalidArgument: One of the sizes is less than 1.
        BackendUnavailable: No backend can make it here.
    """

    def __init__(
        self,
        max_size_bytes: int = DEFAULT_CIRCULAR_BUFFER_SIZE,
        maxsize: int = _ANY_NUMBER,
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
        # A message's own head in the ring is longer than the 8 bytes here, so that small messages take more there.
        request = Request(buffer_size=2 * max_size_bytes + 64, max_message_size=max_size_bytes)
        if maxsize < _ANY_NUMBER:
            request = Request(buffer_size=4 * max_size_bytes + 64, max_messages=maxsize)
        self._queue = create(request)

    # Static, so that what pickles is called and nothing around it; a subclass may have methods in their place.
    dumps: Callable[[_T], bytes] = staticmethod(_pickling.dumps)
    loads: Callable[[bytes], _T] = staticmethod(_pickling.loads)

    def put(self, x: _T, block: bool = True, timeout: float | None = DEFAULT_TIMEOUT) -> None:
        """Put an object.

        Args:
            x: What `dumps` takes.
            block: Wait for space.
            timeout: Seconds to wait at the most; None waits for ever.

        Raises:
            queue.Full: There was no space all the time.
            MessageTooLarge: It can never fit.
            Exception: Whatever `dumps` raises; nothing is put then.
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
        """Put all of these objects in one step, or none.

        Args:
            xs: A list or a tuple.
            block: Wait for space for all of them.
            timeout: Seconds to wait at the most; None waits for ever.

        Raises:
            queue.Full: There was not space enough all the time.
            MessageTooLarge: They can never fit, one of them or all.
            QueueError: `xs` is something else.
        """
        if not isinstance(xs, list | tuple):
            self._error(f"put_many() expects a list or tuple, got {type(xs)}")
        batch = [self.dumps(x) for x in xs]
        size = sum(map(len, batch)) + _HEAD * len(batch)
        if len(batch) > self.maxsize or size > self.max_size_bytes + _HEAD:
            raise self._too_large("batch", len(batch), size)
        deadline = deadline_of(block, timeout)
        since = monotonic()
        while batch and not on_channel(self._queue, lambda channel: channel.try_put_all(batch)):
            if monotonic() >= deadline:
                raise QueueFull().at(self._queue.name, self._queue.backend)
            pause(since, deadline, _SPACE)

    def put_many_nowait(self, xs: Sequence[_T]) -> None:
        """Put all of these objects if there is space for all of them now."""
        self.put_many(xs, False)

    def get(self, block: bool = True, timeout: float | None = DEFAULT_TIMEOUT) -> _T:
        """Take the next object.

        Args:
            block: Wait for one.
            timeout: Seconds to wait at the most; None waits for ever.

        Raises:
            queue.Empty: None came in time.
            Exception: Whatever `loads` raises; the message is gone then.
        """
        return self.loads(self._queue.get(bool(block), _seconds(timeout)))

    def get_nowait(self) -> _T:
        """Take the next object if there is one now."""
        return self.get(False)

    def get_many(
        self, block: bool = True, timeout: float | None = DEFAULT_TIMEOUT, max_messages_to_get: int = _ANY_NUMBER
    ) -> list[_T]:
        """Take at least one object and what else is there.

        Args:
            block: Wait for the first one.
            timeout: Seconds to wait for it at the most; None waits for ever.
            max_messages_to_get: How many at the most.

        Raises:
            queue.Empty: None came in time.
        """
        return list(map(self.loads, self._queue.get_many(max_messages_to_get, bool(block), _seconds(timeout))))

    def get_many_nowait(self, max_messages_to_get: int = _ANY_NUMBER) -> list[_T]:
        """Take what is there now, at least one object."""
        return self.get_many(False, max_messages_to_get=max_messages_to_get)

    def qsize(self) -> int:
        """Count the objects in the queue."""
        return self._queue.qsize()

    def data_size(self) -> int:
        """Count the bytes in the queue, 8 for each message included."""
        figures = self._queue.stats()
        return (figures.bytes or 0) + _HEAD * (figures.depth or 0)

    def empty(self) -> bool:
        """Tell whether a get would have to wait."""
        return self._queue.empty()

    def full(self) -> bool:
        """Tell whether `max_size_bytes` or `maxsize` is reached."""
        return self.data_size() + _SMALLEST > self.max_size_bytes or self.qsize() >= self.maxsize

    def close(self) -> None:
        """Tell all who ask `is_closed`; puts and gets go on working, as there."""
        self.closed.value = True

    def is_closed(self) -> bool:
        """Tell whether anybody has closed the queue."""
        return bool(self.closed.value)

    def join_thread(self) -> None:
        """Do nothing: there is no thread."""

    def cancel_join_thread(self) -> None:
        """Do nothing: there is no thread."""

    def __getstate__(self) -> dict[str, Any]:
        assert_spawning(self)
        return self.__dict__

    def _too_large(self, what: str, count: int, size: int) -> MessageTooLarge:
        return MessageTooLarge(
            f"the {what} takes {count} of {self.maxsize} messages and {size} of {self.max_size_bytes} bytes: put less "
            f"at a time, or make the queue with max_size_bytes={max(size, self.max_size_bytes)} and "
            f"maxsize={max(count, self.maxsize)}",
            size=size,
            limit=self.max_size_bytes,
        ).at(self._queue.name, self._queue.backend)

    def _error(self, message: str) -> NoReturn:
        self.last_error = message
        raise QueueError(message)


def _seconds(timeout: float | None) -> float | None:
    return timeout if timeout is None or timeout > 0 else 0.0
