"""What the suite for backends stands on fails where it has to: on hangs, on scripts that fail, on what never comes."""

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
    """Return what starts a script, for which the suite has a second of patience."""
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
    """A hang is a failure that says where."""
    with pytest.raises(pytest.fail.Exception, match=r"did not end within(?s:.*)line 1 in <module>"):
        launch("import time; time.sleep(1000)").finish()


def test_a_script_that_fails_is_a_failure(launch: Launch) -> None:
    """With what it wrote."""
    with pytest.raises(pytest.fail.Exception, match="ended with 3"):
        launch("raise SystemExit(3)").finish()


def test_a_script_that_ends_in_silence_is_a_failure(launch: Launch) -> None:
    """Whoever waits for its word does not wait for ever."""
    with pytest.raises(pytest.fail.Exception, match="ended without saying"):
        launch("pass").hear()


def test_a_thread_that_hangs_fails_with_its_place() -> None:
    """And does not keep the others from being told."""
    released = threading.Event()
    worker = Worker(lambda: released.wait(60))
    with pytest.raises(pytest.fail.Exception, match=r"did not return within 0.05 s; it stands at .*threading\.py"):
        worker.outcome(0.05)
    released.set()
    assert worker.outcome()


def test_a_thread_says_what_it_raised_or_nothing() -> None:
    """Either is an answer."""
    assert Worker(lambda: None).error() is None
    assert isinstance(Worker(lambda: 1 / 0).error(), ZeroDivisionError)


def test_the_watchdog_ends_what_hangs() -> None:
    """By an exception that no handler for Exception swallows."""
    with pytest.raises(Hang, match=r"did not end within 0\.05 s"), watchdog(0.05):
        try:
            time.sleep(10)
        except Exception:
            pytest.fail("unreachable")


def test_the_watchdog_gives_the_timer_back() -> None:
    """Another watchdog may use the same timer, and gets back what is left of its time."""
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


def test_the_watchdog_of_another_thread_lets_pass_what_ends() -> None:
    """Where no signal can help it is the interpreter's own."""

    def pass_by() -> bool:
        with watchdog(50):
            return True

    assert Worker(pass_by).outcome()


def test_what_happens_late_is_waited_for_and_what_never_does_fails() -> None:
    """A full or empty queue on the way is none of what is waited for."""
    answers: list[Exception] = [ipcq.QueueEmpty(), ipcq.QueueGone()]

    def call() -> None:
        raise answers.pop(0) if len(answers) > 1 else answers[0]

    Bench().eventually(ipcq.QueueGone, call, 10)
    assert len(answers) == 1
    with pytest.raises(pytest.fail.Exception, match=r"QueueShutDown was not raised within 0\.05 s"):
        Bench().eventually(ipcq.QueueShutDown, lambda: None, 0.05)
