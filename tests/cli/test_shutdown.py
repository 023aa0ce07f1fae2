"""``ipcq shutdown``."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

import ipcq

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


def test_nothing_goes_in_any_more(run: Run, queue: Queue) -> None:
    """That is what it is for."""
    run("shutdown", queue.name)
    with pytest.raises(ipcq.QueueShutDown):
        queue.put("x")


def test_what_is_in_can_be_drained(run: Run, queue: Queue) -> None:
    """Consumers end by themselves."""
    queue.put_many(["a", "b"])
    run("shutdown", queue.name)
    assert list(queue) == ["a", "b"]


def test_what_is_in_is_dropped_at_once(run: Run, queue: Queue) -> None:
    """With --immediate."""
    queue.put_many(["a", "b"])
    run("shutdown", queue.name, "--immediate")
    assert list(queue) == []


def test_it_says_what_it_did(run: Run, queue: Queue) -> None:
    """One line for each."""
    assert run("shutdown", queue.name).stdout == f"shut down {queue.name}\n"


def test_it_can_be_silent(run: Run, queue: Queue) -> None:
    """With --quiet."""
    assert run("shutdown", queue.name, "-q").output == ""


def test_missing_queue_is_5(run: Run, name: str) -> None:
    """There is nothing to shut down."""
    assert run("shutdown", name).exit_code == 5


def test_others_are_shut_down_all_the_same(run: Run, queue: Queue) -> None:
    """One that fails does not keep the rest from it."""
    result = run("shutdown", "/no-such-queue", queue.name, "--json")
    assert [json.loads(line)["shut_down"] for line in result.stdout.splitlines()] == [False, True]


def test_consumer_in_another_process_ends(
    start: Callable[..., Any], program: Callable[..., Any], shared: Queue
) -> None:
    """Told by a program of its own."""
    process = start("get", shared.name, "--follow")
    shared.put("last")
    assert process.stdout.readline() == "last\n"
    program("shutdown", shared.name)
    process.communicate(timeout=60)
    assert process.returncode == 0
