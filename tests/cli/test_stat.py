"""``ipcq stat``."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from click.testing import Result

import ipcq
from ipcq._cli import _facts
from processes.needs import usable

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]


def test_json_is_one_object_with_stable_keys(run: Run, queue: Queue) -> None:
    """Attributes, figures and capabilities."""
    told = json.loads(run("stat", queue.name, "--json").stdout)
    assert list(told) == ["name", "backend", "attributes", "stats", "capabilities"]


def test_attributes_are_those_of_the_queue(run: Run, queue: Queue) -> None:
    """The limits with which it was created."""
    assert json.loads(run("stat", queue.name, "--json").stdout)["attributes"] == {
        "mode": "0600",
        "max_messages": 4,
        "max_message_size": 512,
        "buffer_size": queue.buffer_size,
        "priorities": False,
        "leases": False,
        "max_deliveries": None,
        "lifetime": "persistent",
        "options": {},
    }


def test_figures_are_those_of_the_queue(run: Run, queue: Queue) -> None:
    """Its counts, and one more handle: that of the command."""
    queue.put("x")
    figures = asdict(queue.stats())
    if figures["handles"] is not None:
        figures["handles"] += 1
    assert json.loads(run("stat", queue.name, "--json").stdout)["stats"] == figures


def test_capabilities_are_printed_by_name(run: Run, queue: Queue) -> None:
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
    """stat takes nothing."""
    queue.put("x")
    run("stat", queue.name)
    assert queue.qsize() == 1


def test_missing_queue_is_5(run: Run, name: str) -> None:
    """stat creates nothing."""
    assert run("stat", name).exit_code == 5


@pytest.mark.needs("shm")  # without it the best is mqueue, whose file system may not be mounted
def test_queue_on_the_best_backend_has_no_note(run: Run, shared: Queue) -> None:
    """There is nothing to report."""
    assert run("stat", shared.name).stderr == ""


def test_queue_on_a_backend_without_a_rank_has_no_note(run: Run, queue: Queue) -> None:
    """Somebody chose it by name."""
    assert run("stat", queue.name).stderr == ""


WHY = [
    (
        {"mode": 0o660},
        "the mode 0660 grants access to other users, and a backend on which they could damage the queue needs",
    ),
    ({}, "its creator named a backend, by an option or by IPCQ_BACKEND, or could not use the better one"),
]


@pytest.mark.needs("mqueue")
@pytest.mark.needs("shm")
@pytest.mark.parametrize(("options", "why"), WHY)
def test_queue_that_is_not_on_the_best_backend_has_a_note(
    run: Run, name: str, options: dict[str, Any], why: str
) -> None:
    """On stderr, with the reason that its attributes give."""
    best = ipcq.backends()[0].name
    with ipcq.open(name, usable("mqueue"), max_messages=4, max_message_size=512, **options):
        note = f"ipcq: queue {name!r} on backend 'mqueue': not on the better backend {best!r}: {why}"
        assert note in run("stat", name).stderr


@pytest.mark.needs("pyshm")
def test_note_has_the_capability_that_the_best_backend_lacks(
    name: str, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A capability that the better backend lacks."""
    monkeypatch.setattr(ipcq.Queue, "lifetime", "last-close")
    with ipcq.open(name, usable("pyshm"), max_messages=4, max_message_size=512) as queue:
        plain = replace(ipcq.backends()[0], name="plain", rank=999, capabilities=ipcq.Capabilities())
        others = ipcq.backends()
        monkeypatch.setattr(ipcq, "backends", lambda: [plain, *others])
        (note,) = _facts.notes_on(queue)
    assert note.endswith("it cannot remove a queue with its last handle (lifetime='last-close')")


def test_queue_that_ls_cannot_show_has_a_note(run: Run, shared: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the way out."""
    listing = ipcq.Listing()
    listing.unlisted = {shared.backend: "it is not mounted: mount it"}
    monkeypatch.setattr(ipcq, "queues", lambda: listing)
    words = f"`ipcq ls` cannot show the queues of backend {shared.backend!r}: it is not mounted: mount it"
    assert words in run("stat", shared.name).stderr
