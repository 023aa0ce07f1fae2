"""The helpers of the conformance suite fail when they should: on hangs, failing scripts and events that never come."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import ipcq
from ipcq.testing.contract import _bench
from ipcq.testing.contract._bench import Bench, Child, Hang, Worker, watchdog

Launch = Callable[[str], Child]


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launch]:
    """Return a function that starts a script; the suite waits at most a second for it."""
    monkeypatch.setattr(_bench, "HANG", 1.0)
    children: list[Child] = []

    def start(script: str) -> Child:
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        children.append(Child(process))
        return children[-1]

    yield start
    for child in children:
        child.clean_up()


def test_a_script_that_hangs_fails_with_its_stacks(launch: Launch) -> None:
    """A hang is a failure that shows where it is."""
    with pytest.raises(pytest.fail.Exception, match=r"did not end within(?s:.*)line 1 in <module>"):
        launch("import time; time.sleep(1000)").finish()


def test_a_script_that_fails_is_a_failure(launch: Launch) -> None:
    """The failure has the output of the script."""
    with pytest.raises(pytest.fail.Exception, match="ended with 3"):
        launch("raise SystemExit(3)").finish()


def test_a_script_that_ends_without_output_is_a_failure(launch: Launch) -> None:
    """The suite does not wait forever for a line that never comes."""
    with pytest.raises(pytest.fail.Exception, match="ended but more output was expected"):
        launch("pass").hear()


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
    """QueueFull and QueueEmpty on the way do not count as the expected error."""
    answers: list[Exception] = [ipcq.QueueEmpty(), ipcq.QueueGone()]

    def call() -> None:
        raise answers.pop(0) if len(answers) > 1 else answers[0]

    Bench().eventually(ipcq.QueueGone, call, 10)
    assert len(answers) == 1
    with pytest.raises(pytest.fail.Exception, match=r"QueueShutDown was not raised within 0\.05 s"):
        Bench().eventually(ipcq.QueueShutDown, lambda: None, 0.05)
