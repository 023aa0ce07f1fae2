"""Log records through a queue: what is sent, what is dropped, what blocks, and configuration by text alone."""

import datetime as dt
import io
import logging
import logging.config
import logging.handlers
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import ipcq
from core import logs
from ipcq import logging as face
from ipcq.logging import QueueHandler, QueueListener, RecordQueue
from ipcq.testing.processes import fresh_name, until

pytestmark = pytest.mark.needs("shm")

HANG = 20.0


class Kept(logging.Handler):
    """A handler that keeps its records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def name() -> Iterator[str]:
    """Return a queue name, and unlink the queue after the test."""
    name = fresh_name()
    yield name
    for backend in ("shm", "memory"):
        try:
            ipcq.unlink(name, backend)
        except ipcq.QueueNotFound:
            pass


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Return a logger for this test, and remove its handlers afterwards."""
    logger = logging.getLogger("of.a.test")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    for handler in logger.handlers[:]:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Return the root logger, and undo changes by a configuration afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield root
    for handler in root.handlers[:]:
        if handler not in before:
            root.removeHandler(handler)
            handler.close()
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def handler(name: str, logger: logging.Logger) -> QueueHandler:
    """Return a queue handler that the logger has."""
    handler = QueueHandler(name, backend="shm")
    logger.addHandler(handler)
    return handler


@pytest.fixture
def records(name: str) -> Iterator[RecordQueue]:
    """Return the receiving end."""
    records = RecordQueue(name, backend="shm")
    yield records
    records.close()


@pytest.fixture
def kept() -> Kept:
    """Return a handler that keeps its records."""
    return Kept()


class Told:
    """The text written to stderr since the test began."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def errors(capsys: pytest.CaptureFixture[str]) -> Told:
    """Return the text written to stderr."""
    return Told(capsys)


# What is sent


def test_a_record_arrives_as_it_was_logged(handler: QueueHandler, logger: logging.Logger, records: RecordQueue) -> None:
    """Name, level, message and extra attributes are kept."""
    logger.error("%s of %d", "one", 2, extra={"user": {"id": 7}})
    record = records.get(timeout=HANG)
    assert (record.name, record.levelno, record.levelname, record.getMessage(), vars(record)["user"]) == (
        "of.a.test",
        logging.ERROR,
        "ERROR",
        "one of 2",
        {"id": 7},
    )


def test_a_record_shows_where_it_was_logged(
    handler: QueueHandler, logger: logging.Logger, records: RecordQueue
) -> None:
    """Process, thread and file are those of the producer."""
    logger.info("here")
    record = records.get(timeout=HANG)
    assert (record.process, record.threadName, record.filename) == (os.getpid(), "MainThread", "test_logging.py")


def test_a_traceback_arrives_as_text(handler: QueueHandler, logger: logging.Logger, records: RecordQueue) -> None:
    """It is part of the message, as with the standard library's handler."""
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logger.exception("failed")
    record = records.get(timeout=HANG)
    assert record.getMessage().startswith("failed\nTraceback") and record.exc_info is None


def test_the_original_record_is_not_changed(
    handler: QueueHandler, logger: logging.Logger, records: RecordQueue, kept: Kept
) -> None:
    """Other handlers of the logger still see its arguments."""
    logger.addHandler(kept)
    logger.info("%s", "argument")
    assert kept.records[0].args == ("argument",)


class Silent:
    def __repr__(self) -> str:
        raise ValueError("no repr")


@pytest.mark.parametrize(
    ("value", "received"),
    [
        (object, "<class 'object'>"),
        ({1, 2}, "{1, 2}"),
        (2**70, str(2**70)),
        ("\ud800", "\\ud800"),
        ([Silent], repr([Silent])),
        (Silent(), "<Silent without a repr>"),
        (dt.date(2026, 1, 2), "datetime.date(2026, 1, 2)"),
        ((1, 2), [1, 2]),
    ],
    ids=["class", "set", "large number", "surrogate", "list", "without a repr", "date", "tuple"],
)
def test_a_value_that_cannot_be_encoded_arrives_as_text(
    handler: QueueHandler, logger: logging.Logger, records: RecordQueue, value: object, received: object
) -> None:
    """The other attributes arrive unchanged."""
    logger.info("text", extra={"value": value, "fine": 1.5})
    record = vars(records.get(timeout=HANG))
    assert (record["value"], record["fine"], record["msg"]) == (received, 1.5, "text")


def test_records_are_not_pickled(handler: QueueHandler, logger: logging.Logger, name: str) -> None:
    """C26: a handle that does not allow pickles reads them."""
    logger.info("text", extra={"value": {1, 2}})
    with ipcq.open(name, create=False) as queue:
        assert queue.get()["value"] == "{1, 2}"


def test_a_handler_drops_records_below_its_level(
    handler: QueueHandler, logger: logging.Logger, records: RecordQueue
) -> None:
    """The same holds for every handler."""
    handler.setLevel("WARNING")
    logger.info("not this")
    logger.warning("this")
    assert (records.get(timeout=HANG).msg, records.qsize()) == ("this", 0)


def test_a_formatter_formats_the_message(handler: QueueHandler, logger: logging.Logger, records: RecordQueue) -> None:
    """The standard library's handler does the same."""
    handler.setFormatter(logging.Formatter("<%(message)s>"))
    logger.info("text")
    assert records.get(timeout=HANG).getMessage() == "<text>"


# What is dropped, and what blocks


def test_nothing_is_opened_before_the_first_record(handler: QueueHandler, name: str) -> None:
    """A configuration costs nothing, and can be loaded before a fork."""
    assert not ipcq.exists(name)


def test_a_full_queue_does_not_block_the_program(name: str, logger: logging.Logger, errors: Told) -> None:
    """Records that do not fit are dropped, counted, and reported like other errors of logging."""
    handler = QueueHandler(name, backend="shm", max_messages=2)
    logger.addHandler(handler)
    for number in range(5):
        logger.info("number %d", number)
    assert (handler.dropped, errors.getvalue().count("--- Logging error ---")) == (3, 3)


def test_a_timeout_waits_for_space(name: str, logger: logging.Logger, records: RecordQueue) -> None:
    """The handler drops nothing if space becomes free in time."""
    handler = QueueHandler(name, backend="shm", max_messages=1, timeout=HANG)
    logger.addHandler(handler)
    logger.info("one")
    taker = threading.Timer(0.2, lambda: records.get(timeout=HANG))
    taker.start()
    logger.info("two")
    taker.join()
    assert (handler.dropped, records.get(timeout=HANG).msg) == (0, "two")


def test_a_record_that_can_never_fit_is_dropped(name: str, logger: logging.Logger, errors: Told) -> None:
    """The reason is reported."""
    handler = QueueHandler(name, backend="shm", max_messages=2, max_message_size=1000)
    logger.addHandler(handler)
    logger.info("x" * 1000)
    assert handler.dropped == 1 and "MessageTooLarge" in errors.getvalue()


def test_opening_a_queue_is_retried_after_a_pause(
    name: str, logger: logging.Logger, errors: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not tried for each record."""
    handler = QueueHandler(name, backend="memory", exclusive=True)
    logger.addHandler(handler)
    with ipcq.open(name, "memory"):
        logger.info("one")
        logger.info("two")
        ipcq.unlink(name, "memory")
    told = errors.getvalue().split("--- Logging error ---")
    assert (handler.dropped, ["a moment ago" in each for each in told]) == (2, [False, False, True])
    monkeypatch.setattr(handler.queue, "_retry_time", 0.0)
    logger.info("three")
    assert (handler.dropped, handler.queue.qsize()) == (2, 1)


def test_after_a_shutdown_records_are_dropped(
    handler: QueueHandler, logger: logging.Logger, records: RecordQueue, name: str, errors: Told
) -> None:
    """Messages that are in the queue can still be taken."""
    logger.info("before")
    with ipcq.open(name, create=False) as queue:
        queue.shutdown()
    logger.info("after")
    assert (handler.dropped, records.get(timeout=HANG).msg) == (1, "before")


def test_a_queue_that_was_unlinked_is_opened_again(handler: QueueHandler, logger: logging.Logger, name: str) -> None:
    """The process that writes the log may start over at any time."""
    logger.info("lost")
    ipcq.unlink(name, "shm")
    until(lambda: logger.info("found") is None and ipcq.exists(name))
    assert handler.dropped == 0


def test_closing_a_handler_leaves_the_callers_handle_open(name: str, logger: logging.Logger) -> None:
    """The handle belongs to the code that opened it."""
    with ipcq.open(name, "memory") as queue:
        handler = QueueHandler(queue)
        logger.addHandler(handler)
        logger.info("text")
        handler.close()
        assert queue.get()["msg"] == "text"


def test_a_handle_that_was_closed_is_not_replaced(name: str, logger: logging.Logger, errors: Told) -> None:
    """Its owner closed it on purpose."""
    queue = ipcq.open(name, "memory")
    handler = QueueHandler(queue)
    logger.addHandler(handler)
    queue.close()
    logger.info("text")
    assert handler.dropped == 1 and "QueueClosed" in errors.getvalue()


def test_a_closed_handler_opens_again(handler: QueueHandler, logger: logging.Logger, records: RecordQueue) -> None:
    """Records that are logged while a program exits are not lost."""
    logger.info("one")
    handler.close()
    logger.info("two")
    assert [records.get(timeout=HANG).msg for _ in range(2)] == ["one", "two"]


def test_opening_waits_less_after_it_has_failed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that start at the same time drop nothing, and a lasting failure does not block again and again."""
    waited = []

    def refuse(*_: Any, open_timeout: float) -> Any:
        waited.append(open_timeout)
        raise ipcq.TimedOutError

    monkeypatch.setattr(face, "open_queue", refuse)
    monkeypatch.setattr(face, "_RETRY_SECONDS", 0.0)
    records = RecordQueue(name)
    for _ in range(3):
        with pytest.raises(ipcq.TimedOutError):
            records.qsize()
    assert waited == [1.0, 0.1, 0.1]


def test_the_user_can_set_how_long_opening_waits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option is that of `ipcq.open`."""
    waited = []
    real = face.open_queue

    def note(*given: Any, open_timeout: float, **options: Any) -> Any:
        waited.append(open_timeout)
        return real(*given, **options)

    monkeypatch.setattr(face, "open_queue", note)
    records = RecordQueue(name, backend="memory", open_timeout=7)
    records.qsize()
    records.close()
    assert waited == [7]


def test_threads_that_open_at_the_same_time_share_one_handle(
    name: str, records: RecordQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The superfluous handle is closed."""
    real = face.open_queue

    def slow(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(face, "open_queue", real)
        assert records.qsize() == 0  # another thread opens it meanwhile
        return real(*arguments, **options)

    monkeypatch.setattr(face, "open_queue", slow)
    assert records.qsize() == 0
    with ipcq.open(name, create=False) as queue:
        assert queue.stats().handles == 2


def test_threads_that_find_the_queue_gone_at_the_same_time_share_one_handle(name: str, records: RecordQueue) -> None:
    """The second thread uses the handle that the first has opened."""
    gone: list[ipcq.Queue[Any]] = []

    def operation(queue: "ipcq.Queue[Any]") -> "ipcq.Queue[Any]":
        if not gone:
            gone.append(queue)
            records.close()
            records.qsize()
            raise ipcq.QueueGone
        return queue

    assert records._use(operation) is records._handle()


def test_a_record_may_be_put_without_a_handler(name: str, records: RecordQueue) -> None:
    """The standard library's handler puts records in this way."""
    records.put_nowait(logging.makeLogRecord({"levelno": 10, "msg": "text"}))
    assert records.get(block=False).msg == "text"


class Talkative:
    """Logs in its `__repr__`."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def __repr__(self) -> str:
        self._logger.info("asked for my repr", extra={"value": self})
        return "talkative"


def test_logging_inside_the_handler_does_not_loop(
    handler: QueueHandler, logger: logging.Logger, records: RecordQueue
) -> None:
    """The inner record is dropped and counted."""
    logger.info("outer", extra={"value": Talkative(logger)})
    record = records.get(timeout=HANG)
    assert (record.msg, vars(record)["value"], handler.dropped, records.qsize()) == ("outer", "talkative", 1, 0)


def test_an_error_of_formatting_does_not_reach_the_program(
    handler: QueueHandler, logger: logging.Logger, errors: Told
) -> None:
    """The same holds for every handler."""
    handler.handle(logger.makeRecord("name", logging.INFO, "file", 1, "%d", ("no number",), None))
    assert handler.dropped == 1 and "TypeError" in errors.getvalue()


@pytest.mark.parametrize("given", ["logs", "", 7, None])
def test_an_invalid_name_is_refused_at_once(given: Any) -> None:
    """The constructor refuses it, not the first record."""
    with pytest.raises(ipcq.InvalidArgument):
        QueueHandler(given)


@pytest.mark.parametrize("kind", [QueueHandler, QueueListener, RecordQueue])
def test_a_handle_takes_no_options(name: str, kind: Any) -> None:
    """The queue is already open."""
    with ipcq.open(name, "memory") as queue, pytest.raises(ipcq.InvalidArgument, match="leave out max_messages"):
        kind(queue, max_messages=3)


def test_a_queue_of_records_takes_no_options(name: str) -> None:
    """It has options itself."""
    with pytest.raises(ipcq.InvalidArgument, match="leave out max_messages"):
        QueueHandler(RecordQueue(name), max_messages=3)


@pytest.mark.parametrize("timeout", [-1, "1", None])
def test_a_timeout_is_a_number_of_seconds(name: str, timeout: Any) -> None:
    """None would block the program indefinitely."""
    with pytest.raises(ipcq.InvalidArgument, match="timeout"):
        QueueHandler(name, timeout=timeout)


# Listening


def test_a_listener_passes_records_to_its_handlers(
    handler: QueueHandler, logger: logging.Logger, name: str, kept: Kept
) -> None:
    """It passes all records that were logged before it is stopped."""
    with QueueListener(name, kept, backend="shm"):
        for number in range(100):
            logger.info("number %d", number)
    assert kept.texts() == [f"number {number}" for number in range(100)]


def test_a_listener_respects_levels_on_request(
    handler: QueueHandler, logger: logging.Logger, name: str, kept: Kept
) -> None:
    """The option is that of the standard library's listener."""
    kept.setLevel(logging.ERROR)
    logger.info("not this")
    logger.error("this")
    with QueueListener(name, kept, respect_handler_level=True):
        pass
    assert kept.texts() == ["this"]


def test_without_handlers_a_record_goes_to_the_logger_of_its_name(
    handler: QueueHandler, logger: logging.Logger, name: str, kept: Kept
) -> None:
    """The level of that logger counts, and no logger is created."""
    logger.addHandler(kept)
    with ipcq.open(name, "shm") as queue:
        for level in (logging.INFO, logging.ERROR):
            queue.put({"name": "of.a.test.nobody", "levelno": level, "msg": logging.getLevelName(level)})
        logger.setLevel(logging.ERROR)
        with QueueListener(queue):
            pass
    assert (kept.texts(), "of.a.test.nobody" in logging.root.manager.loggerDict) == (["ERROR"], False)


def test_the_closest_logger_may_be_the_root(name: str, root: logging.Logger, kept: Kept) -> None:
    """A placeholder in the hierarchy is not a logger."""
    root.addHandler(kept)
    with ipcq.open(name, "memory") as queue, QueueListener(queue):
        queue.put({"name": "of.a", "levelno": logging.ERROR, "msg": "text"})
    assert kept.texts() == ["text"]


def test_a_record_from_the_queue_is_not_put_back(
    handler: QueueHandler, logger: logging.Logger, name: str, kept: Kept
) -> None:
    """If the process that writes the log has the same handler, records do not circulate."""
    logger.addHandler(kept)
    logger.info("once")
    with QueueListener(name):
        until(lambda: len(kept.records) == 2)
    assert (handler.queue.qsize(), handler.dropped) == (0, 0)


def test_a_handler_is_found_by_its_name(name: str, root: logging.Logger, kept: Kept) -> None:
    """It is the name in the configuration."""
    kept.name = "kept"
    with ipcq.open(name, "memory") as queue:
        queue.put({"levelno": logging.INFO, "msg": "text"})
        with QueueListener(queue, "kept"):
            pass
    assert (kept.texts(), kept.records[0].name, kept.records[0].levelname) == (["text"], "root", "INFO")


def test_a_name_that_no_handler_has_is_refused(name: str) -> None:
    """`start` refuses it: the configuration may be loaded after the listener is created."""
    with pytest.raises(ipcq.InvalidArgument, match="'nobody'"):
        QueueListener(name, "nobody").start()


NO_RECORDS = [
    None,
    "text",
    {},
    {"levelno": "10", "msg": "text"},
    {"levelno": 10},
    {"levelno": 10, "msg": b"text"},
]


@pytest.mark.parametrize("item", NO_RECORDS, ids=repr)
def test_an_item_that_is_not_a_record_is_counted(name: str, kept: Kept, errors: Told, item: object) -> None:
    """C6: the next record is handled."""
    with ipcq.open(name, "memory") as queue:
        queue.put(item)
        queue.put({"levelno": 10, "msg": "next"})
        with QueueListener(queue, kept) as listener:
            pass
    assert (listener.unreadable, kept.texts()) == (1, ["next"])


def test_a_hostile_record_is_only_data(name: str, kept: Kept) -> None:
    """C26: it can neither replace a method nor set an exception."""
    hostile = {"levelno": 10, "msg": "%s", "getMessage": "x", "args": ["y"], "exc_info": "z", "name": 7, 3: 4}
    with ipcq.open(name, "memory") as queue:
        queue.put(hostile)
        with QueueListener(queue, kept):
            pass
    record = kept.records[0]
    assert (record.getMessage(), record.exc_info, record.name) == ("%s", None, "root")


class Failing(logging.Handler):
    """A handler with a bug."""

    def handle(self, record: logging.LogRecord) -> bool:
        raise LookupError("mistake")


def test_an_exception_in_a_handler_does_not_end_the_listener(name: str, kept: Kept, errors: Told) -> None:
    """It is reported, and the next record is taken."""
    with ipcq.open(name, "memory") as queue:
        queue.put({"levelno": 10, "msg": "one"})
        queue.put({"levelno": 10, "msg": "two"})
        with QueueListener(queue, kept, Failing()):
            pass
    assert kept.texts() == ["one", "two"] and errors.getvalue().count("LookupError: mistake") == 2


@pytest.mark.parametrize("silence", ["raiseExceptions", "stderr", "broken"])
def test_errors_are_not_reported_if_logging_would_not_report_them(
    name: str, errors: Told, monkeypatch: pytest.MonkeyPatch, silence: str
) -> None:
    """Reports may be switched off, or stderr may be missing or broken."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    if silence == "raiseExceptions":
        monkeypatch.setattr(logging, "raiseExceptions", False)
    else:
        monkeypatch.setattr(sys, "stderr", None if silence == "stderr" else Broken())
    with ipcq.open(name, "memory") as queue:
        queue.put("no record")
        with QueueListener(queue) as listener:
            pass
    assert (listener.unreadable, errors.getvalue()) == (1, "")


def test_a_shutdown_ends_the_listener(name: str, kept: Kept) -> None:
    """It takes the remaining records first."""
    with ipcq.open(name, "memory") as queue:
        queue.put({"levelno": 10, "msg": "last"})
        listener = QueueListener(queue, kept)
        listener.start()
        thread = listener._thread
        assert thread is not None
        queue.shutdown()
        thread.join(HANG)
        assert (thread.is_alive(), kept.texts()) == (False, ["last"])
        listener.stop()


def test_a_listener_retries_a_queue_that_fails(
    name: str, kept: Kept, errors: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits before each retry and reports each failure."""
    monkeypatch.setattr(face, "_RETRY_SECONDS", 0.01)
    with ipcq.open(name, "memory"):
        listener = QueueListener(name, kept, backend="memory", exclusive=True)
        listener.start()
        until(lambda: "QueueExists" in errors.getvalue())
        ipcq.unlink(name, "memory")
    until(lambda: ipcq.exists(name, "memory"))
    with ipcq.open(name, "memory") as queue:
        queue.put({"levelno": 10, "msg": "text"})
        until(lambda: kept.texts() == ["text"])
    listener.stop()


def test_a_listener_whose_queue_cannot_be_opened_stops(name: str, errors: Told) -> None:
    """There is no record to handle."""
    with ipcq.open(name, "memory"):
        listener = QueueListener(name, backend="memory", exclusive=True)
        listener.start()
        until(lambda: "QueueExists" in errors.getvalue())
        listener.stop()
    assert listener._thread is None


def test_a_listener_starts_once(name: str) -> None:
    """Two threads would compete for the records."""
    with QueueListener(name, backend="memory") as listener, pytest.raises(RuntimeError, match="already running"):
        listener.start()


def test_a_listener_may_be_stopped_twice(name: str) -> None:
    """It may also be stopped before it is started."""
    listener = QueueListener(name, backend="memory")
    listener.stop()
    listener.start()
    listener.stop()
    listener.stop()
    assert listener._thread is None


def test_two_listeners_share_the_records(name: str) -> None:
    """Stopping one takes nothing from the other."""
    first, second = Kept(), Kept()
    with ipcq.open(name, "memory") as queue, QueueListener(queue, first):
        with QueueListener(queue, second):
            pass
        for number in range(10):
            queue.put({"levelno": 10, "msg": str(number)})
    assert (first.texts(), second.texts()) == ([str(number) for number in range(10)], [])


# Configurations


def test_a_configuration_names_the_handler(name: str, root: logging.Logger, records: RecordQueue) -> None:
    """It has the class and the options of the queue as text."""
    logs.configured(name, backend="shm", max_messages=3, level="ERROR", formatter=None)
    logging.getLogger("anybody").warning("not this")
    logging.getLogger("anybody").error("this")
    assert records.get(timeout=HANG).msg == "this"


def test_a_configuration_takes_a_url(name: str, root: logging.Logger, records: RecordQueue) -> None:
    """The options in the URL count."""
    logs.configured(f"shm://{name}?max_messages=7")
    logging.getLogger("anybody").error("this")
    with ipcq.open(name, create=False) as queue:
        assert queue.max_messages == 7


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the keys queue and listener came with Python 3.12")
def test_a_configuration_may_name_queue_and_listener(name: str, root: logging.Logger, kept: Kept) -> None:
    """The standard library's handler takes them."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "kept": {"()": lambda: kept},
                "queue": {
                    "class": "logging.handlers.QueueHandler",
                    "queue": {"()": "ipcq.logging.RecordQueue", "queue": name, "backend": "shm"},
                    "listener": "ipcq.logging.QueueListener",
                    "handlers": ["kept"],
                },
            },
            "root": {"level": "INFO", "handlers": ["queue"]},
        }
    )
    handler = next(each for each in root.handlers if isinstance(each, logging.handlers.QueueHandler))
    listener: QueueListener = vars(handler)["listener"]
    with listener:
        logging.getLogger("anybody").info("text")
    assert kept.texts() == ["text"]


# Forks and limits


def test_a_handle_that_does_not_cross_a_fork_is_opened_again(records: RecordQueue, name: str) -> None:
    """C20: its error is not a reason to drop a record."""
    assert records.qsize() == 0
    (inherited,) = records._opened.values()
    inherited._refuse_calls("queues of this backend do not cross a fork: open the queue in the child")
    assert records.qsize() == 0


def test_a_listener_without_a_thread_names_the_limit_and_can_start_later(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24: the listener is then as if it had not been started."""

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    listener = QueueListener(name, backend="memory")
    with monkeypatch.context() as context, pytest.raises(ipcq.LimitExceeded, match="so that a thread can be started"):
        context.setattr(threading.Thread, "start", no_thread)
        listener.start()
    listener.start()
    listener.stop()
