"""``ipcq shutdown``."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

import ipcq

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


def test_no_message_can_be_put_afterwards(run: Run, queue: Queue) -> None:
    """A put raises QueueShutDown."""
    run("shutdown", queue.name)
    with pytest.raises(ipcq.QueueShutDown):
        queue.put("x")


def test_remaining_messages_can_be_drained(run: Run, queue: Queue) -> None:
    """Consumers end by themselves."""
    queue.put_many(["a", "b"])
    run("shutdown", queue.name)
    assert list(queue) == ["a", "b"]


def test_remaining_messages_can_be_dropped(run: Run, queue: Queue) -> None:
    """With --immediate."""
    queue.put_many(["a", "b"])
    run("shutdown", queue.name, "--immediate")
    assert list(queue) == []


def test_each_shutdown_is_printed(run: Run, queue: Queue) -> None:
    """One line for each queue."""
    assert run("shutdown", queue.name).stdout == f"shut down {queue.name}\n"


def test_quiet_prints_nothing(run: Run, queue: Queue) -> None:
    """With --quiet."""
    assert run("shutdown", queue.name, "-q").output == ""


def test_missing_queue_is_5(run: Run, name: str) -> None:
    """There is nothing to shut down."""
    assert run("shutdown", name).exit_code == 5


def test_others_are_shut_down_when_one_fails(run: Run, queue: Queue) -> None:
    """One failure does not stop the rest."""
    result = run("shutdown", "/no-such-queue", queue.name, "--json")
    assert [json.loads(line)["shut_down"] for line in result.stdout.splitlines()] == [False, True]


def test_consumer_in_another_process_ends(
    start: Callable[..., Any], program: Callable[..., Any], shared: Queue
) -> None:
    """The shutdown comes from a separate program."""
    process = start("get", shared.name, "--follow")
    shared.put("last")
    assert process.stdout.readline() == "last\n"
    program("shutdown", shared.name)
    process.communicate(timeout=60)
    assert process.returncode == 0
