"""``ipcq stat``."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from click.testing import Result

import ipcq

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


def test_json_is_one_object_with_stable_keys(run: Run, queue: Queue) -> None:
    """Attributes, figures and capabilities."""
    told = json.loads(run("stat", queue.name, "--json").stdout)
    assert list(told) == ["name", "backend", "attributes", "stats", "capabilities"]


def test_attributes_are_those_of_the_queue(run: Run, queue: Queue) -> None:
    """What it was created with."""
    assert json.loads(run("stat", queue.name, "--json").stdout)["attributes"] == {
        "mode": "0600",
        "max_messages": 4,
        "max_message_size": 512,
        "buffer_size": queue.buffer_size,
        "priorities": False,
        "lifetime": "persistent",
    }


def test_figures_are_those_of_the_queue(run: Run, queue: Queue) -> None:
    """What it counted, and one handle more while the command looks."""
    queue.put("x")
    figures = asdict(queue.stats())
    if figures["handles"] is not None:
        figures["handles"] += 1
    assert json.loads(run("stat", queue.name, "--json").stdout)["stats"] == figures


def test_capabilities_are_told_by_name(run: Run, queue: Queue) -> None:
    """An enumeration is a word, not a number."""
    told = json.loads(run("stat", queue.name, "--json").stdout)["capabilities"]
    assert (told["scope"], told["persistence"], told["peek"]) == ("process", "process", True)


def test_pipe_has_one_fact_on_each_line(run: Run, queue: Queue) -> None:
    """A dotted name, a tab, a value."""
    queue.put("x")
    assert "stats.depth\t1" in run("stat", queue.name).stdout.splitlines()


def test_terminal_has_a_table(terminal: Callable[..., Any], queue: Queue) -> None:
    """With headings."""
    assert terminal("stat", queue.name).text.split()[:2] == ["what", "value"]


def test_nothing_is_taken(run: Run, queue: Queue) -> None:
    """Looking is not getting."""
    queue.put("x")
    run("stat", queue.name)
    assert queue.qsize() == 1


def test_missing_queue_is_5(run: Run, name: str) -> None:
    """Looking creates nothing."""
    assert run("stat", name).exit_code == 5
