"""C31: a warning or a log record reports a queue that is weaker than requested or not on the best backend."""

import itertools
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import ipcq
import ipcq.logging
from core.conftest import Installed
from core.fakes import HOST, FakeBackend, raising
from ipcq._process import call_site
from ipcq.backend import Availability, Persistence
from ipcq.errors import NoSpace, Unsupported
from processes.needs import library


@pytest.fixture
def alone(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """Return the only usable backend between processes; its queues vanish with their last handle."""
    fake = FakeBackend("fleeting", rank=5, capabilities=replace(HOST, persistence=Persistence.HOLDERS, peek=True))
    installed.backend(fake)
    installed.backend(FakeBackend("broken", rank=999, availability=Availability.no("no compiler: install one")))
    for each in ipcq._opening.registry.plugins():
        if each.backend is not None and each.name == "mqueue":
            monkeypatch.setattr(each.backend, "probe", lambda: Availability.no("it is hidden from this test"))
    return fake


def line() -> int:
    """Return the number of the line that calls this."""
    return sys._getframe(1).f_lineno


@pytest.mark.needs("memory")
@pytest.mark.needs("mqueue")
def test_a_weaker_queue_causes_a_warning(alone: FakeBackend, name: str) -> None:
    """C31: the text has the reason for each backend that was passed over, and the way out."""
    with pytest.warns(ipcq.PersistenceWarning) as caught:
        ipcq.open(name).close()
    assert str(caught[0].message) == (
        f"queue {name!r} on backend 'fleeting' lives only as long as some process has it open: no backend that keeps "
        "queues can be used here (broken: no compiler: install one; mqueue: it is hidden from this test; memory: its "
        "queues are private to one process: pass backend='memory' if that is enough); make one usable, or pass "
        "lifetime='last-close' if that is enough"
    )


def test_the_warning_points_at_the_callers_line(alone: FakeBackend, name: str) -> None:
    """The depth of the call inside ipcq does not matter."""
    with pytest.warns(ipcq.PersistenceWarning) as caught:
        here = line() + 1
        ipcq.open(name).close()
    assert (caught[0].filename, caught[0].lineno) == (__file__, here)


def test_the_warning_of_one_line_is_shown_once(alone: FakeBackend, name: str) -> None:
    """This is the default of Python's warnings."""
    with warnings.catch_warnings(record=True) as shown:
        warnings.resetwarnings()
        for _ in range(2):
            with ipcq.open(name) as queue:
                queue.unlink()
    assert [each.category for each in shown] == [ipcq.PersistenceWarning]


def test_no_queue_is_created_if_the_warning_is_an_error(alone: FakeBackend, name: str) -> None:
    """The exception reaches the caller."""
    with pytest.raises(ipcq.PersistenceWarning):  # the filter of the tests turns warnings into errors
        ipcq.open(name)
    assert not alone.queues


def test_attaching_to_a_weaker_queue_causes_no_warning(alone: FakeBackend, name: str) -> None:
    """Its creator was warned."""
    alone.make(name)
    assert ipcq.open(name).close() is None


def test_opening_without_creating_causes_no_warning(alone: FakeBackend, name: str) -> None:
    """There is no new queue that could be weaker."""
    with pytest.raises(ipcq.QueueNotFound):
        ipcq.open(name, create=False)


@pytest.mark.needs("memory")
def test_a_preference_for_a_weaker_backend_causes_a_warning(
    alone: FakeBackend, installed: Installed, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The author of the program may not know that IPCQ_BACKEND is set."""
    installed.backend(FakeBackend("keeping", rank=7))
    monkeypatch.setenv("IPCQ_BACKEND", "fleeting")
    with pytest.warns(ipcq.PersistenceWarning, match="keeping, memory: IPCQ_BACKEND names 'fleeting'"):
        ipcq.open(name).close()


def test_a_hook_that_shows_the_warning_may_open_the_queue(
    alone: FakeBackend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name lock is not held at that time."""

    def show(*_: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ipcq.open(name, open_timeout=0).put("shown")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", show)
        queue = ipcq.open(name)
    with queue:
        assert queue.get(timeout=5) == "shown"


def test_a_backend_that_becomes_unusable_meanwhile_causes_a_warning(
    alone: FakeBackend, installed: Installed, name: str
) -> None:
    """It happens between the first look and the name lock, and the warning still comes before the queue."""
    keeping = FakeBackend("keeping", rank=7)
    installed.backend(keeping)

    looks = itertools.count()

    def fail(_: str) -> None:
        if next(looks):
            keeping.availability = Availability.no("its disk was pulled out")

    keeping.on_probe = fail
    with pytest.warns(ipcq.PersistenceWarning, match="pulled out") as caught:
        ipcq.open(name).close()
    assert len(caught) == 1


def test_the_warning_points_at_the_line_that_opens_for_asyncio(alone: FakeBackend, name: str) -> None:
    """A thread opens the queue."""
    anyio = library("anyio")
    import ipcq.aio

    async def open_it() -> int:
        here = line() + 1
        async with ipcq.aio.open(name):
            return here

    with pytest.warns(ipcq.PersistenceWarning) as caught:
        here = anyio.run(open_it)
    assert (caught[0].filename, caught[0].lineno) == (__file__, here)


def test_the_warning_points_at_the_line_that_made_a_log_handler(alone: FakeBackend, name: str) -> None:
    """That line names the queue; the call that logs the first record could be anywhere."""
    here = line() + 1
    handler = ipcq.logging.QueueHandler(name)
    with pytest.warns(ipcq.PersistenceWarning) as caught:
        handler.handle(logging.makeLogRecord({"msg": "x"}))
    handler.close()
    assert (caught[0].filename, caught[0].lineno) == (__file__, here)


def test_the_warning_points_at_the_line_that_made_a_log_listener(alone: FakeBackend, name: str) -> None:
    """The listener's thread opens the queue."""
    opened = threading.Event()
    alone.on_create = lambda _: opened.set()
    with pytest.warns(ipcq.PersistenceWarning) as caught:
        here = line() + 1
        with ipcq.logging.QueueListener(name):
            opened.wait(20)
    assert (caught[0].filename, caught[0].lineno) == (__file__, here)


def test_a_warning_without_a_caller_outside_ipcq_points_at_the_outermost_frame() -> None:
    """A thread may start with a function of ipcq."""
    found: list[call_site.Caller] = []
    inside = {"__name__": "ipcq._inside", "caller": call_site.caller, "found": found}
    exec("def inside():\n    found.append(caller())\n", inside)
    thread = threading.Thread(target=inside["inside"])
    thread.start()
    thread.join()
    assert found[0].module == "threading"


def test_a_warning_for_code_without_a_module_is_shown(alone: FakeBackend, name: str) -> None:
    """Code that `exec` runs has no module."""
    with pytest.warns(ipcq.PersistenceWarning):
        exec("ipcq.open(name).close()", {"__name__": "no such module", "ipcq": ipcq, "name": name})


# A backend that is not the best


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Return a function that returns the texts logged by the logger `ipcq`."""
    caplog.set_level(logging.INFO, "ipcq")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "ipcq"]


@pytest.fixture
def pair(installed: Installed) -> Iterator[tuple[FakeBackend, FakeBackend]]:
    """Return the best backend and the second best."""
    both = FakeBackend("best", rank=900), FakeBackend("second", rank=800)
    for each in both:
        installed.backend(each)
    return both


def test_creating_on_the_best_backend_logs_nothing(
    pair: tuple[FakeBackend, FakeBackend], name: str, records: Callable[[], list[str]]
) -> None:
    """No backend was skipped."""
    ipcq.open(name).close()
    assert records() == []


def test_creating_on_another_backend_logs_the_reason_and_the_limits(
    pair: tuple[FakeBackend, FakeBackend], name: str, records: Callable[[], list[str]]
) -> None:
    """C31: all of that is in one record."""
    pair[0].on_create = raising(Unsupported("not with this mode: say other_users=True"))
    ipcq.open(name, max_messages=4).close()
    assert records() == [
        (
            f"queue {name!r} was created on backend 'second', with at most 4 messages of at most 8192 bytes; "
            "better backends were skipped: best: not with this mode: say other_users=True"
        )
    ]


def test_a_limit_in_bytes_is_logged(
    pair: tuple[FakeBackend, FakeBackend], name: str, records: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of messages has no limit then."""
    monkeypatch.setattr(ipcq.Queue, "max_messages", None)
    pair[0].on_create = raising(Unsupported("not so"))
    ipcq.open(name, buffer_size=99).close()
    assert "with any number of messages of at most 8192 bytes, 99 bytes in total" in records()[0]


def test_the_level_is_info(pair: tuple[FakeBackend, FakeBackend], name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The program got what it requested, so this is not a fault."""
    caplog.set_level(logging.DEBUG, "ipcq")
    pair[0].on_create = raising(Unsupported("not so"))
    ipcq.open(name).close()
    assert [record.levelname for record in caplog.records] == ["INFO"]


def test_a_preference_is_logged(
    pair: tuple[FakeBackend, FakeBackend],
    name: str,
    records: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """IPCQ_BACKEND chose a backend that is not the best."""
    monkeypatch.setenv("IPCQ_BACKEND", "second")
    ipcq.open(name).close()
    assert records()[0].endswith("better backends were skipped: best: IPCQ_BACKEND names 'second'")


@pytest.mark.parametrize("options", [{"backend": "second"}, {"create": False}])
def test_a_named_backend_or_an_existing_queue_logs_nothing(
    pair: tuple[FakeBackend, FakeBackend], name: str, records: Callable[[], list[str]], options: dict[str, Any]
) -> None:
    """`auto` did not choose the backend."""
    if not options.get("create", True):
        pair[1].make(name)
    ipcq.open(name, **options).close()
    assert records() == []


def test_a_backend_that_cannot_be_used_here_is_not_logged(
    pair: tuple[FakeBackend, FakeBackend], name: str, records: Callable[[], list[str]]
) -> None:
    """That depends on the machine, and `ipcq backends` shows it."""
    pair[0].availability = Availability.no("no compiler")
    ipcq.open(name).close()
    assert records() == []


def test_nothing_is_logged_unless_logging_is_imported(
    pair: tuple[FakeBackend, FakeBackend],
    name: str,
    records: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Importing it would slow down programs that do not log."""
    pair[0].on_create = raising(Unsupported("not so"))
    with monkeypatch.context() as without:
        without.delitem(sys.modules, "logging")
        ipcq.open(name).close()
    assert records() == []


def test_a_failed_creation_logs_nothing(
    pair: tuple[FakeBackend, FakeBackend], name: str, records: Callable[[], list[str]]
) -> None:
    """There is no queue to report."""
    pair[0].on_create = raising(NoSpace())
    with pytest.raises(NoSpace):
        ipcq.open(name)
    assert records() == []


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_a_log_handler_that_raises_leaves_no_handle_open(
    pair: tuple[FakeBackend, FakeBackend], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`open` returns no handle, so the caller could not close it."""
    closed: list[ipcq.Queue[Any]] = []
    close = ipcq.Queue.close

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def note(self: "ipcq.Queue[Any]") -> None:
        closed.append(self)
        close(self)

    monkeypatch.setattr(ipcq.Queue, "close", note)
    monkeypatch.setattr(logging.getLogger("ipcq"), "info", interrupt)
    pair[0].on_create = raising(Unsupported("not with this mode"))
    with pytest.raises(KeyboardInterrupt):
        ipcq.open(name)
    assert [queue.name for queue in closed] == [name]
