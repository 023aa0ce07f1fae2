"""Under gevent a call of a face that waits lets other greenlets run: programs with the real gevent say so.

Each program is `green_queues.py`. The faces of bytes, posix_ipc and baseplate, are served in test_baseplate.
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
    """Return when the standard library is patched: before the faces are imported, or after that."""
    return str(request.param)


@pytest.mark.parametrize("kind", ALL)
def test_a_get_that_waits_lets_others_run(order: str, kind: str) -> None:
    """It is served by another greenlet of its thread."""
    assert seen(PROGRAM, order, kind)["blocked_get"] == {"got": True, "in time": True}


@pytest.mark.parametrize("kind", ["bounded Queue", "faster_fifo", "shmqueue"])
def test_a_put_that_waits_lets_others_run(order: str, kind: str) -> None:
    """It is served by another greenlet of its thread, again and again."""
    assert seen(PROGRAM, order, kind)["blocked_put"] == {"taken": 100}


def test_a_join_that_waits_lets_others_run(order: str) -> None:
    """It ends when another greenlet says that the work is done."""
    assert seen(PROGRAM, order, "JoinableQueue")["joined"] == {"joined": True}


@pytest.mark.parametrize("kind", ALL)
def test_a_greenlet_that_gives_up_has_taken_nothing(order: str, kind: str) -> None:
    """Killed, or timed out by gevent."""
    assert seen(PROGRAM, order, kind)["given_up"] == {"rest": True}


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind != "SimpleQueue"])
def test_what_a_signal_handler_raises_at_any_instant_leaves_nothing_locked(order: str, kind: str) -> None:
    """C12: locks that gevent makes of the standard library's can be left behind by it."""
    assert seen(PROGRAM, order, kind)["struck"] == {"greenlet": True, "thread": True}
