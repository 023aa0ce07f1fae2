"""Under gevent, a waiting call of a compatibility module lets other greenlets run, shown with the real gevent.

The program is `green_queues.py`. test_baseplate covers the modules for bytes, posix_ipc and baseplate.
"""

import sys
from pathlib import Path

import pytest

from greenlets import seen

if sys.platform != "linux":
    pytest.skip("peers are installed on Linux alone", allow_module_level=True)

PROGRAM = Path(__file__).with_name("green_queues.py")

ALL = ("Queue", "bounded Queue", "JoinableQueue", "SimpleQueue", "faster_fifo", "shmqueue")


@pytest.fixture(params=["early", "late"])
def order(request: pytest.FixtureRequest) -> str:
    """Return when the standard library is patched: early or late, before or after ipcq is imported."""
    return str(request.param)


@pytest.mark.parametrize("kind", ALL)
def test_a_get_that_waits_lets_others_run(order: str, kind: str) -> None:
    """Another greenlet of its thread serves it."""
    assert seen(PROGRAM, order, kind)["blocked_get"] == {"got": True, "in time": True}


@pytest.mark.parametrize("kind", ["bounded Queue", "faster_fifo", "shmqueue"])
def test_a_put_that_waits_lets_others_run(order: str, kind: str) -> None:
    """Another greenlet of its thread serves it, again and again."""
    assert seen(PROGRAM, order, kind)["blocked_put"] == {"taken": 100}


def test_a_join_that_waits_lets_others_run(order: str) -> None:
    """It ends when another greenlet calls `task_done`."""
    assert seen(PROGRAM, order, "JoinableQueue")["joined"] == {"joined": True}


@pytest.mark.parametrize("kind", ALL)
def test_a_greenlet_that_gives_up_has_taken_nothing(order: str, kind: str) -> None:
    """It may be killed or timed out by gevent."""
    assert seen(PROGRAM, order, kind)["given_up"] == {"rest": True}


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind != "SimpleQueue"])
def test_an_exception_of_a_signal_handler_at_any_instant_leaves_no_lock_taken(order: str, kind: str) -> None:
    """C12: with locks that gevent has patched, this could happen."""
    assert seen(PROGRAM, order, kind)["struck"] == {"greenlet": True, "thread": True}
