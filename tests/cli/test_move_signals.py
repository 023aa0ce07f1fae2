"""Signals that stop ``ipcq move`` and ``ipcq copy``."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ipcq
from cli import moving
from cli.moving import VERBS, Queue, Run, list_files, messages_in, on_put, take_all

directory, make, source, target = moving.directory, moving.make, moving.source, moving.target


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("verb", VERBS)
def test_signal_ends_it_between_two_messages(
    run: Run,
    source: Queue,
    target: Queue,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    number: int,
    code: int,
) -> None:
    """Messages that were taken have arrived; copy first restores the order of the others."""
    on_put(monkeypatch, target.name, lambda item: item == b"\xa1b" and signal.raise_signal(number))
    result = run(verb, source.name, target.name)
    told = f"stopped: 2 messages {'moved' if verb == 'move' else 'copied'}, all others are still in '{source.name}'"
    left = ["c"] if verb == "move" else ["a", "b", "c"]
    assert (result.exit_code, told in result.stderr, take_all(source), list_files(directory)) == (code, True, left, [])


def test_stopped_move_can_be_quiet(run: Run, source: Queue, target: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --quiet."""
    on_put(monkeypatch, target.name, lambda _: signal.raise_signal(signal.SIGINT))
    assert run("move", source.name, target.name, "-q").stderr == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_message_without_space_is_kept(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The signal ends the wait, and the error names the file."""

    def full(item: Any) -> None:
        signal.raise_signal(number)
        raise ipcq.QueueFull

    on_put(monkeypatch, target.name, full)
    result = run("move", source.name, target.name, "--rescue", "mine")
    file = directory / "mine"
    told = f"1 message in no queue, kept in {file}: resume with `ipcq load {target.name} {file}`\n"
    assert (result.exit_code, result.stderr.endswith(told), messages_in(directory / "mine")) == (
        128 + number,
        True,
        ["oWE="],
    )


def test_signal_ends_the_wait_of_copy_and_all_messages_are_put_back(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There was no space after all."""

    def full(item: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise ipcq.QueueFull

    on_put(monkeypatch, target.name, full)
    assert (run("copy", source.name, target.name).exit_code, take_all(source), list_files(directory)) == (
        143,
        ["a", "b", "c"],
        [],
    )


def test_second_signal_ends_restoring_the_order(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that were taken are still put back."""
    on_put(monkeypatch, source.name, lambda _: signal.raise_signal(signal.SIGTERM))
    assert (run("copy", source.name, target.name).exit_code, take_all(source), list_files(directory)) == (
        143,
        ["c", "a", "b"],
        [],
    )


def test_third_signal_ends_putting_back(
    run: Run, make: Callable[..., Queue], target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remaining messages are in the file, which stderr names with the source."""
    source = make("-source", "abc", priorities=True)

    def full(item: Any) -> None:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        raise ipcq.QueueFull

    with monkeypatch.context() as patch:
        on_put(patch, source.name, lambda item: item == b"\xa1b" and full(item))
        result = run("copy", source.name, target.name, "--rescue", "mine")
    assert (
        f"2 messages in no queue, kept in {directory / 'mine'}: resume with `ipcq load {source.name} " in result.stderr
    )
    run("load", source.name, "mine")
    assert (result.exit_code, take_all(source), take_all(target), list_files(directory)) == (
        143,
        ["a", "b", "c"],
        ["a", "b", "c"],
        [],
    )
