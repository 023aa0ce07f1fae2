"""`ShmQueue`, implemented with a handle of ipcq.

Items are encoded as by every handle of ipcq, as bare MessagePack, so `put` and `get` call those of the handle after one
check. This module adds what a handle lacks: pickling of objects that MessagePack cannot hold, serializers of this
handle only, and the sizes of shmqueue.

shmqueue counts `SIZE_HEADER` bytes for each item in addition to the item, up to `buffer_size`. A backend may need more
for each item, so the queue is created with extra space, and everything fits that would fit in shmqueue.
"""

import json
import logging
import mmap
import os
import pickle
import signal
import warnings
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from types import FrameType
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from ipcq._handle.interface import put_encoded
from ipcq._handle.queue import Queue
from ipcq._opening.open import open as open_queue
from ipcq._process.deadline import deadline_of
from ipcq._process.private_directory import make_private_directory
from ipcq._process.signals import reraise_from_handler
from ipcq._redaction import shown
from ipcq.backend import Stats
from ipcq.compat.shmqueue.exceptions import (
    ShmQueueDeserializationError,
    ShmQueueNotInitializedError,
    ShmQueueSerializationError,
    ShmQueueTypeError,
    ShmQueueValueError,
)
from ipcq.errors import (
    InvalidArgument,
    InvalidName,
    MessageQueueError,
    MessageTooLarge,
    QueueClosed,
    QueueExists,
    QueueGone,
    QueueNotFound,
    Unsupported,
)
from ipcq.serializers import FIRST_FREE_NUMBER, _frame

R = TypeVar("R")
Serialize = Callable[[int, Any], bytes]
Deserialize = Callable[[int, list[memoryview]], Any]

SYSTEM_PAGESIZE: Final = mmap.PAGESIZE
#: Bytes counted for each item in addition to the item itself.
SIZE_HEADER: Final = 8
_LARGEST_NUMBER: Final = 2**32 - 1
#: The largest extra space for a backend's headers. No bundled backend needs more than 15 bytes per item beyond these 8,
#: so 139,810 items of any size fit.
_MOST_EXTRA_BYTES: Final = 2 << 20

_warned = False


class SerializationMethods:
    """Values of the argument `serialization_method`."""

    MSGPACK: Final = 0
    DEFAULT: Final = MSGPACK
    PICKLE: Final = 1
    FIRST_PUBLIC_NUMBER: Final = FIRST_FREE_NUMBER


class DebugRefLogAction(Enum):
    """The actions in the log of references."""

    CREATE = "create"
    SHUTDOWN = "shutdown"


class ShmRefDataSnapshot(NamedTuple):
    """A queue's state at one instant; None for what the backend cannot count across processes."""

    ref_count: int | None
    """Open handles."""
    put_pos: int | None
    """Bytes ever put, modulo the buffer's size."""
    get_pos: int | None
    """Bytes ever taken, modulo the buffer's size."""
    buffer_size: int
    """The buffer's size, in bytes."""
    qsize: int
    """Items in the queue."""
    same_lap: int | None
    """1 if the positions are in the same lap: as many whole buffers have been put as taken; else 0."""


class ShmQueue:
    """A queue of objects between processes that know its name; it is removed when its last handle closes.

    Args:
        queue_name: The queue's name in all processes; for `ipcq.open` it is ``"/" + queue_name``.
        logger: Receives records about the queue, but not about its items.
        buffer_size: Capacity in bytes, of which each item takes its size and `SIZE_HEADER`, rounded up to whole pages.
            Ignored if the queue exists.
        debug_ref_to_file_log: Append an entry to ``shmqueue/references.jsonl`` in this user's private directory when
            this handle is created and when it is shut down.
        allow_pickle: Pickle objects that MessagePack cannot hold, and load pickles, which run code that their producer
            chose. If it is True, a warning says so once per process.
        track_resources: Ignored, because no resource tracker handles the queue.

    Raises:
        ShmQueueTypeError: The name is not a str, or the size not an int.
        ShmQueueValueError: The size is not positive, or the name is invalid for `ipcq.open`.
        ValueError: The logger is not a `logging.Logger`.
        MessageQueueError: Any other error of `ipcq.open`.
    """

    def __init__(
        self,
        queue_name: str,
        *,
        logger: logging.Logger | None = None,
        buffer_size: int = SYSTEM_PAGESIZE,
        debug_ref_to_file_log: bool = False,
        allow_pickle: bool = True,
        track_resources: bool = False,
    ) -> None:
        if logger is not None and not isinstance(logger, logging.Logger):
            raise ValueError(f"logger must be a logging.Logger or None, not {logger!r}")
        if not isinstance(queue_name, str):
            raise ShmQueueTypeError(f"queue_name must be a str, not {shown(queue_name)}")
        size = _whole_pages(buffer_size)
        if allow_pickle:
            _warn_of_pickle()
        self._identifier = queue_name
        self._logger = logger
        self._allow_pickle = bool(allow_pickle)
        self._logs_references = debug_ref_to_file_log
        self._serialize: Serialize | None = None
        self._deserialize: Deserialize | None = None
        self._queue = _opened(queue_name, size, allow_pickle=self._allow_pickle)
        self._put = self._queue.put
        self._get = self._queue.get
        # Also when the interpreter ends.
        self._finalizer = weakref.finalize(self, self._queue.close)
        if size != buffer_size:
            self._log(logging.WARNING, "buffer_size %s is rounded up to %s, which is whole pages", buffer_size, size)
        self._log(logging.DEBUG, "opened %r", self)
        self._log_references(DebugRefLogAction.CREATE)

    # Putting and getting

    def put(
        self,
        data: Any,
        block: bool = True,
        timeout: float | None = None,
        serialization_method: int = SerializationMethods.DEFAULT,
    ) -> None:
        """Put an item, and return when it is stored.

        Args:
            data: An object that the method can serialize. Others are pickled, if this handle allows it.
            block: Wait for space; False tries once.
            timeout: Longest wait, in seconds; None waits without a limit.
            serialization_method: One of `SerializationMethods`, or a number from 1001 on for `custom_serialize`.

        Raises:
            ShmQueueFull: The queue was full until the timeout.
            ShmQueueValueError: The item can never fit, or the method is not a valid number.
            ShmQueueSerializationError: The method cannot serialize the item, and this handle may not pickle it.
            ShmQueueTypeError: The function of `custom_serialize` did not return bytes.
            ShmQueueNotInitializedError: This handle was shut down.
            NotImplementedError: The method has no implementation.
        """
        try:
            if serialization_method == _MSGPACK:
                self._put(data, block, timeout)
            else:
                self._put_by(serialization_method, data, block, timeout)
        except MessageQueueError as error:
            if isinstance(error, InvalidArgument):
                self.put(data, *_plain(error, block, timeout), serialization_method)
            elif isinstance(error, ShmQueueSerializationError) and self._may_pickle_instead(serialization_method):
                self._log(logging.INFO, "method %s failed, pickling instead: %s", serialization_method, error)
                self.put(data, block, timeout, _PICKLE)
            else:
                self._raise(error)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item.

        Args:
            block: Wait for an item; False tries once.
            timeout: Longest wait, in seconds; None waits without a limit.

        Raises:
            ShmQueueEmpty: The queue was empty until the timeout.
            ShmQueueDeserializationError: The message was taken, but this handle cannot decode it; the error has its
                bytes.
            ShmQueueNotInitializedError: This handle was shut down.
        """
        try:
            return self._get(block, timeout)
        except ShmQueueDeserializationError as error:
            data = error.data
            if not _is_own(data):
                raise
        except InvalidArgument as error:
            return self.get(*_plain(error, block, timeout))
        except MessageQueueError as error:
            self._raise(error)
        return self._deserialized(data)

    def custom_serialize(self, callable_function: Serialize) -> None:
        """Set the function that serializes with methods from 1001 on: ``callable_function(method, item)``."""
        self._serialize = callable_function

    def custom_deserialize(self, callable_function: Deserialize) -> None:
        """Set the function that deserializes with methods from 1001 on: ``callable_function(method, [bytes])``."""
        self._deserialize = callable_function

    def clear(self) -> None:
        """Remove all items."""
        self._call(Queue.clear)

    def _put_by(self, method: int, data: Any, block: bool, timeout: float | None) -> None:
        if not isinstance(method, int) or method > _LARGEST_NUMBER:
            raise ShmQueueValueError(f"serialization_method must be an int up to {_LARGEST_NUMBER}, not {method!r}")
        deadline = deadline_of(block, timeout)
        if method >= FIRST_FREE_NUMBER:
            if self._serialize is None:
                raise Unsupported(f"no function for serialization method {method}: set one with custom_serialize")
            payload = self._serialize(method, data)
            if not isinstance(payload, bytes | bytearray | memoryview):
                raise ShmQueueTypeError(f"the function of custom_serialize must return bytes, not {payload!r}")
            message = _frame.mark(method) + payload
        elif method == _PICKLE:
            message = self._pickled(data)
        else:
            raise Unsupported(
                f"no serialization method {method}: use 0, 1, or from {FIRST_FREE_NUMBER} on one for custom_serialize"
            )
        put_encoded(self._queue, message, 0, deadline)

    def _pickled(self, data: Any) -> bytes:
        if not self._allow_pickle:
            raise ShmQueueSerializationError("this handle was opened with allow_pickle=False")
        try:
            # Without ipcq's mark, so that the size is that of the pickle; handles that allow pickles read it too.
            return pickle.dumps(data)
        except Exception as error:
            reraise_from_handler(error)
            raise ShmQueueSerializationError(f"this {data.__class__.__name__} cannot be pickled: {error}") from error

    def _may_pickle_instead(self, method: int) -> bool:
        return self._allow_pickle and method != _PICKLE

    def _deserialized(self, data: bytes) -> Any:
        method, start = _frame.split(data)
        if self._deserialize is None:
            raise ShmQueueDeserializationError(
                f"no function for serialization method {method}: set one with custom_deserialize",
                data=data,
                queue=self._queue.name,
                backend=self._queue.backend,
            )
        return self._deserialize(method, [memoryview(data)[start:]])

    # State

    def qsize(self) -> int:
        """Return the number of items in the queue."""
        return self._call(Queue.qsize)

    def empty(self) -> bool:
        """Return whether the queue has no items."""
        return self._call(Queue.empty)

    def full(self) -> bool:
        """Return whether the items take the whole buffer; a put may still find space (`buffer_occupancy`)."""
        stats = self._stats()
        if stats.bytes is None:
            return self._call(Queue.full)
        return _occupied(stats) >= self.max_buffer_size()

    def buffer_occupancy(self) -> int:
        """Return the number of bytes in the queue, including `SIZE_HEADER` for each item.

        Raises:
            NotImplementedError: The backend does not count bytes.
        """
        stats = self._stats()
        if stats.bytes is None:
            raise self._uncounted("bytes")
        return _occupied(stats)

    def max_buffer_size(self) -> int:
        """Return the buffer size with which the queue was created, in bytes, rounded up to whole pages."""
        if self._queue.closed:
            raise ShmQueueNotInitializedError(queue=self._queue.name, backend=self._queue.backend)
        return self._queue.max_message_size + SIZE_HEADER

    @property
    def refs(self) -> int:
        """Number of open handles in all processes, without those of killed processes."""
        handles = self._stats().handles
        if handles is None:
            raise self._uncounted("handles")
        return handles

    @property
    def identifier(self) -> str:
        """The name that was passed to the constructor."""
        return self._identifier

    def snapshot(self) -> ShmRefDataSnapshot:
        """Return the queue's state at one instant."""
        stats, size = self._stats(), self.max_buffer_size()
        put = got = None
        if stats.bytes is not None and stats.bytes_put is not None and stats.puts is not None:
            put = stats.bytes_put + SIZE_HEADER * stats.puts
            got = put - _occupied(stats)
        return ShmRefDataSnapshot(
            ref_count=stats.handles,
            put_pos=None if put is None else put % size,
            get_pos=None if got is None else got % size,
            buffer_size=size,
            qsize=self.qsize() if stats.depth is None else stats.depth,
            same_lap=None if put is None or got is None else int(put // size == got // size),
        )

    @property
    def debug_ref_data(self) -> ShmRefDataSnapshot:
        """The same as `snapshot`."""
        return self.snapshot()

    def __repr__(self) -> str:
        size = self._queue.max_message_size + SIZE_HEADER
        return f"ShmQueue(queue_name={self._identifier}, buffer_size={size})"

    # End of a handle

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} cannot be pickled: create a ShmQueue with the same name in the other process")

    def shutdown(self, use_gc: bool = True) -> None:
        """Close this handle; closing the last one removes the queue. A second call does nothing.

        Args:
            use_gc: Ignored, because nothing has to be garbage-collected first.
        """
        try:
            if self._finalizer.alive:
                self._log(logging.DEBUG, "closing %r", self)
                self._log_references(DebugRefLogAction.SHUTDOWN)
        finally:
            self._finalizer()

    def set_console_handlers(self, register_atexit: bool = False) -> None:
        """Close this handle on SIGINT, SIGTERM and SIGHUP, then run the previous handler of the signal.

        Without it, a killed process may leave a file, which counts as absent and is removed when its name is next used.

        Args:
            register_atexit: Ignored, because the handle is closed at the interpreter's exit in any case.

        Raises:
            ValueError: The calling thread is not the main thread.
        """
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None:
                before = signal.getsignal(number)
                signal.signal(number, partial(_close_and_pass_on, self._finalizer, before))

    def add_ref_manually(self, pid: int) -> None:
        """Do nothing, because a handle that a forked process inherits is counted automatically."""
        self._log(logging.DEBUG, "the handle of process %s is counted automatically", pid)

    def reduce_ref_counter(self) -> NoReturn:
        """Refuse, because open handles are counted automatically.

        Raises:
            NotImplementedError: Always.
        """
        raise Unsupported("open handles are counted automatically: call shutdown() to close this one")

    # Helpers

    def _call(self, method: Callable[[Queue[Any]], R]) -> R:
        try:
            return method(self._queue)
        except MessageQueueError as error:
            self._raise(error)

    def _stats(self) -> Stats:
        return self._call(Queue.stats)

    def _uncounted(self, what: str) -> Unsupported:
        return Unsupported(
            f"this backend does not count the queue's {what}: create the queue on another backend (IPCQ_BACKEND)",
            queue=self._queue.name,
            backend=self._queue.backend,
        )

    def _raise(self, error: MessageQueueError) -> NoReturn:
        """Raise shmqueue's exception for an error of ipcq."""
        queue = self._queue
        if isinstance(error, QueueClosed):
            raise ShmQueueNotInitializedError().at(queue.name, queue.backend) from error
        if isinstance(error, MessageTooLarge) and error.size is not None:
            size = error.size + SIZE_HEADER
            raise ShmQueueValueError(
                f"the item takes {size} bytes, the buffer has {queue.max_message_size + SIZE_HEADER}: create the queue "
                f"with buffer_size={size}"
            ).at(queue.name, queue.backend) from error
        try:
            raise error.at(queue.name, queue.backend)
        finally:
            del error  # else its traceback would refer to it, and the cycle would keep this handle open

    def _log(self, level: int, text: str, *arguments: object) -> None:
        if self._logger is not None:
            self._logger.log(level, text, *arguments)

    def _log_references(self, action: DebugRefLogAction) -> None:
        if not self._logs_references:
            return
        try:
            handles = self._stats().handles
        except QueueGone:  # unlinked meanwhile
            handles = None
        entry = {
            "action": action.value,
            "queue": self._identifier,
            "time": datetime.now(UTC).isoformat(),
            "pid": os.getpid(),
            "ref_count": handles,
        }
        # A single appending write, so that lines of several processes do not mix.
        with open(f"{make_private_directory('shmqueue')}/references.jsonl", "ab", buffering=0) as file:
            file.write(json.dumps(entry).encode() + b"\n")


_MSGPACK: Final = SerializationMethods.MSGPACK
_PICKLE: Final = SerializationMethods.PICKLE
_MARK: Final = bytes((_frame.MARK,))


def _whole_pages(buffer_size: int) -> int:
    if not isinstance(buffer_size, int):
        raise ShmQueueTypeError(f"buffer_size must be an int, not {buffer_size!r}")
    if buffer_size <= 0:
        raise ShmQueueValueError(f"buffer_size must be a positive number of bytes, not {buffer_size}")
    return -(-buffer_size // SYSTEM_PAGESIZE) * SYSTEM_PAGESIZE


def _opened(name: str, size: int, *, allow_pickle: bool) -> Queue[Any]:
    """Attach to the queue, whatever its limits are, or create it."""
    name = name if name.startswith("/") else f"/{name}"
    with_extra = size + min(2 * size, _MOST_EXTRA_BYTES)
    while True:
        try:
            try:
                return open_queue(name, create=False, allow_pickle=allow_pickle)
            except QueueNotFound:
                return open_queue(
                    name,
                    exclusive=True,
                    buffer_size=with_extra,
                    max_message_size=size - SIZE_HEADER,
                    lifetime="last-close",
                    allow_pickle=allow_pickle,
                )
        except QueueExists:
            continue  # another process created it meanwhile
        except InvalidName as error:
            raise ShmQueueValueError(error.detail) from error


def _warn_of_pickle() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "ShmQueue loads pickles, which run code chosen by any producer of the queue: pass allow_pickle=False if "
            "MessagePack can hold all items",
            stacklevel=3,
        )


def _plain(error: InvalidArgument, block: object, timeout: float | None) -> tuple[bool, float | None]:
    """Convert arguments that shmqueue accepts to those that a handle accepts.

    Raises:
        InvalidArgument: There is nothing to convert.
    """
    truth = bool(block)
    seconds = 0 if timeout is not None and timeout < 0 else timeout
    if truth is block and seconds is timeout:
        raise error
    return truth, seconds


def _is_own(data: bytes) -> bool:
    """Return whether a message was serialized by a function of `custom_serialize`."""
    try:
        return data[:1] == _MARK and _frame.split(data)[0] >= FIRST_FREE_NUMBER
    except ShmQueueDeserializationError:
        return False


def _occupied(stats: Stats) -> int:
    return (stats.bytes or 0) + SIZE_HEADER * (stats.depth or 0)


def _close_and_pass_on(close: Callable[[], object], before: Any, number: int, frame: FrameType | None) -> None:
    close()
    if callable(before):
        before(number, frame)
    elif before == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
