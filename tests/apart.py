"""Lets several workers of pytest-xdist run at a time: what tests make and count is each worker's own, or has its turn.

On Linux root can give a process its own message queues (an IPC namespace) and its own /dev/shm and /tmp (a mount
namespace), so that tests may use fixed names and look at everything that is there. What namespaces do not divide is a
user's limits: a test that meets one is marked as `alone`, and runs while no other test does.
"""

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEW_MOUNTS, _NEW_IPC = 0x0002_0000, 0x0800_0000  # CLONE_NEWNS, CLONE_NEWIPC: unshare(2); os has them from 3.12 on
_PRIVATE, _RECURSIVE = 1 << 18, 1 << 14  # MS_PRIVATE, MS_REC: mount(2)
_PLACES = ("/dev/shm", "/tmp")

# Locks on two files that all workers see. Who passes the gate may take the room; who wants the room alone holds the
# gate until all are out of it.
_GATE, _ROOM = Path(__file__), Path(__file__).with_name("conftest.py")


def move(base: Path) -> None:
    """Give this thread and what it starts namespaces of its own, and make the directory `base` there."""
    system = ctypes.CDLL(None, use_errno=True)
    _do(system.unshare(_NEW_MOUNTS | _NEW_IPC), "unshare")
    _do(system.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None), "mount")
    for place in _PLACES:
        _do(system.mount(b"tmpfs", place.encode(), b"tmpfs", 0, b"mode=1777"), f"mount {place}")
    base.mkdir(parents=True, exist_ok=True)


def _do(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Hold a place among the tests that run at the same time, or keep all others out."""
    with _GATE.open() as gate, _ROOM.open() as room:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(gate, fcntl.LOCK_UN)
        yield
