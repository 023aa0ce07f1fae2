"""The state machine and its model, on backends unlike any bundled one."""

import unittest
from dataclasses import replace
from typing import Any

import pytest

import ipcq
from ipcq.backend import Capabilities, Persistence
from ipcq.testing import machine
from ipcq.testing.machine import BEGINNING, replay
from ipcq.testing.model import NOTHING, Model, Outcome


def model(*calls: tuple[str, dict[str, Any]], priorities: bool = False, **able: Any) -> Outcome | None:
    """Return what the last of these calls gives in the first slot."""
    model = Model(4, Capabilities(**able), priorities)
    for step in BEGINNING:
        model.call(step)
    return [model.call((call, 0, arguments)) for call, arguments in calls][-1]


PUT: dict[str, Any] = {"item": 1, "priority": 5}


def test_a_priority_without_priorities_is_unsupported() -> None:
    """Clause 20: Unsupported."""
    assert model(("put", PUT)) == ("raised", "Unsupported")


def test_a_priority_on_a_closed_handle_is_either_error() -> None:
    """Two things are wrong, and the contract does not say which error is raised."""
    assert model(("close", {}), ("put", PUT)) is None


def test_a_shutdown_that_the_backend_lacks_is_unsupported() -> None:
    """Clause 20, unless the handle is closed."""
    assert model(("shutdown", {"immediate": False})) == ("raised", "Unsupported")
    assert model(("close", {}), ("shutdown", {"immediate": False})) is None


def test_a_peek_that_the_backend_lacks_is_unsupported() -> None:
    """Clause 20, unless the handle is closed."""
    assert model(("peek", {})) == ("raised", "Unsupported")
    assert model(("close", {}), ("peek", {})) is None


OPEN: dict[str, Any] = {"exclusive": False, "rights": "both", "other_limit": False, "stay": True}


def test_a_handle_that_cannot_continue_after_an_unlink_is_unsupported() -> None:
    """Clause 20, for a handle that creates and for one that attaches."""
    assert model(("open", {"create": True, **OPEN})) == ("raised", "Unsupported")
    assert model(("forget", {}), ("open", {"create": True, **OPEN})) == ("raised", "Unsupported")


def test_an_open_that_cannot_continue_after_an_unlink_creates_nothing() -> None:
    """Clause 20: the refused open creates no queue."""
    assert model(("forget", {}), ("open", {"create": True, **OPEN}), ("exists", {})) == ("returned", False)


def test_continuing_after_an_unlink_is_not_compared_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """If only one of two backends supports it, the same open means different things."""
    able = {"one": Capabilities(), "other": Capabilities(after_unlink=True)}
    monkeypatch.setattr(machine, "capabilities", able.__getitem__)
    assert "open" not in machine.shared("one", "other")


@pytest.mark.parametrize("places", [False, True])
def test_a_closed_handle_knows_its_queue_only_where_queues_have_incarnations(places: bool) -> None:
    """Otherwise its unlink removes a newer queue of the same name."""
    able = Model(4, Capabilities(places=places), False)
    for call, slot in (("renew", 0), ("renew", 1), ("close", 0), ("unlink", 1), ("renew", 1), ("unlink", 0)):
        assert able.call((call, slot, {})) == ("returned", None)
    assert able.call(("exists", 0, {})) == ("returned", places)


def test_unlinking_is_not_compared_where_closed_handles_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only unlinking by name."""
    able = {"one": Capabilities(places=False), "other": Capabilities(places=True)}
    monkeypatch.setattr(machine, "capabilities", able.__getitem__)
    assert "unlink" not in machine.shared("one", "other")


def test_peeking_into_a_queue_that_is_shut_down_raises_that() -> None:
    """Clause 15: peek raises QueueShutDown."""
    calls = (("shutdown", {"immediate": False}), ("peek", {}))
    assert model(*calls, shutdown=True, peek=True) == ("raised", "QueueShutDown")


@pytest.mark.needs("memory")
@pytest.mark.parametrize(("persistence", "there"), [(Persistence.HOLDERS, False), (Persistence.KERNEL, True)])
def test_a_queue_without_persistence_ends_with_its_last_handle(persistence: Persistence, there: bool) -> None:
    """Clause 5: with its last handle."""
    model = Model(4, Capabilities(persistence=persistence), False)
    for step in BEGINNING:
        model.call(step)
    for slot in {slot for _, slot, _ in BEGINNING}:
        model.call(("close", slot, {}))
    assert model.call(("exists", 0, {})) == ("returned", there)


def test_a_lease_whose_message_was_dropped_is_lost() -> None:
    """Clause 27: by a shutdown that drops what is leased."""
    calls = ("put", {"item": 1, "priority": 0}), ("lease", {}), ("shutdown", {"immediate": True})
    assert model(*calls, ("settle", {"which": 0, "how": "ack"}), shutdown=True) == ("raised", "LeaseLost")


@pytest.mark.needs("memory")
def test_a_dead_letter_becomes_ready_again_as_the_model_says() -> None:
    """Clause 32: unless the queue is shut down."""
    put = ("put", {"item": 1, "priority": 0})
    dead = put, ("lease", {}), ("settle", {"which": 0, "how": "reject"})
    calls = *dead, ("requeue", {"most": 2}), ("get", {"timeout": 0})
    assert model(*calls[:-1], leases=True) == ("returned", 1)
    assert model(*calls, leases=True) == ("returned", 1)
    shut = *dead, ("shutdown", {"immediate": False}), ("requeue", {"most": 2})
    assert model(*shut, leases=True, shutdown=True) == ("raised", "QueueShutDown")
    for each in (calls, shut):
        trace = [("renew", 0, {}), *((call, 0, arguments) for call, arguments in each)]
        outcome = replay(trace, "memory", {**machine.LeaseMachine.options, "leases": True})[-1]
        assert outcome == model(*each, leases=True, shutdown=True)


@pytest.mark.needs("memory")
def test_a_dead_letter_is_taken_as_the_model_says() -> None:
    """Its item is not compared: it may be one that cannot be decoded."""
    put = ("put", {"item": 1, "priority": 0})
    calls = put, ("lease", {}), ("settle", {"which": 0, "how": "reject"}), ("get_dead", {}), ("get_dead", {})
    letter = model(*calls[:-1], leases=True)
    assert letter == ("returned", [0, 1])
    assert model(*calls, leases=True) == ("raised", "QueueEmpty")
    trace = [("renew", 0, {}), *((call, 0, arguments) for call, arguments in calls)]
    assert replay(trace, "memory", {**machine.LeaseMachine.options, "leases": True})[-2:] == [
        letter,
        ("raised", "QueueEmpty"),
    ]


@pytest.mark.parametrize(("how", "counts"), [("delay", [0, 0, 1, 0]), ("fail", [1, 0, 0, 0])])
def test_a_job_that_is_given_back_is_ready_or_delayed(how: str, counts: list[int]) -> None:
    """The model counts the messages that are ready, leased, delayed, and dead."""
    calls = ("put", {"item": 1, "priority": 0}), ("lease", {}), ("settle", {"which": 0, "how": how}), ("count", {})
    assert model(*calls, leases=True) == ("returned", counts)


def test_a_slot_without_a_handle_does_nothing() -> None:
    """On the backend as in the model."""
    step = ("get_message", 0, {})
    assert Model(4, Capabilities(), False).call(step) == NOTHING
    assert replay([step], "memory") == [NOTHING]


def test_values_are_unchanged_between_the_processes() -> None:
    """JSON has no bytes, and a mapping must not be mistaken for encoded bytes."""
    value = {"a": [b"\x00\xff", None, {"bytes": 1}], "b": 0.5}
    assert machine._unpacked(machine._packed(value)) == value


def test_an_unknown_backend_is_an_error() -> None:
    """The error names the misspelt backend."""
    with pytest.raises(LookupError, match="no backend is called 'nonesuch'"):
        machine.capabilities("nonesuch")


@pytest.mark.needs("memory")
def test_a_backend_that_cannot_be_used_here_is_skipped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The skip names what is missing."""
    infos = [replace(info, usable=False, reason="no kernel") for info in ipcq.backends()]
    monkeypatch.setattr(ipcq, "backends", lambda: infos)
    with pytest.raises(unittest.SkipTest, match="cannot be used here: no kernel"):
        machine.capabilities("memory")
