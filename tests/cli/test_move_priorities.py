"""Priorities of the messages that ``ipcq move`` moves: they are kept, or left out on request."""

from collections.abc import Callable
from dataclasses import replace

import pytest

import ipcq
from cli import moving
from cli.moving import VERBS, Queue, Run, raising, take_all

directory, make, target, without_peek = moving.directory, moving.make, moving.target, moving.without_peek


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, target: Queue) -> Queue:
    """Return a queue on a backend without priorities."""
    real = ipcq.Queue.capabilities.fget
    monkeypatch.setattr(
        ipcq.Queue,
        "capabilities",
        property(lambda self: replace(real(self), priorities=self.name != target.name and real(self).priorities)),
    )
    return target


@pytest.mark.parametrize("verb", VERBS)
def test_priorities_are_kept_at_both_ends(run: Run, make: Callable[..., Queue], verb: str) -> None:
    """And the order with them, although a message that is put back early would be the next one again."""
    source, target = make("-source", priorities=True), make("-target", priorities=True)
    for item, priority in (("low", 0), ("high", 7), ("second", 7), ("middle", 3)):
        source.put(item, priority=priority)
    run(verb, source.name, target.name)
    expected = ["high", "second", "middle", "low"]
    assert (take_all(target), take_all(source)) == (expected, expected if verb == "copy" else [])


def test_priorities_that_would_be_lost_are_refused(run: Run, make: Callable[..., Queue], plain: Queue) -> None:
    """Before a message is taken."""
    source = make("-source", priorities=True)
    source.put("a", priority=1)
    result = run("move", source.name, plain.name)
    assert ("pass --no-priorities to put each" in result.stderr, source.qsize()) == (True, 1)


def test_priorities_that_were_not_used_are_not_lost(run: Run, make: Callable[..., Queue], plain: Queue) -> None:
    """peek shows the highest priority, and it is 0."""
    run("move", make("-source", "ab", priorities=True).name, plain.name)
    assert take_all(plain) == ["a", "b"]


def test_priorities_that_cannot_be_seen_are_refused(
    run: Run, make: Callable[..., Queue], plain: Queue, without_peek: None
) -> None:
    """Messages may have some."""
    source = make("-source", "a", priorities=True)
    result = run("move", source.name, plain.name)
    assert ("pass --no-priorities to put each" in result.stderr, source.qsize()) == (True, 1)


@pytest.mark.parametrize("looks", [True, False])
def test_priorities_can_be_left_out(
    run: Run, make: Callable[..., Queue], plain: Queue, looks: bool, request: pytest.FixtureRequest
) -> None:
    """With --no-priorities."""
    if not looks:
        request.getfixturevalue("without_peek")
    source = make("-source", priorities=True)
    source.put("a", priority=1)
    run("move", source.name, plain.name, "--no-priorities")
    assert take_all(plain) == ["a"]


def test_source_that_is_emptied_before_the_look_at_priorities_is_3(
    run: Run, make: Callable[..., Queue], plain: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another consumer."""
    source = make("-source", "a", priorities=True)
    monkeypatch.setattr(ipcq.Queue, "peek_message", raising(ipcq.QueueEmpty()))
    assert run("move", source.name, plain.name).exit_code == 3
