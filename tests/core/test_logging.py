"""Log records through a queue: what is sent, what is dropped, who is held up, and that processes meet by text alone."""

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
    """Keeps the records that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def name() -> Iterator[str]:
    """Return the name of a queue, which is unlinked after the test."""
    name = fresh_name()
    yield name
    for backend in ("shm", "memory"):
        try:
            ipcq.unlink(name, backend)
        except ipcq.QueueNotFound:
            pass


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """Return a logger that nobody else has, and take its handlers away again."""
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
    """Put back what a configuration does to the root logger."""
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
    """Return a handler of the logger."""
    handler = QueueHandler(name, backend="shm")
    logger.addHandler(handler)
    return handler


@pytest.fixture
def records(name: str) -> Iterator[RecordQueue]:
    """Return the other end."""
    records = RecordQueue(name, backend="shm")
    yield records
    records.close()


@pytest.fixture
def kept() -> Kept:
    """Return a handler that keeps what it gets."""
    return Kept()


class Told:
    """All that was written to stderr since the test began."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def errors(capsys: pytest.CaptureFixture[str]) -> Told:
    """Return what is written to stderr."""
    return Told(capsys)


# What is sent


def test_a_record_comes_as_it_was_logged(handler: QueueHandler, logger: logging.Logger, records: RecordQueue) -> None:
    """Name, level, place and message, and what was added."""
    logger.error("%s of %d", "one", 2, extra={"user": {"id": 7}})
    record = records.get(timeout=HANG)
    assert (record.name, record.levelno, record.levelname, record.getMessage(), vars(record)["user"]) == (
        "of.a.test",
        logging.ERROR,
        "ERROR",
        "one of 2",
        {"id": 7},
    )


def test_a_record_tells_where_it_was_logged(
    handler: QueueHandler, logger: logging.Logger, records: RecordQueue
) -> None:
    """By process, thread and line, whoever reads it."""
    logger.info("here")
    record = records.get(timeout=HANG)
    assert (record.process, record.threadName, record.filename) == (os.getpid(), "MainThread", "test_logging.py")


def test_a_traceback_comes_as_text(handler: QueueHandler, logger: logging.Logger, records: RecordQueue) -> None:
    """In the message, as the standard library's handler has it."""
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logger.exception("failed")
    record = records.get(timeout=HANG)
    assert record.getMessage().startswith("failed\nTraceback") and record.exc_info is None


def test_the_record_itself_stays_as_it_is(
    handler: QueueHandler, logger: logging.Logger, records: RecordQueue, kept: Kept
) -> None:
    """Other handlers of the logger see its arguments."""
    logger.addHandler(kept)
    logger.info("%s", "argument")
    assert kept.records[0].args == ("argument",)


class Silent:
    def __repr__(self) -> str:
        raise ValueError("no repr")


@pytest.mark.parametrize(
    ("value", "comes"),
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
def test_what_cannot_be_encoded_comes_as_text(
    handler: QueueHandler, logger: logging.Logger, records: RecordQueue, value: object, comes: object
) -> None:
    """Beside it, all else comes as it is."""
    logger.info("text", extra={"value": value, "fine": 1.5})
    record = vars(records.get(timeout=HANG))
    assert (record["value"], record["fine"], record["msg"]) == (comes, 1.5, "text")


def test_no_pickle_travels(handler: QueueHandler, logger: logging.Logger, name: str) -> None:
    """C26: any handle reads it."""
    logger.info("text", extra={"value": {1, 2}})
    with ipcq.open(name, create=False) as queue:
        assert queue.get()["value"] == "{1, 2}"


def test_a_level_holds_back(handler: QueueHandler, logger: logging.Logger, records: RecordQueue) -> None:
    """As for every handler."""
    handler.setLevel("WARNING")
    logger.info("not this")
    logger.warning("this")
    assert (records.get(timeout=HANG).msg, records.qsize()) == ("this", 0)


def test_a_formatter_makes_the_message(handler: QueueHandler, logger: logging.Logger, records: RecordQueue) -> None:
    """As for the standard library's handler."""
    handler.setFormatter(logging.Formatter("<%(message)s>"))
    logger.info("text")
    assert records.get(timeout=HANG).getMessage() == "<text>"


# What is dropped, and who is held up


def test_nothing_is_opened_before_the_first_record(handler: QueueHandler, name: str) -> None:
    """So a configuration costs nothing, and can be loaded before a fork."""
    assert not ipcq.exists(name)


def test_a_full_queue_holds_nobody_up(name: str, logger: logging.Logger, errors: Told) -> None:
    """What does not fit is dropped, counted, and told as logging tells its errors."""
    handler = QueueHandler(name, backend="shm", max_messages=2)
    logger.addHandler(handler)
    for number in range(5):
        logger.info("number %d", number)
    assert (handler.dropped, errors.getvalue().count("--- Logging error ---")) == (3, 3)


def test_a_timeout_waits_for_space(name: str, logger: logging.Logger, records: RecordQueue) -> None:
    """As long as it says."""
    handler = QueueHandler(name, backend="shm", max_messages=1, timeout=HANG)
    logger.addHandler(handler)
    logger.info("one")
    taker = threading.Timer(0.2, lambda: records.get(timeout=HANG))
    taker.start()
    logger.info("two")
    taker.join()
    assert (handler.dropped, records.get(timeout=HANG).msg) == (0, "two")


def test_a_record_that_can_never_fit_is_dropped(name: str, logger: logging.Logger, errors: Told) -> None:
    """With the reason."""
    handler = QueueHandler(name, backend="shm", max_messages=2, max_message_size=1000)
    logger.addHandler(handler)
    logger.info("x" * 1000)
    assert handler.dropped == 1 and "MessageTooLarge" in errors.getvalue()


def test_a_queue_that_cannot_be_opened_is_tried_again_later(
    name: str, logger: logging.Logger, errors: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not for each record."""
    handler = QueueHandler(name, backend="memory", exclusive=True)
    logger.addHandler(handler)
    with ipcq.open(name, "memory"):
        logger.info("one")
        logger.info("two")
        ipcq.unlink(name, "memory")
    told = errors.getvalue().split("--- Logging error ---")
    assert (handler.dropped, ["a moment ago" in each for each in told]) == (2, [False, False, True])
    monkeypatch.setattr(handler.queue, "_again", 0.0)
    logger.info("three")
    assert (handler.dropped, handler.queue.qsize()) == (2, 1)


def test_after_a_shutdown_records_are_dropped(
    handler: QueueHandler, logger: logging.Logger, records: RecordQueue, name: str, errors: Told
) -> None:
    """What is in the queue can be taken."""
    logger.info("before")
    with ipcq.open(name, create=False) as queue:
        queue.shutdown()
    logger.info("after")
    assert (handler.dropped, records.get(timeout=HANG).msg) == (1, "before")


def test_a_queue_that_was_unlinked_is_opened_anew(handler: QueueHandler, logger: logging.Logger, name: str) -> None:
    """So a writer of logs may begin anew at any time."""
    logger.info("lost")
    ipcq.unlink(name, "shm")
    until(lambda: logger.info("found") is None and ipcq.exists(name))
    assert handler.dropped == 0


def test_a_handle_stays_its_owners(name: str, logger: logging.Logger) -> None:
    """Closing the handler does not close it."""
    with ipcq.open(name, "memory") as queue:
        handler = QueueHandler(queue)
        logger.addHandler(handler)
        logger.info("text")
        handler.close()
        assert queue.get()["msg"] == "text"


def test_a_handle_that_was_closed_is_not_replaced(name: str, logger: logging.Logger, errors: Told) -> None:
    """Its owner wanted that."""
    queue = ipcq.open(name, "memory")
    handler = QueueHandler(queue)
    logger.addHandler(handler)
    queue.close()
    logger.info("text")
    assert handler.dropped == 1 and "QueueClosed" in errors.getvalue()


def test_a_closed_handler_opens_again(handler: QueueHandler, logger: logging.Logger, records: RecordQueue) -> None:
    """What is logged while a program ends is not lost."""
    logger.info("one")
    handler.close()
    logger.info("two")
    assert [records.get(timeout=HANG).msg for _ in range(2)] == ["one", "two"]


def test_opening_waits_for_others_until_that_has_failed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that start at the same time drop nothing, and none is held up again and again."""
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


def test_how_long_opening_waits_is_the_users_to_say(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the option of `ipcq.open`."""
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


def test_threads_that_open_it_at_the_same_time_agree(
    name: str, records: RecordQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second handle is closed again."""
    real = face.open_queue

    def slow(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(face, "open_queue", real)
        assert records.qsize() == 0  # another opens it meanwhile
        return real(*arguments, **options)

    monkeypatch.setattr(face, "open_queue", slow)
    assert records.qsize() == 0
    with ipcq.open(name, create=False) as queue:
        assert queue.stats().handles == 2


def test_threads_that_find_it_gone_at_the_same_time_agree(name: str, records: RecordQueue) -> None:
    """What one has opened anew meanwhile, the other takes."""
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
    """As the standard library's handler does."""
    records.put_nowait(logging.makeLogRecord({"levelno": 10, "msg": "text"}))
    assert records.get(block=False).msg == "text"


class Talkative:
    """Logs whenever somebody asks for its repr."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def __repr__(self) -> str:
        self._logger.info("asked for my repr", extra={"value": self})
        return "talkative"


def test_what_logs_inside_the_handler_is_no_loop(
    handler: QueueHandler, logger: logging.Logger, records: RecordQueue
) -> None:
    """The inner record is dropped, and counted."""
    logger.info("outer", extra={"value": Talkative(logger)})
    record = records.get(timeout=HANG)
    assert (record.msg, vars(record)["value"], handler.dropped, records.qsize()) == ("outer", "talkative", 1, 0)


def test_a_handler_does_not_raise_what_a_message_raises(
    handler: QueueHandler, logger: logging.Logger, errors: Told
) -> None:
    """As for every handler."""
    handler.handle(logger.makeRecord("name", logging.INFO, "file", 1, "%d", ("no number",), None))
    assert handler.dropped == 1 and "TypeError" in errors.getvalue()


@pytest.mark.parametrize("given", ["logs", "", 7, None])
def test_what_is_no_name_is_refused_at_once(given: Any) -> None:
    """When the handler is made, and not at the first record."""
    with pytest.raises(ipcq.InvalidArgument):
        QueueHandler(given)


@pytest.mark.parametrize("kind", [QueueHandler, QueueListener, RecordQueue])
def test_a_handle_takes_no_options(name: str, kind: Any) -> None:
    """It is open already."""
    with ipcq.open(name, "memory") as queue, pytest.raises(ipcq.InvalidArgument, match="leave out max_messages"):
        kind(queue, max_messages=3)


def test_a_queue_of_records_takes_no_options(name: str) -> None:
    """They are its own to say."""
    with pytest.raises(ipcq.InvalidArgument, match="leave out max_messages"):
        QueueHandler(RecordQueue(name), max_messages=3)


@pytest.mark.parametrize("timeout", [-1, "1", None])
def test_a_timeout_is_a_number_of_seconds(name: str, timeout: Any) -> None:
    """None would hold up who logs."""
    with pytest.raises(ipcq.InvalidArgument, match="timeout"):
        QueueHandler(name, timeout=timeout)


# Listening


def test_a_listener_gives_records_to_its_handlers(
    handler: QueueHandler, logger: logging.Logger, name: str, kept: Kept
) -> None:
    """All that were logged before it is stopped."""
    with QueueListener(name, kept, backend="shm"):
        for number in range(100):
            logger.info("number %d", number)
    assert kept.texts() == [f"number {number}" for number in range(100)]


def test_a_listener_respects_levels_on_demand(
    handler: QueueHandler, logger: logging.Logger, name: str, kept: Kept
) -> None:
    """As the standard library's does."""
    kept.setLevel(logging.ERROR)
    logger.info("not this")
    logger.error("this")
    with QueueListener(name, kept, respect_handler_level=True):
        pass
    assert kept.texts() == ["this"]


def test_without_handlers_a_record_is_for_the_logger_of_its_name(
    handler: QueueHandler, logger: logging.Logger, name: str, kept: Kept
) -> None:
    """With that one's level, and without making a logger that is not there."""
    logger.addHandler(kept)
    with ipcq.open(name, "shm") as queue:
        for level in (logging.INFO, logging.ERROR):
            queue.put({"name": "of.a.test.nobody", "levelno": level, "msg": logging.getLevelName(level)})
        logger.setLevel(logging.ERROR)
        with QueueListener(queue):
            pass
    assert (kept.texts(), "of.a.test.nobody" in logging.root.manager.loggerDict) == (["ERROR"], False)


def test_the_closest_logger_may_be_the_root(name: str, root: logging.Logger, kept: Kept) -> None:
    """A placeholder between two loggers is none."""
    root.addHandler(kept)
    with ipcq.open(name, "memory") as queue, QueueListener(queue):
        queue.put({"name": "of.a", "levelno": logging.ERROR, "msg": "text"})
    assert kept.texts() == ["text"]


def test_what_was_taken_out_is_not_put_back(
    handler: QueueHandler, logger: logging.Logger, name: str, kept: Kept
) -> None:
    """Where the process that writes the log has the same handler, no record goes round."""
    logger.addHandler(kept)
    logger.info("once")
    with QueueListener(name):
        until(lambda: len(kept.records) == 2)
    assert (handler.queue.qsize(), handler.dropped) == (0, 0)


def test_a_handler_is_found_by_its_name(name: str, root: logging.Logger, kept: Kept) -> None:
    """By that of the configuration."""
    kept.name = "kept"
    with ipcq.open(name, "memory") as queue:
        queue.put({"levelno": logging.INFO, "msg": "text"})
        with QueueListener(queue, "kept"):
            pass
    assert (kept.texts(), kept.records[0].name, kept.records[0].levelname) == (["text"], "root", "INFO")


def test_a_name_that_no_handler_has_is_refused(name: str) -> None:
    """When it starts, as the configuration may come later than the listener."""
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
def test_what_is_no_record_is_counted(name: str, kept: Kept, errors: Told, item: object) -> None:
    """C6: and the next one is handled."""
    with ipcq.open(name, "memory") as queue:
        queue.put(item)
        queue.put({"levelno": 10, "msg": "next"})
        with QueueListener(queue, kept) as listener:
            pass
    assert (listener.unreadable, kept.texts()) == (1, ["next"])


def test_a_record_of_a_stranger_is_data(name: str, kept: Kept) -> None:
    """C26: it can neither replace a method nor stand for an exception."""
    hostile = {"levelno": 10, "msg": "%s", "getMessage": "x", "args": ["y"], "exc_info": "z", "name": 7, 3: 4}
    with ipcq.open(name, "memory") as queue:
        queue.put(hostile)
        with QueueListener(queue, kept):
            pass
    record = kept.records[0]
    assert (record.getMessage(), record.exc_info, record.name) == ("%s", None, "root")


class Failing(logging.Handler):
    """Raises, as a handler with a mistake in it."""

    def handle(self, record: logging.LogRecord) -> bool:
        raise LookupError("mistake")


def test_what_a_handler_raises_does_not_end_the_listener(name: str, kept: Kept, errors: Told) -> None:
    """It is told, and the next record is taken."""
    with ipcq.open(name, "memory") as queue:
        queue.put({"levelno": 10, "msg": "one"})
        queue.put({"levelno": 10, "msg": "two"})
        with QueueListener(queue, kept, Failing()):
            pass
    assert kept.texts() == ["one", "two"] and errors.getvalue().count("LookupError: mistake") == 2


@pytest.mark.parametrize("silence", ["raiseExceptions", "stderr", "broken"])
def test_errors_are_told_as_logging_tells_them(
    name: str, errors: Told, monkeypatch: pytest.MonkeyPatch, silence: str
) -> None:
    """Not at all, where that is switched off, there is no stderr, or it is broken."""

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
    """When the queue is empty."""
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


def test_a_queue_that_fails_is_tried_again(
    name: str, kept: Kept, errors: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a moment, and told each time."""
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


def test_stopping_where_the_queue_cannot_be_opened_ends(name: str, errors: Told) -> None:
    """There is nothing to be handled."""
    with ipcq.open(name, "memory"):
        listener = QueueListener(name, backend="memory", exclusive=True)
        listener.start()
        until(lambda: "QueueExists" in errors.getvalue())
        listener.stop()
    assert listener._thread is None


def test_a_listener_starts_once(name: str) -> None:
    """Two threads would take turns."""
    with QueueListener(name, backend="memory") as listener, pytest.raises(RuntimeError, match="already running"):
        listener.start()


def test_stopping_twice_is_stopping_once(name: str) -> None:
    """Before it was started, too."""
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
    """By its class and plain text, with options of the queue's."""
    logs.configured(name, backend="shm", max_messages=3, level="ERROR", formatter=None)
    logging.getLogger("anybody").warning("not this")
    logging.getLogger("anybody").error("this")
    assert records.get(timeout=HANG).msg == "this"


def test_a_configuration_takes_a_url(name: str, root: logging.Logger, records: RecordQueue) -> None:
    """With what is said of the queue in it."""
    logs.configured(f"shm://{name}?max_messages=7")
    logging.getLogger("anybody").error("this")
    with ipcq.open(name, create=False) as queue:
        assert queue.max_messages == 7


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the keys queue and listener came with Python 3.12")
def test_a_configuration_may_name_queue_and_listener(name: str, root: logging.Logger, kept: Kept) -> None:
    """Of the standard library's handler."""
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


def test_a_handler_that_a_backend_does_not_take_over_a_fork_is_opened_anew(records: RecordQueue, name: str) -> None:
    """C20: what such a handle says is no reason to drop a record."""
    assert records.qsize() == 0
    (inherited,) = records._opened.values()
    inherited._end("queues of this backend do not cross a fork: open the queue in the child")
    assert records.qsize() == 0


def test_a_listener_without_a_thread_names_the_limit_and_can_start_later(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24: it is as if it had not been started."""

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    listener = QueueListener(name, backend="memory")
    with monkeypatch.context() as context, pytest.raises(ipcq.LimitExceeded, match="so that a thread can be started"):
        context.setattr(threading.Thread, "start", no_thread)
        listener.start()
    listener.start()
    listener.stop()
