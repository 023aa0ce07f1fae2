"""Log records through a queue: any processes put them in, and one takes them out and writes them.

`QueueHandler` and `QueueListener` are what `logging.handlers` has under these names, over a queue that unrelated
processes open by its name. So plain text in a configuration is enough, and no object has to be passed on.

A record travels as a MessagePack map of its attributes, the message merged and the traceback formatted as the standard
library does it. There is no pickle in it, so whoever can write to the queue can write to the log, and no more.
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
from ipcq._process.limits import too_many_threads
from ipcq._process.signals import reraise_from_handler
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

#: Seconds that opening the queue waits for others who are creating or unlinking its name: at first as long as creating
#: takes where programs start all at once, and after that has failed no longer than logging may hold up.
_FIRST_OPEN_TIMEOUT: Final = 1.0
_OPEN_TIMEOUT: Final = 0.1
#: Seconds after which what failed is tried again.
_AGAIN: Final = 1.0

#: The attribute of a record that was taken out of a queue which says of which one.
_ORIGIN: Final = "ipcq_queue"
#: What says nothing in another process, and what only this one knows.
_NOT_SENT: Final = ("args", "exc_info", _ORIGIN)


class _Options(Options, total=False):
    """What may stand beside the name of a queue of records; a configuration is keywords alone, the backend as well."""

    backend: str


class RecordQueue:
    """A queue of log records, opened when it is first used.

    It is what `QueueHandler` and `QueueListener` make of a name. By itself it is for the key ``queue`` of a
    `logging.handlers.QueueHandler` in a configuration.

    Args:
        queue: A name, a URL, or a handle. A name is opened again where the queue was unlinked, and in a forked process
            where the handle does not work there. A handle stays its owner's to close.
        **options: For `ipcq.open`.

    Raises:
        InvalidName: The name breaks the rule.
        InvalidArgument: It is no name, or a handle is given with options.
    """

    def __init__(self, queue: "str | Queue[Any]", **options: Unpack[_Options]) -> None:
        if isinstance(queue, Queue):
            if options:
                raise InvalidArgument(f"a handle is open already: leave out {', '.join(options)}")
            self.name = queue.name
        else:
            self.name = parse(queue).name
        self._address = queue
        self._options = options
        # A record may be logged anywhere, and a thread of ours may take it, so a warning points at the line that named
        # the queue.
        self._caller = caller()
        # A dict, because threads that open it at the same time agree by setdefault, and no lock is held over a fork.
        self._opened: dict[str, Queue[Any]] = {}
        self._failure = ""
        self._again = 0.0

    def put(self, record: logging.LogRecord, block: bool = True, timeout: float | None = None) -> None:
        """Put a record, and return when it is stored; arguments and exceptions are those of `ipcq.Queue.put`.

        Values of attributes that MessagePack cannot hold are put as their `repr`.
        """
        item = {key: value for key, value in vars(record).items() if key not in _NOT_SENT}
        try:
            self._use(lambda queue: queue.put(item, block, timeout))
        except EncodeError:
            plain = {str(key): _plain(value) for key, value in item.items()}
            self._use(lambda queue: queue.put(plain, block, timeout))

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Put a record if there is space now."""
        self.put(record, False)

    def get(self, block: bool = True, timeout: float | None = None) -> logging.LogRecord:
        """Take the oldest record; arguments and exceptions are those of `ipcq.Queue.get`.

        Raises:
            DecodeError: The message was taken and is no record.
        """
        return _record(self._use(lambda queue: queue.get(block, timeout)), self.name)

    def qsize(self) -> int:
        """Count the records in the queue."""
        return self._use(Queue.qsize)

    def close(self) -> None:
        """Close the handle that was opened here; the queue stays, and what follows opens it again."""
        for opened in self._opened.copy().values():
            self._let_go(opened)

    def _use(self, operation: "Callable[[Queue[Any]], _R]") -> _R:
        queue = self._handle()
        try:
            return operation(queue)
        except (QueueGone, QueueClosed):
            if queue is self._address:
                raise
            self._let_go(queue)
        return operation(self._handle())

    def _handle(self) -> "Queue[Any]":
        if isinstance(self._address, Queue):
            return self._address
        queue = self._opened.get(self.name)
        if queue is not None:
            return queue
        if monotonic() < self._again:
            raise MessageQueueError(f"it could not be opened a moment ago: {self._failure}", queue=self.name)
        patience = _OPEN_TIMEOUT if self._failure else _FIRST_OPEN_TIMEOUT
        try:
            options = {"open_timeout": patience, **self._options}
            opened = called_from(self._caller, partial(open_queue, self._address, **options))
        except MessageQueueError as error:
            self._failure, self._again = error.detail or error.wording, monotonic() + _AGAIN
            raise
        queue = self._opened.setdefault(self.name, opened)
        if queue is not opened:
            opened.close()
        return queue

    def _let_go(self, queue: "Queue[Any]") -> None:
        if self._opened.get(self.name) is queue:
            self._opened.pop(self.name, None)
        queue.close()


class QueueHandler(logging.Handler):
    """Puts records into a queue.

    It never raises, and does not hold up who logs: a record that finds no space within `timeout` is dropped, counted,
    and given to `handleError`. Opening the queue waits for others for 1 s at the most, and 0.1 s after that has failed.
    Where it fails, or the queue is shut down, records are dropped likewise; it is tried again after a second. A record
    that a `QueueListener` took out of the same queue is not put back, and one that is logged while this thread is
    inside the handler is dropped.

    Args:
        queue: A name, a URL, or a handle, as for `RecordQueue`.
        timeout: Seconds to wait for space at the most; 0 tries once.
        **options: For `ipcq.open`, such as `max_messages`, which count for who creates the queue.

    Attributes:
        dropped: How many records this handler dropped.

    Raises:
        InvalidArgument: As for `RecordQueue`, or the timeout is no number of seconds.
    """

    prepare = logging.handlers.QueueHandler.prepare

    def __init__(
        self, queue: "str | Queue[Any] | RecordQueue", *, timeout: float = 0.0, **options: Unpack[_Options]
    ) -> None:
        # First what may be refused: `logging` closes whatever came further.
        self.queue = _records(queue, options, {"read": False})
        self._timeout = seconds_of(timeout, "timeout")
        super().__init__()
        self.dropped = 0
        self._here = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record, or drop it."""
        if getattr(record, _ORIGIN, None) == self.queue.name:
            return
        if getattr(self._here, "inside", False):  # what is logged by an attribute's __repr__, again and again
            self.dropped += 1
            return
        self._here.inside = True
        try:
            self.enqueue(self.prepare(record))  # type: ignore[misc]  # it wants a handler that can format, and this is one
        except Exception:
            self.dropped += 1
            self.handleError(record)
        finally:
            self._here.inside = False

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put a record that was prepared."""
        self.queue.put(record, timeout=self._timeout)

    def close(self) -> None:
        """Close the handle that was opened here; the queue and its records stay."""
        self.queue.close()
        super().close()


class QueueListener(logging.handlers.QueueListener):
    """Takes records out of a queue in a thread, and has them handled.

    What cannot be read, and what a handler raises, is told on stderr as `logging` tells its errors, and the next record
    is taken. Where the queue is shut down and empty the thread ends. Where it was unlinked, a new one is opened.

    Args:
        queue: A name, a URL, or a handle, as for `RecordQueue`.
        *handlers: Handlers, or names of handlers that this process has configured. Without any, each record is for the
            logger of its name in this process, with its level, filters and handlers.
        respect_handler_level: Pass by handlers whose level is above the record's.
        **options: For `ipcq.open`.

    Attributes:
        unreadable: How many messages were no records.

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
        self._wanted = handlers
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begin.

        Raises:
            InvalidArgument: No handler has one of the names.
            RuntimeError: It has begun already.
            LimitExceeded: The system starts no thread.
        """
        if self._thread is not None:
            raise RuntimeError("the listener runs already")
        self.handlers = tuple(map(_handler, self._wanted))
        self._stopping.clear()
        try:
            super().start()
        except RuntimeError as error:
            reraise_from_handler(error)
            self._thread = None  # so that it can be stopped, and started again
            raise too_many_threads() from error

    def stop(self) -> None:
        """End when the records are handled that are in the queue now. Stopping twice is stopping once."""
        if self._thread is not None:
            super().stop()
            self.queue.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def enqueue_sentinel(self) -> None:
        """Ask the thread to end, without a message, which another listener might take."""
        self._stopping.set()

    def dequeue(self, block: bool) -> logging.LogRecord:
        """Take a record, or wait for one for a moment."""
        return self.queue.get(block, SLICE)

    def handle(self, record: logging.LogRecord) -> None:
        """Give a record to the handlers, or to the logger of its name."""
        if self._wanted:
            super().handle(record)
        else:
            logger = _logger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(self.prepare(record))

    def _monitor(self) -> None:
        while not self._stopping.is_set():
            self._take(block=True)
        try:
            rest = self.queue.qsize()
        except MessageQueueError:
            return  # it was told of already, or nobody will know
        for _ in range(rest):
            self._take(block=False)

    def _take(self, *, block: bool) -> None:
        try:
            self.handle(self.dequeue(block))
        except QueueEmpty:
            pass
        except QueueShutDown:
            self._stopping.set()
        except DecodeError:
            self.unreadable += 1
            _complain("a message that is no log record")
        except MessageQueueError:
            _complain("the queue")
            self._stopping.wait(_AGAIN)
        except Exception:
            _complain("a record")


def _records(queue: "str | Queue[Any] | RecordQueue", options: _Options, rights: _Options) -> RecordQueue:
    if not isinstance(queue, Queue | RecordQueue):
        both: _Options = {**rights, **options}
        return RecordQueue(queue, **both)
    if options:
        raise InvalidArgument(f"the queue is made already: leave out {', '.join(options)}")
    return RecordQueue(queue) if isinstance(queue, Queue) else queue


def _plain(value: object) -> object:
    """Return what MessagePack can hold for a value."""
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
    """Make a record of what was taken out of a queue; only data of it is taken over, and only as attributes."""
    if not isinstance(item, dict) or not isinstance(item.get("levelno"), int) or not isinstance(item.get("msg"), str):
        raise DecodeError("it is no log record: a map with levelno, a number, and msg, a text", queue=queue)
    facts = {key: value for key, value in item.items() if isinstance(key, str) and not hasattr(logging.LogRecord, key)}
    facts.setdefault("levelname", logging.getLevelName(item["levelno"]))
    if not isinstance(facts.get("name"), str):
        facts["name"] = "root"
    record = logging.makeLogRecord(facts)
    record.args = record.exc_info = None  # the message is merged; text in their place would end in an error
    setattr(record, _ORIGIN, queue)
    return record


def _handler(wanted: "logging.Handler | str") -> logging.Handler:
    if not isinstance(wanted, str):
        return wanted
    # From 3.12 on there is logging.getHandlerByName, which looks here.
    found: logging.Handler | None = logging._handlers.get(wanted)  # type: ignore[attr-defined]
    if found is None:
        raise InvalidArgument(
            f"no handler {wanted!r} is configured here, or no logger has it: name it in the configuration"
        )
    return found


def _logger(name: str) -> logging.Logger:
    """Return the closest logger that there is, so that names from a queue do not make loggers."""
    known = logging.root.manager.loggerDict
    while name:
        logger = known.get(name)
        if isinstance(logger, logging.Logger):
            return logger
        name = name.rpartition(".")[0]
    return logging.root


def _complain(what: str) -> None:
    """Tell of the exception that is being handled, as `logging.Handler.handleError` does."""
    if logging.raiseExceptions and sys.stderr:
        with importing():  # some versions of Python import here
            trace = traceback.format_exc()
        try:
            sys.stderr.write(f"--- Logging error with {what} ---\n{trace}")
        except OSError:
            pass
