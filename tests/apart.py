"""Isolates the workers of pytest-xdist from each other, so that several can run at the same time.

On Linux, root can give a process its own message queues (an IPC namespace) and its own /dev/shm, /tmp and directory of
durable queues (a mount namespace), so tests may use fixed names and check everything that exists there. Namespaces do
not separate the limits of a user: a test that reaches such a limit is marked `alone` and runs while no other test does.
"""

import ctypes
import fcntl
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEW_MOUNTS, _NEW_IPC = 0x0002_0000, 0x0800_0000  # CLONE_NEWNS, CLONE_NEWIPC: unshare(2); in os since 3.12
_PRIVATE, _RECURSIVE = 1 << 18, 1 << 14  # MS_PRIVATE, MS_REC: mount(2)
_DIRECTORIES = ("/dev/shm", "/tmp")
#: Where durable queues are by default.
STATE = Path(pwd.getpwuid(os.geteuid()).pw_dir, ".local/state/ipcq")

# A readers-writer lock and its turnstile, made of flock(2) on two files that all workers see. A test that runs alone
# keeps the turnstile, so no other test starts while it waits for the running ones.
_TURNSTILE, _RUNNING = Path(__file__), Path(__file__).with_name("conftest.py")


def move(base: Path) -> None:
    """Move this thread and its later children into new namespaces, and create the directory `base` there."""
    system = ctypes.CDLL(None, use_errno=True)
    _do(system.unshare(_NEW_MOUNTS | _NEW_IPC), "unshare")
    _do(system.mount(b"none", b"/", None, _RECURSIVE | _PRIVATE, None), "mount")
    STATE.mkdir(parents=True, exist_ok=True)
    for directory in (*_DIRECTORIES, str(STATE)):
        _do(system.mount(b"tmpfs", directory.encode(), b"tmpfs", 0, b"mode=1777"), f"mount {directory}")
    base.mkdir(parents=True, exist_ok=True)


def _do(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Run the block at the same time as other tests, or alone: wait until that is possible."""
    with _TURNSTILE.open() as turnstile, _RUNNING.open() as running:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield
