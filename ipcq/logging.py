"""Log records through a queue: any number of processes put records, and one process gets and writes them.

`QueueHandler` and `QueueListener` work like those of `logging.handlers`, but with a queue that unrelated processes open
by name. So a configuration needs only text, and no queue object has to be shared.

A record is sent as a MessagePack map of its attributes, with the message merged and the traceback formatted as in the
standard library. It contains no pickle, so a process that can write to the queue can write to the log, and no more.
"""

import logging
import logging.handlers
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any, Final, Self, TypeVar, Unpack

from ipcq._handle.queue import Queue
from ipcq._opening.address import parse
from ipcq._opening.open import open as open_queue
from ipcq._opening.options import Options
from ipcq._process.call_site import called_from, caller
from ipcq._process.deadline import SLICE, seconds_of
from ipcq._process.imports import importing
from ipcq._process.limits import check_daemon_threads, too_many_threads
from ipcq._process.signals import reraise_from_handler
from ipcq._redaction import without_credentials
from ipcq.errors import (
    DecodeError,
    EncodeError,
    InvalidArgument,
    MessageQueueError,
    QueueClosed,
    QueueEmpty,
    QueueGone,
    QueueShutDown,
)
from ipcq.serializers import codec_for

__all__ = ("QueueHandler", "QueueListener", "RecordQueue")

_R = TypeVar("_R")

#: Seconds that opening waits for other processes that are creating or unlinking the name. The first time it is enough
#: for many programs that start together; after a failure it is short, because it blocks the thread that logs.
_FIRST_OPEN_SECONDS: Final = 1.0
_OPEN_SECONDS: Final = 0.1
#: Seconds until the next attempt after a failure.
_RETRY_SECONDS: Final = 1.0

#: The attribute of a received record with the name of its queue.
_ORIGIN: Final = "ipcq_queue"
#: Attributes that have no meaning in another process.
_NOT_SENT: Final = ("args", "exc_info", _ORIGIN)


class _Options(Options, total=False):
    """The keyword arguments beside the queue; a configuration has only keywords, so they include the backend."""

    backend: str


class RecordQueue:
    """A queue of log records, opened at its first use.

    `QueueHandler` and `QueueListener` create it from a name. In a configuration it can be the value of the key
    ``queue`` of a `logging.handlers.QueueHandler`.

    Args:
        queue: A name, a URL, or a handle. A name is opened again if the queue was unlinked, and in a forked process if
            the inherited handle does not work there. A handle is not closed here.
        **options: Options for `ipcq.open`.

    Raises:
        InvalidName: The name is invalid.
        InvalidArgument: `queue` has a wrong type, or is a handle and there are options.
    """

    def __init__(self, queue: "str | Queue[Any]", **options: Unpack[_Options]) -> None:
        if isinstance(queue, Queue):
            if options:
                raise InvalidArgument(f"the handle is already open: leave out {', '.join(options)}")
            self.name = queue.name
        else:
            self.name = parse(queue).name
        self._address = queue
        self._options = options
        # Warnings point at the line that named the queue, because it may be opened at any log call or in our thread.
        self._caller = caller()
        # A dict, because its setdefault decides between threads that open the queue at the same time, without a lock
        # that a fork could leave held.
        self._opened: dict[str, Queue[Any]] = {}
        self._failure = ""
        self._retry_time = 0.0

    def put(self, record: logging.LogRecord, block: bool = True, timeout: float | None = None) -> None:
        """Put a record, and return when it is stored; arguments and exceptions are those of `ipcq.Queue.put`.

        Attributes that MessagePack cannot encode are put as their `repr`.
        """
        item = {key: value for key, value in vars(record).items() if key not in _NOT_SENT}
        try:
            self._use(lambda queue: queue.put(item, block, timeout))
        except EncodeError:
            encodable = {str(key): _encodable(value) for key, value in item.items()}
            self._use(lambda queue: queue.put(encodable, block, timeout))

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Put a record if there is space now."""
        self.put(record, False)

    def get(self, block: bool = True, timeout: float | None = None) -> logging.LogRecord:
        """Take the oldest record; arguments and exceptions are those of `ipcq.Queue.get`.

        Raises:
            DecodeError: The message was taken, but is not a log record.
        """
        return _record(self._use(lambda queue: queue.get(block, timeout)), self.name)

    def qsize(self) -> int:
        """Return the number of records in the queue."""
        return self._use(Queue.qsize)

    def __getstate__(self) -> dict[str, Any]:
        address = self._address
        return {
            **vars(self),
            "_address": without_credentials(address) if isinstance(address, str) else address,
            "_opened": {},
        }

    def close(self) -> None:
        """Close the handle that was opened here; the queue stays, and the next call opens it again."""
        for opened in self._opened.copy().values():
            self._discard(opened)

    def _use(self, operation: "Callable[[Queue[Any]], _R]") -> _R:
        queue = self._handle()
        try:
            return operation(queue)
        except (QueueGone, QueueClosed):
            if queue is self._address:
                raise
            self._discard(queue)
        return operation(self._handle())

    def _handle(self) -> "Queue[Any]":
        if isinstance(self._address, Queue):
            return self._address
        queue = self._opened.get(self.name)
        if queue is not None:
            return queue
        if monotonic() < self._retry_time:
            raise MessageQueueError(f"it could not be opened a moment ago: {self._failure}", queue=self.name)
        open_timeout = _OPEN_SECONDS if self._failure else _FIRST_OPEN_SECONDS
        try:
            options = {"open_timeout": open_timeout, **self._options}
            opened = called_from(self._caller, partial(open_queue, self._address, **options))
        except MessageQueueError as error:
            self._failure, self._retry_time = error.detail or error.wording, monotonic() + _RETRY_SECONDS
            raise
        queue = self._opened.setdefault(self.name, opened)
        if queue is not opened:
            opened.close()
        return queue

    def _discard(self, queue: "Queue[Any]") -> None:
        if self._opened.get(self.name) is queue:
            self._opened.pop(self.name, None)
        queue.close()


class QueueHandler(logging.Handler):
    """Puts records into a queue.

    It never raises and does not block the program: if there is no space within `timeout`, a record is dropped, counted,
    and passed to `handleError`. Opening the queue waits for other processes for at most 1 s, and for 0.1 s after a
    failure. If it fails, or if the queue is shut down, records are dropped too, and it is tried again after a second. A
    record that a `QueueListener` took from the same queue is not put back. A record that is logged while this thread is
    inside the handler is dropped.

    Args:
        queue: A name, a URL, or a handle, as for `RecordQueue`.
        timeout: Seconds to wait for space at most; 0 tries once.
        **options: Options for `ipcq.open`. Some, such as `max_messages`, apply when the queue is created.

    Attributes:
        dropped: The number of records that this handler has dropped.

    Raises:
        InvalidArgument: As for `RecordQueue`, or the timeout is not a number of seconds.
    """

    prepare = logging.handlers.QueueHandler.prepare

    def __init__(
        self, queue: "str | Queue[Any] | RecordQueue", *, timeout: float = 0.0, **options: Unpack[_Options]
    ) -> None:
        # Check the arguments first: after `super().__init__()`, `logging` would close the incomplete handler.
        self.queue = _records(queue, options, {"read": False})
        self._timeout = seconds_of(timeout, "timeout")
        super().__init__()
        self.dropped = 0
        self._in_thread = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record, or drop it."""
        if getattr(record, _ORIGIN, None) == self.queue.name:
            return
        if getattr(self._in_thread, "inside", False):  # otherwise a __repr__ that logs would recurse without end
            self.dropped += 1
            return
        self._in_thread.inside = True
        try:
            self.enqueue(self.prepare(record))  # type: ignore[misc]  # it is declared for a handler that can format, as this one can
        except Exception:
            self.dropped += 1
            self.handleError(record)
        finally:
            self._in_thread.inside = False

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put a prepared record."""
        self.queue.put(record, timeout=self._timeout)

    def close(self) -> None:
        """Close the handle that was opened here; the queue and its records stay."""
        self.queue.close()
        super().close()


class QueueListener(logging.handlers.QueueListener):
    """Takes records from a queue in a thread, and passes them to handlers.

    Errors of reading and of handlers are printed to stderr like those of `logging`, and the thread continues with the
    next record. When the queue is shut down and empty, the thread ends. If the queue was unlinked, a new one is opened.

    Args:
        queue: A name, a URL, or a handle, as for `RecordQueue`.
        *handlers: Handlers, or names of configured handlers of this process. Without any, each record is passed to the
            logger of its name in this process, with its level, filters and handlers.
        respect_handler_level: Skip handlers whose level is above that of the record.
        **options: Options for `ipcq.open`.

    Attributes:
        unreadable: The number of messages that were not log records.

    Raises:
        InvalidArgument: As for `RecordQueue`.
    """

    queue: RecordQueue

    def __init__(
        self,
        queue: "str | Queue[Any] | RecordQueue",
        *handlers: "logging.Handler | str",
        respect_handler_level: bool = False,
        **options: Unpack[_Options],
    ) -> None:
        super().__init__(_records(queue, options, {"write": False}), respect_handler_level=respect_handler_level)
        self.unreadable = 0
        self._given_handlers = handlers
        self._stop_event = threading.Event()

    def start(self) -> None:
        """Start the thread.

        Raises:
            InvalidArgument: A name is not that of a configured handler.
            RuntimeError: The listener is already running.
            LimitExceeded: The system cannot start a thread.
            Unsupported: This interpreter has its own GIL (Python 3.12 and later), so it has no daemon threads.
        """
        if self._thread is not None:
            raise RuntimeError("the listener is already running")
        check_daemon_threads()
        self.handlers = tuple(map(_resolved_handler, self._given_handlers))
        self._stop_event.clear()
        try:
            super().start()
        except RuntimeError as error:
            reraise_from_handler(error)
            self._thread = None  # so that `stop` and `start` work afterwards
            raise too_many_threads() from error

    def stop(self) -> None:
        """Handle the records that are in the queue now, then end the thread. Further calls do nothing."""
        if self._thread is not None:
            super().stop()
            self.queue.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def enqueue_sentinel(self) -> None:
        """Set an event to end the thread, and put no message, which another listener might take."""
        self._stop_event.set()

    def dequeue(self, block: bool) -> logging.LogRecord:
        """Take a record, and wait for it for at most `SLICE` seconds."""
        return self.queue.get(block, SLICE)

    def handle(self, record: logging.LogRecord) -> None:
        """Pass a record to the handlers, or to the logger of its name."""
        if self._given_handlers:
            super().handle(record)
        else:
            logger = _closest_logger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(self.prepare(record))

    def _monitor(self) -> None:
        while not self._stop_event.is_set():
            self._take(block=True)
        try:
            rest = self.queue.qsize()
        except MessageQueueError:
            return  # an earlier call has already reported it, or the queue is gone
        for _ in range(rest):
            self._take(block=False)

    def _take(self, *, block: bool) -> None:
        try:
            self.handle(self.dequeue(block))
        except QueueEmpty:
            pass
        except QueueShutDown:
            self._stop_event.set()
        except DecodeError:
            self.unreadable += 1
            _print_exception("a message that is not a log record")
        except MessageQueueError:
            _print_exception("the queue")
            self._stop_event.wait(_RETRY_SECONDS)
        except Exception:
            _print_exception("a record")


def _records(queue: "str | Queue[Any] | RecordQueue", options: _Options, rights: _Options) -> RecordQueue:
    if not isinstance(queue, Queue | RecordQueue):
        all_options: _Options = {**rights, **options}
        return RecordQueue(queue, **all_options)
    if options:
        raise InvalidArgument(f"the queue already exists: leave out {', '.join(options)}")
    return RecordQueue(queue) if isinstance(queue, Queue) else queue


def _encodable(value: object) -> object:
    """Return the value if MessagePack can encode it, otherwise its `repr`."""
    try:
        _encode(value)
    except EncodeError:
        if isinstance(value, str):
            return value.encode(errors="backslashreplace").decode()
        try:
            return repr(value).encode(errors="backslashreplace").decode()
        except Exception:
            return f"<{type(value).__name__} without a repr>"
    return value


_encode: Final = codec_for("msgpack").encode


def _record(item: object, queue: str) -> logging.LogRecord:
    """Make a record of an item from the queue, using only its data, as attributes."""
    if not isinstance(item, dict) or not isinstance(item.get("levelno"), int) or not isinstance(item.get("msg"), str):
        raise DecodeError("it is not a log record: a map with an int levelno and a str msg", queue=queue)
    facts = {key: value for key, value in item.items() if isinstance(key, str) and not hasattr(logging.LogRecord, key)}
    facts.setdefault("levelname", logging.getLevelName(item["levelno"]))
    if not isinstance(facts.get("name"), str):
        facts["name"] = "root"
    record = logging.makeLogRecord(facts)
    record.args = record.exc_info = None  # the message is merged, and text from the queue here would fail to format
    setattr(record, _ORIGIN, queue)
    return record


def _resolved_handler(handler: "logging.Handler | str") -> logging.Handler:
    if not isinstance(handler, str):
        return handler
    # From 3.12 on there is logging.getHandlerByName, which looks here.
    found: logging.Handler | None = logging._handlers.get(handler)  # type: ignore[attr-defined]
    if found is None:
        raise InvalidArgument(f"no handler {handler!r}: configure it in this process, and add it to a logger")
    return found


def _closest_logger(name: str) -> logging.Logger:
    """Return the closest existing logger, so that names from a queue do not create loggers."""
    known = logging.root.manager.loggerDict
    while name:
        logger = known.get(name)
        if isinstance(logger, logging.Logger):
            return logger
        name = name.rpartition(".")[0]
    return logging.root


def _print_exception(what: str) -> None:
    """Print the current exception to stderr, as `logging.Handler.handleError` does."""
    if logging.raiseExceptions and sys.stderr:
        with importing():  # some versions of Python import here
            trace = traceback.format_exc()
        try:
            sys.stderr.write(f"--- Logging error with {what} ---\n{trace}")
        except OSError:
            pass
