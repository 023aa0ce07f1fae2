"""Under gevent, a call that waits lets other greenlets run, on every backend: shown by programs with the real gevent.

The program is `green.py`, which patches the standard library before or after it imports ipcq.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

import ipcq
from greenlets import Facts, seen
from ipcq.testing.processes import fresh_name

if sys.platform != "linux":
    pytest.skip("peers are installed on Linux alone", allow_module_level=True)

PROGRAM = Path(__file__).with_name("green.py")
NAME = fresh_name()


@pytest.fixture(params=["early", "late"])
def facts(request: pytest.FixtureRequest, backend: str) -> Facts:
    """Return the program's observations on each backend."""
    return seen(PROGRAM, request.param, backend, NAME)


@pytest.fixture
def host(backend: str) -> str:
    """Return each backend that works between processes."""
    if backend == "memory":
        pytest.skip("capabilities.scope is PROCESS on backend 'memory'")
    return backend


@pytest.mark.parametrize(("verb", "outcome"), [("get", "item"), ("put", None), ("put_many", 1)])
def test_a_call_that_waits_lets_others_run(facts: Facts, verb: str, outcome: object) -> None:
    """Another greenlet of its thread serves it."""
    assert facts["blocked"][verb] == outcome


@pytest.mark.parametrize(("verb", "error"), [("get", "QueueEmpty"), ("put", "QueueFull"), ("put_many", "QueueFull")])
def test_a_call_that_waits_ends_at_its_timeout(facts: Facts, verb: str, error: str) -> None:
    """C10: not early, and not late by more than ten times the bound on a busy machine."""
    outcome, seconds = facts["timed"][verb]
    assert outcome == error
    assert 0.3 <= seconds < 0.3 + 2.5


def test_greenlets_and_programs_share_a_queue(host: str, facts: Facts) -> None:
    """Each message of an unrelated program is taken once, by one of several greenlets."""
    assert facts["apart"] == {"taken": list(range(200)), "code": 0, "rest": 1}


def test_a_greenlet_that_gives_up_has_taken_nothing(facts: Facts) -> None:
    """It may be killed or timed out by gevent."""
    assert facts["given_up"] == {"rest": "kept"}


def test_a_native_thread_can_use_the_handle_too(facts: Facts) -> None:
    """A thread of gevent's pool gets the item of a greenlet."""
    assert facts["threads"] == {"thread": "from a greenlet", "left": []}


def test_waiting_for_a_notice_does_not_block_greenlets(facts: Facts) -> None:
    """The notice is given, and greenlets run before it."""
    assert facts["noticed"] in ({}, {"told": [True]})


def test_processes_can_attach_while_no_greenlet_switches(host: str, facts: Facts) -> None:
    """A native thread serves them."""
    assert facts["met"] == {"status": 0}


def test_an_exception_of_a_signal_handler_passes_through(facts: Facts) -> None:
    """C12: it leaves the get of the main greenlet."""
    assert facts["interrupted"] == {"outcome": "KeyboardInterrupt"}


def test_an_exception_of_a_signal_handler_at_any_instant_leaves_no_lock_taken(facts: Facts) -> None:
    """C12: with locks that gevent has patched, this could happen."""
    assert facts["struck"] == {"greenlet": "after", "thread": "after"}


def test_a_close_ends_a_call_that_waits(facts: Facts) -> None:
    """C14: a greenlet or a signal handler may close."""
    assert facts["closed"] == {"by a greenlet": "QueueClosed", "by a handler": "QueueClosed"}


def test_without_gevent_nothing_changes(handle: "ipcq.Queue[Any]") -> None:
    """The channel itself waits."""
    assert handle._waits is handle._channel
