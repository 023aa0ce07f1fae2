"""``ipcq copy`` returns each message to its queue once and in order, even while other processes use the queue."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ipcq
from cli import moving
from cli.moving import Queue, Run, list_files, on_put, raising, take_all

directory, make, source, target, free = moving.directory, moving.make, moving.source, moving.target, moving.free


@pytest.fixture
def without_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a backend that does not count gets."""
    real = ipcq.Queue.stats
    monkeypatch.setattr(ipcq.Queue, "stats", lambda self: replace(real(self), gets=None))


@pytest.mark.parametrize("error", [ipcq.NoSpace("no memory"), ipcq.QueueFull()])
def test_message_that_the_target_refuses_is_put_back_by_copy(
    run: Run, source: Queue, target: Queue, directory: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """And the order is as before."""
    on_put(monkeypatch, target.name, lambda item: item == b"\xa1b" and raising(error)(item))
    result = run("copy", source.name, target.name, "--wait", "0")
    assert (result.exit_code, take_all(source), take_all(target), list_files(directory)) == (
        4 if isinstance(error, ipcq.QueueFull) else 1,
        ["a", "b", "c"],
        ["a"],
        [],
    )


def test_target_that_is_removed_meanwhile_leaves_all_in_the_source(
    run: Run, source: Queue, free: str, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    """In order."""
    with ipcq.open(free, max_messages=8, max_message_size=512) as target:
        on_put(monkeypatch, source.name, lambda item: item == b"\xa1a" and target.unlink())
        result = run("copy", source.name, free)
    assert (result.exit_code, "1 message copied" in result.stderr, take_all(source), list_files(directory)) == (
        1,
        True,
        ["a", "b", "c"],
        [],
    )


def test_full_disk_leaves_all_in_the_source(
    run: Run, make: Callable[..., Queue], target: Queue, directory: Path, fail_write: Callable[[bytes, int], None]
) -> None:
    """Messages that were taken are put back before the error is printed."""
    source = make("-source", "abc", priorities=True)
    fail_write(b"oWI=", errno.ENOSPC)
    result = run("copy", source.name, target.name)
    assert (result.exit_code, sorted(take_all(source)), list_files(directory)) == (1, ["a", "b", "c"], [])


def test_messages_that_others_take_meanwhile_are_not_copied_twice(
    run: Run, source: Queue, target: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue counts gets, so copy recognizes the messages that it has put back."""
    on_put(monkeypatch, target.name, lambda item: item == b"\xa1a" and source.get())
    run("copy", source.name, target.name)
    assert (take_all(target), sorted(take_all(source))) == (["a", "c"], ["a", "c"])


def test_last_message_that_may_have_been_put_back_is_not_copied(
    run: Run, source: Queue, target: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other consumers took the earlier ones between a look and the get."""
    get = ipcq.Queue.get_message
    calls = []

    def take(self: Queue, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            monkeypatch.undo()
            source.get()
            source.get()
        return get(self, *arguments, **options)

    monkeypatch.setattr(ipcq.Queue, "get_message", take)
    run("copy", source.name, target.name)
    assert (take_all(target), take_all(source)) == (["a"], ["a"])


def test_no_message_is_copied_twice_without_a_count_of_gets(
    run: Run, source: Queue, target: Queue, monkeypatch: pytest.MonkeyPatch, without_counts: None
) -> None:
    """Then messages are put back after all have been taken."""
    on_put(monkeypatch, target.name, lambda item: item == b"\xa1a" and source.get())
    run("copy", source.name, target.name)
    assert (take_all(target), take_all(source)) == (["a", "c"], ["a", "c"])


def test_copy_of_messages_that_others_have_taken_is_no_error(
    run: Run, source: Queue, target: Queue, monkeypatch: pytest.MonkeyPatch, without_counts: None
) -> None:
    """All messages, after the first."""
    on_put(monkeypatch, target.name, lambda _: source.clear())
    assert (run("copy", source.name, target.name).exit_code, take_all(source)) == (0, ["a"])
