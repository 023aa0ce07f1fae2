"""``ipcq move`` into a full queue waits for space before it takes a message."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import moving
from cli.moving import VERBS, Queue, Run, list_files, take_all

directory, make, source = moving.directory, moving.make, moving.source


@pytest.mark.parametrize("verb", VERBS)
def test_full_target_is_4_and_no_message_is_in_between(
    run: Run, source: Queue, make: Callable[..., Queue], directory: Path, verb: str
) -> None:
    """With --wait 0; it checks for space before it takes a message."""
    target = make("-target", max_messages=2)
    result = run(verb, source.name, target.name, "--wait", "0")
    left = ["c"] if verb == "move" else ["a", "b", "c"]
    told = f"2 messages {'moved' if verb == 'move' else 'copied'}, all others are still in '{source.name}'"
    assert (result.exit_code, told in result.stderr, take_all(source), list_files(directory)) == (4, True, left, [])


@pytest.mark.parametrize("verb", VERBS)
def test_space_is_waited_for(run: Run, source: Queue, make: Callable[..., Queue], verb: str) -> None:
    """By default without a limit."""
    target = make("-target", max_messages=2)
    thread = threading.Thread(target=lambda: target.get(timeout=60))
    thread.start()
    code = run(verb, source.name, target.name).exit_code
    thread.join()
    assert (code, take_all(target)) == (0, ["b", "c"])


def test_waiting_is_reported_after_a_while(
    run: Run, source: Queue, make: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once."""
    monkeypatch.setattr("ipcq._cli._putter.DELAY_SECONDS", 0.0)
    told = run("move", source.name, make("-target", max_messages=2).name, "--wait", "0.1").stderr
    assert told.count("waiting for space") == 1


@pytest.mark.parametrize("verb", VERBS)
def test_signal_ends_the_wait_for_space(
    run: Run, source: Queue, make: Callable[..., Queue], directory: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """No message is taken meanwhile."""
    target = make("-target", max_messages=2)
    monkeypatch.setattr("ipcq._cli._putter.sleep_in_slices", lambda _: signal.raise_signal(signal.SIGTERM))
    assert (run(verb, source.name, target.name).exit_code, target.qsize(), list_files(directory)) == (143, 2, [])


@pytest.mark.parametrize("backend", ["mqueue", "pyshm", "shm"])
@pytest.mark.parametrize("verb", VERBS)
def test_target_that_is_shut_down_ends_the_wait_for_space(
    run: Run,
    source: Queue,
    make: Callable[..., Queue],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    backend: str,
) -> None:
    """No space becomes free as long as nobody takes its messages."""
    target = make("-target", "xy", backend, max_messages=2)
    steps = iter([target.shutdown, lambda: signal.raise_signal(signal.SIGTERM)])
    monkeypatch.setattr("ipcq._cli._putter.sleep_in_slices", lambda _: next(steps)())
    assert (run(verb, source.name, target.name).exit_code, target.qsize(), list_files(directory)) == (1, 2, [])
