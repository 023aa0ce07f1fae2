"""Under gevent a call that waits lets other greenlets run, on every backend: programs with the real gevent say so.

Each program is `green.py`, which patches the standard library before ipcq is imported, or after that.
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
    """Return what the program saw on each backend."""
    return seen(PROGRAM, request.param, backend, NAME)


@pytest.fixture
def host(backend: str) -> str:
    """Leave out what is within one process."""
    if backend == "memory":
        pytest.skip("capabilities.scope is PROCESS on backend 'memory'")
    return backend


@pytest.mark.parametrize(("verb", "outcome"), [("get", "item"), ("put", None), ("put_many", 1)])
def test_a_call_that_waits_lets_others_run(facts: Facts, verb: str, outcome: object) -> None:
    """It is served by another greenlet of its thread."""
    assert facts["blocked"][verb] == outcome


@pytest.mark.parametrize(("verb", "error"), [("get", "QueueEmpty"), ("put", "QueueFull"), ("put_many", "QueueFull")])
def test_a_call_that_waits_keeps_its_time(facts: Facts, verb: str, error: str) -> None:
    """C10: neither early nor late, at ten times the bound of a busy machine."""
    outcome, seconds = facts["timed"][verb]
    assert outcome == error
    assert 0.3 <= seconds < 0.3 + 2.5


def test_greenlets_and_programs_share_a_queue(host: str, facts: Facts) -> None:
    """What an unrelated program puts is taken once, by one of several greenlets."""
    assert facts["apart"] == {"taken": list(range(200)), "code": 0, "rest": 1}


def test_a_greenlet_that_gives_up_has_taken_nothing(facts: Facts) -> None:
    """Killed, or timed out by gevent."""
    assert facts["given_up"] == {"rest": "kept"}


def test_a_real_thread_uses_the_handle_too(facts: Facts) -> None:
    """One of gevent's pool of threads gets what a greenlet puts."""
    assert facts["threads"] == {"thread": "from a greenlet", "left": []}


def test_a_notice_holds_nobody_up(facts: Facts) -> None:
    """It is given, and greenlets run while it is awaited."""
    assert facts["noticed"] in ({}, {"told": [True]})


def test_newcomers_get_in_while_no_greenlet_gives_way(host: str, facts: Facts) -> None:
    """What lets them in is no greenlet."""
    assert facts["met"] == {"status": 0}


def test_what_a_signal_handler_raises_comes_through(facts: Facts) -> None:
    """C12: out of the main greenlet's get."""
    assert facts["interrupted"] == {"outcome": "KeyboardInterrupt"}


def test_what_a_signal_handler_raises_at_any_instant_leaves_nothing_locked(facts: Facts) -> None:
    """C12: locks that gevent makes of the standard library's can be left behind by it."""
    assert facts["struck"] == {"greenlet": "after", "thread": "after"}


def test_a_close_ends_a_call_that_waits(facts: Facts) -> None:
    """C14: whoever closes."""
    assert facts["closed"] == {"by a greenlet": "QueueClosed", "by a handler": "QueueClosed"}


def test_without_gevent_nothing_changes(handle: "ipcq.Queue[Any]") -> None:
    """A handle waits as its channel does, and gevent is not imported for it."""
    assert handle._waits is handle._channel
