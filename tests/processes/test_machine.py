"""The state machine and its model say what they have to about backends that no bundled one is like."""

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
    """Clause 20."""
    assert model(("put", PUT)) == ("raised", "Unsupported")


def test_a_priority_on_a_closed_handle_is_either_error() -> None:
    """Two things are wrong, and the contract does not say which is told."""
    assert model(("close", {}), ("put", PUT)) is None


def test_a_shutdown_of_what_cannot_be_is_unsupported() -> None:
    """Clause 20, unless the handle is closed."""
    assert model(("shutdown", {"immediate": False})) == ("raised", "Unsupported")
    assert model(("close", {}), ("shutdown", {"immediate": False})) is None


def test_a_peek_where_none_is_possible_is_unsupported() -> None:
    """Clause 20, unless the handle is closed."""
    assert model(("peek", {})) == ("raised", "Unsupported")
    assert model(("close", {}), ("peek", {})) is None


OPEN: dict[str, Any] = {"exclusive": False, "rights": "both", "other_limit": False, "stay": True}


def test_a_handle_that_cannot_go_on_after_an_unlink_is_unsupported() -> None:
    """Clause 20, for one that creates and for one that attaches."""
    assert model(("open", {"create": True, **OPEN})) == ("raised", "Unsupported")
    assert model(("forget", {}), ("open", {"create": True, **OPEN})) == ("raised", "Unsupported")


def test_nothing_is_created_by_who_cannot_go_on_after_an_unlink() -> None:
    """Clause 20."""
    assert model(("forget", {}), ("open", {"create": True, **OPEN}), ("exists", {})) == ("returned", False)


def test_going_on_after_an_unlink_is_not_compared_where_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two backends of which one cannot mean different things by opening so."""
    able = {"one": Capabilities(), "other": Capabilities(after_unlink=True)}
    monkeypatch.setattr(machine, "capabilities", able.__getitem__)
    assert "open" not in machine.shared("one", "other")


def test_looking_into_what_has_ended_says_so() -> None:
    """Clause 15."""
    calls = (("shutdown", {"immediate": False}), ("peek", {}))
    assert model(*calls, shutdown=True, peek=True) == ("raised", "QueueShutDown")


@pytest.mark.needs("memory")
@pytest.mark.parametrize(("persistence", "there"), [(Persistence.HOLDERS, False), (Persistence.KERNEL, True)])
def test_a_queue_that_lives_by_its_handles_goes_with_the_last_one(persistence: Persistence, there: bool) -> None:
    """Clause 5."""
    model = Model(4, Capabilities(persistence=persistence), False)
    for step in BEGINNING:
        model.call(step)
    for slot in {slot for _, slot, _ in BEGINNING}:
        model.call(("close", slot, {}))
    assert model.call(("exists", 0, {})) == ("returned", there)


def test_a_slot_without_a_handle_does_nothing() -> None:
    """On the backend as in the model."""
    step = ("get_message", 0, {})
    assert Model(4, Capabilities(), False).call(step) == NOTHING
    assert replay([step], "memory") == [NOTHING]


def test_what_travels_between_the_processes_arrives() -> None:
    """JSON has no bytes and no mappings that are told from ours."""
    value = {"a": [b"\x00\xff", None, {"bytes": 1}], "b": 0.5}
    assert machine._unpacked(machine._packed(value)) == value


def test_a_backend_that_nobody_has_is_told() -> None:
    """Whoever misspells it is told so."""
    with pytest.raises(LookupError, match="no backend is called 'nonesuch'"):
        machine.capabilities("nonesuch")


@pytest.mark.needs("memory")
def test_a_backend_that_cannot_be_used_here_is_skipped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A skip that says what is missing."""
    infos = [replace(info, usable=False, reason="no kernel") for info in ipcq.backends()]
    monkeypatch.setattr(ipcq, "backends", lambda: infos)
    with pytest.raises(unittest.SkipTest, match="cannot be used here: no kernel"):
        machine.capabilities("memory")
