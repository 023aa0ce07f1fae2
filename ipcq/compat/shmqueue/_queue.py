"""`ShmQueue` over a handle of ipcq's.

Items travel as every handle of ipcq's writes and reads them, bare MessagePack, so that `put` and `get` are those of the
handle and one look at what was asked for. What is done here is what a handle never does: to pickle what MessagePack
cannot hold, to run serializers that belong to this handle alone, and to count as shmqueue does.

It counts `SIZE_HEADER` bytes for each item beside the item itself, and holds back what would exceed `buffer_size`. Here
each backend has its own needs beside the item, so the queue gets more room than was asked for, in which all fits that
would fit there.
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
#: Bytes that are counted for each item beside the item itself.
SIZE_HEADER: Final = 8
_LARGEST_NUMBER: Final = 2**32 - 1
#: Bytes of room for what backends need beside the items. No backend of ours needs more than 15 bytes beyond the 8 that
#: are counted, so of items of any size 139,810 fit.
_MOST_EXTRA: Final = 2 << 20

_warned = False


class SerializationMethods:
    """Numbers for the argument `serialization_method`."""

    MSGPACK: Final = 0
    DEFAULT: Final = MSGPACK
    PICKLE: Final = 1
    FIRST_PUBLIC_NUMBER: Final = FIRST_FREE_NUMBER


class DebugRefLogAction(Enum):
    """What an entry of the log of references says."""

    CREATE = "create"
    SHUTDOWN = "shutdown"


class ShmRefDataSnapshot(NamedTuple):
    """A queue at one instant; None where the backend cannot know it across processes."""

    ref_count: int | None
    """Handles that are open."""
    put_pos: int | None
    """Bytes ever put, modulo the buffer's size."""
    get_pos: int | None
    """Bytes ever taken, modulo the buffer's size."""
    buffer_size: int
    """The buffer's size, in bytes."""
    qsize: int
    """Items in the queue."""
    same_lap: int | None
    """1 where as many whole buffers have been put as have been taken, else 0."""


class ShmQueue:
    """A queue of objects between any processes that know its name; it goes with the last of its handles.

    Args:
        queue_name: What all who meet have in common; `ipcq.open` finds the same queue as ``"/" + queue_name``.
        logger: Is told what happens to the queue, not to its items.
        buffer_size: Bytes of items, of which each counts `SIZE_HEADER` bytes more; rounded up to whole pages. It counts
            for who creates the queue.
        debug_ref_to_file_log: Append an entry to ``shmqueue/references.jsonl`` in this user's private directory when
            this handle is made and when it is shut down.
        allow_pickle: Pickle what MessagePack cannot hold, and read pickles, which run code that their writer chose.
            Where it is left at True, a warning says so once in each process.
        track_resources: Means nothing here: no resource tracker knows of the queue.

    Raises:
        ShmQueueTypeError: The name is no str, or the size no int.
        ShmQueueValueError: The size is not positive, or the name breaks the rule of `ipcq.open`.
        ValueError: The logger is none.
        MessageQueueError: As `ipcq.open`.
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
            raise ValueError(f"logger is a logging.Logger or None, not {logger!r}")
        if not isinstance(queue_name, str):
            raise ShmQueueTypeError(f"queue_name is a str, not {shown(queue_name)}")
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
            self._tell(logging.WARNING, "buffer_size %s is rounded up to %s, which is whole pages", buffer_size, size)
        self._tell(logging.DEBUG, "opened %r", self)
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
            data: What the method can serialize. What MessagePack cannot, is pickled where this handle may.
            block: Wait for room; False tries once.
            timeout: Seconds to wait at the most; None waits for ever.
            serialization_method: One of `SerializationMethods`, or from 1001 on a number for `custom_serialize`.

        Raises:
            ShmQueueFull: No room came free in time.
            ShmQueueValueError: The item can never fit, or the method is no number.
            ShmQueueSerializationError: The method cannot serialize the item, and it may not be pickled.
            ShmQueueTypeError: The function of `custom_serialize` returned something else than bytes.
            ShmQueueNotInitializedError: This handle was shut down.
            NotImplementedError: Nobody implements the method.
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
                self._tell(logging.INFO, "method %s failed, so it is pickled: %s", serialization_method, error)
                self.put(data, block, timeout, _PICKLE)
            else:
                self._raise(error)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item.

        Args:
            block: Wait for an item; False tries once.
            timeout: Seconds to wait at the most; None waits for ever.

        Raises:
            ShmQueueEmpty: No item came in time.
            ShmQueueDeserializationError: The message was taken but is no item for this handle; its bytes are in the
                error.
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
        """Let a function of the method's number and the item return the bytes, for methods from 1001 on."""
        self._serialize = callable_function

    def custom_deserialize(self, callable_function: Deserialize) -> None:
        """Let a function of the method's number and a list of pieces return the item, for methods from 1001 on."""
        self._deserialize = callable_function

    def clear(self) -> None:
        """Drop the items that are in the queue."""
        self._ask(Queue.clear)

    def _put_by(self, method: int, data: Any, block: bool, timeout: float | None) -> None:
        if not isinstance(method, int) or method > _LARGEST_NUMBER:
            raise ShmQueueValueError(f"serialization_method is an int of up to {_LARGEST_NUMBER}, not {method!r}")
        deadline = deadline_of(block, timeout)
        if method >= FIRST_FREE_NUMBER:
            if self._serialize is None:
                raise Unsupported(f"nobody serializes by method {method}: set a function with custom_serialize")
            payload = self._serialize(method, data)
            if not isinstance(payload, bytes | bytearray | memoryview):
                raise ShmQueueTypeError(f"the function of custom_serialize returns bytes, not {payload!r}")
            message = _frame.mark(method) + payload
        elif method == _PICKLE:
            message = self._pickled(data)
        else:
            raise Unsupported(f"no serialization method {method}: there are 0, 1 and your own from {FIRST_FREE_NUMBER}")
        put_encoded(self._queue, message, 0, deadline)

    def _pickled(self, data: Any) -> bytes:
        if not self._allow_pickle:
            raise ShmQueueSerializationError("this handle was opened with allow_pickle=False")
        try:
            # Without ipcq's mark, so that it counts as many bytes as it has; whoever may read pickles reads it.
            return pickle.dumps(data)
        except Exception as error:
            reraise_from_handler(error)
            raise ShmQueueSerializationError(f"this {data.__class__.__name__} cannot be pickled: {error}") from error

    def _may_pickle_instead(self, method: int) -> bool:
        return self._allow_pickle and method != _PICKLE

    def _deserialized(self, data: bytes) -> Any:
        method, payload = _frame.split(data)
        if self._deserialize is None:
            raise ShmQueueDeserializationError(
                f"nobody deserializes what method {method} serialized: set a function with custom_deserialize",
                data=data,
                queue=self._queue.name,
                backend=self._queue.backend,
            )
        return self._deserialize(method, [memoryview(payload)])

    # Looking

    def qsize(self) -> int:
        """Count the items in the queue."""
        return self._ask(Queue.qsize)

    def empty(self) -> bool:
        """Tell whether there is no item."""
        return self._ask(Queue.empty)

    def full(self) -> bool:
        """Tell whether the items take the whole buffer; a put may still find room (`buffer_occupancy`)."""
        stats = self._stats()
        if stats.bytes is None:
            return self._ask(Queue.full)
        return _occupied(stats) >= self.max_buffer_size()

    def buffer_occupancy(self) -> int:
        """Count the bytes of the items in the queue, and `SIZE_HEADER` for each.

        Raises:
            NotImplementedError: The backend cannot know it.
        """
        stats = self._stats()
        if stats.bytes is None:
            raise self._unknown("the bytes that are in it")
        return _occupied(stats)

    def max_buffer_size(self) -> int:
        """Return the size that the queue was created with, in whole pages, in bytes."""
        if self._queue.closed:
            raise ShmQueueNotInitializedError(queue=self._queue.name, backend=self._queue.backend)
        return self._queue.max_message_size + SIZE_HEADER

    @property
    def refs(self) -> int:
        """How many handles are open in all processes; those of killed ones are not."""
        handles = self._stats().handles
        if handles is None:
            raise self._unknown("how many handles it has")
        return handles

    @property
    def identifier(self) -> str:
        """The name, as it was given."""
        return self._identifier

    def snapshot(self) -> ShmRefDataSnapshot:
        """Return the figures of one instant together."""
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

    # Ends

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} is not passed on: make another ShmQueue of the name in the other process")

    def shutdown(self, use_gc: bool = True) -> None:
        """Close this handle; the last one frees the queue. Doing it twice is doing it once.

        Args:
            use_gc: Means nothing here: no garbage stands in the way.
        """
        try:
            if self._finalizer.alive:
                self._tell(logging.DEBUG, "closing %r", self)
                self._log_references(DebugRefLogAction.SHUTDOWN)
        finally:
            self._finalizer()

    def set_console_handlers(self, register_atexit: bool = False) -> None:
        """Close this handle on SIGINT, SIGTERM and SIGHUP, and then let the signal do what it did before.

        Without it, a killed process leaves a file that counts as not there and goes when the name is looked for.

        Args:
            register_atexit: Means nothing here: the handle is closed when the interpreter ends in any case.

        Raises:
            ValueError: This is not the main thread.
        """
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            if number is not None:
                before = signal.getsignal(number)
                signal.signal(number, partial(_close_and_pass_on, self._finalizer, before))

    def add_ref_manually(self, pid: int) -> None:
        """Do nothing: a handle that was inherited by a forked process is counted as soon as it is there."""
        self._tell(logging.DEBUG, "the handle of process %s is counted by itself", pid)

    def reduce_ref_counter(self) -> NoReturn:
        """Refuse, because the handles that are open are counted, and nobody has to keep the number right.

        Raises:
            NotImplementedError: Always.
        """
        raise Unsupported("the handles that are open are counted by themselves: call shutdown() to close this one")

    # What holds it together

    def _ask(self, question: Callable[[Queue[Any]], R]) -> R:
        try:
            return question(self._queue)
        except MessageQueueError as error:
            self._raise(error)

    def _stats(self) -> Stats:
        return self._ask(Queue.stats)

    def _unknown(self, what: str) -> Unsupported:
        return Unsupported(
            f"this backend cannot know {what}: create the queue on another (IPCQ_BACKEND)",
            queue=self._queue.name,
            backend=self._queue.backend,
        )

    def _raise(self, error: MessageQueueError) -> NoReturn:
        """Raise the exception that shmqueue has for it."""
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
            del error  # else its trace would hold it, and keep this handle open

    def _tell(self, level: int, text: str, *arguments: object) -> None:
        if self._logger is not None:
            self._logger.log(level, text, *arguments)

    def _log_references(self, action: DebugRefLogAction) -> None:
        if not self._logs_references:
            return
        try:
            handles = self._stats().handles
        except QueueGone:  # somebody unlinked it
            handles = None
        entry = {
            "action": action.value,
            "queue": self._identifier,
            "time": datetime.now(UTC).isoformat(),
            "pid": os.getpid(),
            "ref_count": handles,
        }
        # One write that appends, so that the lines of several processes do not mix.
        with open(f"{make_private_directory('shmqueue')}/references.jsonl", "ab", buffering=0) as file:
            file.write(json.dumps(entry).encode() + b"\n")


_MSGPACK: Final = SerializationMethods.MSGPACK
_PICKLE: Final = SerializationMethods.PICKLE
_MARK: Final = bytes((_frame.MARK,))


def _whole_pages(buffer_size: int) -> int:
    if not isinstance(buffer_size, int):
        raise ShmQueueTypeError(f"buffer_size is an int, not {buffer_size!r}")
    if buffer_size <= 0:
        raise ShmQueueValueError(f"buffer_size is a positive number of bytes, not {buffer_size}")
    return -(-buffer_size // SYSTEM_PAGESIZE) * SYSTEM_PAGESIZE


def _opened(name: str, size: int, *, allow_pickle: bool) -> Queue[Any]:
    """Attach to the queue as it is, or create it."""
    name = name if name.startswith("/") else f"/{name}"
    room = size + min(2 * size, _MOST_EXTRA)
    while True:
        try:
            try:
                return open_queue(name, create=False, allow_pickle=allow_pickle)
            except QueueNotFound:
                return open_queue(
                    name,
                    exclusive=True,
                    buffer_size=room,
                    max_message_size=size - SIZE_HEADER,
                    lifetime="last-close",
                    allow_pickle=allow_pickle,
                )
        except QueueExists:
            continue  # somebody else created it meanwhile
        except InvalidName as error:
            raise ShmQueueValueError(error.detail) from error


def _warn_of_pickle() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "ShmQueue reads pickles, which run code that whoever writes to the queue chose: say allow_pickle=False "
            "where MessagePack holds all items",
            stacklevel=3,
        )


def _plain(error: InvalidArgument, block: object, timeout: float | None) -> tuple[bool, float | None]:
    """Make of arguments that shmqueue takes those that a handle takes.

    Raises:
        InvalidArgument: They are so already.
    """
    truth = bool(block)
    seconds = 0 if timeout is not None and timeout < 0 else timeout
    if truth is block and seconds is timeout:
        raise error
    return truth, seconds


def _is_own(data: bytes) -> bool:
    """Tell whether a message was written by a function of a user's."""
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
