"""The helpers of the conformance suite fail when they should: on hangs, failing scripts and events that never come."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import ipcq
from ipcq.testing import processes
from ipcq.testing._answers import until_answered
from ipcq.testing.contract import _bench
from ipcq.testing.contract._bench import Bench, Hang, Worker, watchdog
from ipcq.testing.processes import Peer, PeerDied

Launch = Callable[[str], Peer]


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launch]:
    """Return a function that starts a script; the suite waits at most a second for it."""
    monkeypatch.setattr(_bench, "HANG", 1.0)
    bench = Bench()
    bench.backend, bench.name = "memory", "/unused"  # type: ignore[misc]  # which a subclass sets
    with ExitStack() as bench._cleaning:
        yield bench.launch


def test_a_script_that_hangs_fails_with_its_stacks(launch: Launch) -> None:
    """A hang is a failure that shows where it is."""
    peer = launch("say(1); time.sleep(1000)")
    peer.hear(20)
    with pytest.raises(processes.Hang, match=r"did not end within(?s:.*)line \d+ in <module>"):
        peer.done()


def test_the_rest_of_a_script_that_hangs_is_a_failure(launch: Launch) -> None:
    """With its stacks too."""
    peer = launch("say(1); time.sleep(1000)")
    peer.hear(20)
    with pytest.raises(processes.Hang, match=r"did not end within(?s:.*)line \d+ in <module>"):
        peer.rest()


def test_a_script_that_fails_is_a_failure(launch: Launch) -> None:
    """The failure has the output of the script."""
    with pytest.raises(PeerDied, match=r"returncode 3>(?s:.*)odd"):
        launch("print('odd'); raise SystemExit(3)").done(20)


def test_a_script_that_ends_without_output_is_a_failure(launch: Launch) -> None:
    """The suite does not wait forever for a line that never comes."""
    with pytest.raises(PeerDied, match="ended and sent nothing"):
        launch("pass").hear(20)


def test_a_script_has_warnings_as_errors(launch: Launch) -> None:
    """As the tests have."""
    with pytest.raises(PeerDied, match="UserWarning: odd"):
        launch("import warnings; warnings.warn('odd')").done(20)


def test_a_thread_that_hangs_fails_with_its_place() -> None:
    """The failure of one thread does not hide the results of the others."""
    released = threading.Event()
    worker = Worker(lambda: released.wait(60))
    with pytest.raises(pytest.fail.Exception, match=r"did not return within 0.05 s; it is at .*threading\.py"):
        worker.outcome(0.05)
    released.set()
    assert worker.outcome()


def test_a_worker_returns_what_its_thread_raised_or_none() -> None:
    """Both are valid results."""
    assert Worker(lambda: None).error() is None
    assert isinstance(Worker(lambda: 1 / 0).error(), ZeroDivisionError)


def test_the_watchdog_ends_a_call_that_hangs() -> None:
    """It raises an exception that `except Exception` does not swallow."""
    with pytest.raises(Hang, match=r"did not end within 0\.05 s"), watchdog(0.05):
        try:
            time.sleep(10)
        except Exception:
            pytest.fail("unreachable")


def test_the_watchdog_restores_the_timer() -> None:
    """Watchdogs may nest: the outer one gets the rest of its time back."""
    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        with watchdog(50):
            pass
        left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
        assert 90 < left <= 100
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def test_the_watchdog_of_another_thread_does_not_disturb_a_call_that_returns() -> None:
    """No signal can interrupt a thread other than the main one, so the interpreter is ended instead."""

    def pass_by() -> bool:
        with watchdog(50):
            return True

    assert Worker(pass_by).outcome()


def test_eventually_waits_for_an_error_and_fails_if_it_never_comes() -> None:
    """Neither an empty or full queue nor a server without an answer counts as the expected error."""
    answers: list[Exception] = [ipcq.QueueEmpty(), ipcq.ConnectionLost(), ipcq.QueueGone()]

    def call() -> None:
        raise answers.pop(0) if len(answers) > 1 else answers[0]

    Bench().eventually(ipcq.QueueGone, call, 10)
    assert len(answers) == 1
    with pytest.raises(pytest.fail.Exception, match=r"QueueShutDown was not raised within 0\.05 s"):
        Bench().eventually(ipcq.QueueShutDown, lambda: None, 0.05)


def test_a_call_that_got_no_answer_in_time_gets_more_time() -> None:
    """A server on a busy machine may need longer than the timeout of a test."""

    def call(seconds: float) -> float:
        if seconds < 0.2:
            raise ipcq.ConnectionLost
        return seconds

    assert until_answered(call, 0.05) == 0.2


def test_a_server_that_never_answers_is_told() -> None:
    """In the end, the error is that of the call."""
    asked = []

    def call(seconds: float) -> None:
        asked.append(seconds)
        raise ipcq.ConnectionLost

    with pytest.raises(ipcq.ConnectionLost):
        until_answered(call, 5.0)
    assert asked == [5.0, 10.0, 20.0]
