"""Imports that no fork can cut in half.

A fork copies the lock of a module that another thread is importing, and in the child nobody is left to release it: the
child's own import of that module waits for ever. Parts of ipcq and its plugins are imported when they are first needed,
perhaps in a thread. So a fork waits while another thread

- is inside `importing`, as it is in each of these late imports, or
- executes a module of ours, as in ``import ipcq`` itself.

The fork does not wait for ever, because what is imported may itself wait for the thread that forks.
"""

import os
import sys
from contextlib import AbstractContextManager
from time import monotonic
from types import FrameType
from typing import Any, Final

from ipcq._gevent import NativeRLock, original

#: Seconds that a fork waits for the imports of other threads, which take milliseconds.
_PATIENCE: Final = 10.0
#: Seconds between two looks at modules that are being executed, and from their end until their lock is released.
_AGAIN: Final = 0.001

_OURS: Final = "ipcq"

_sleep: Final = original("time", "sleep")

_lock: Any = NativeRLock()


def importing() -> AbstractContextManager[Any]:
    """Return a context manager inside which no other thread can fork.

    For imports alone: nothing inside may wait for another thread or process.
    """
    return _lock  # type: ignore[no-any-return]  # the lock itself: it is in C, so no signal handler comes between


def _before_fork() -> None:
    until = monotonic() + _PATIENCE
    executed = False
    while _lock.acquire(timeout=_PATIENCE) and monotonic() < until:
        before, executed = executed, _is_executed_elsewhere()
        if not (before or executed):
            return
        _lock.release()  # the module may import late as well
        _sleep(_AGAIN)


def _after_fork_in_parent() -> None:
    try:
        _lock.release()
    except RuntimeError:
        pass  # the wait timed out


def _after_fork_in_child() -> None:
    global _lock
    try:
        _lock.release()  # and not a new one: a signal handler may have forked in the middle of an import of its thread
    except RuntimeError:
        _lock = NativeRLock()  # the thread that holds it is not in this process


def _is_executed_elsewhere() -> bool:
    """Tell whether another thread executes a module of ours for the first time."""
    for name, module in sys.modules.copy().items():
        # What the import system itself asks to know whether it has to wait for another thread.
        if name.startswith(_OURS) and getattr(getattr(module, "__spec__", None), "_initializing", False):
            return not _is_executed_here()
    return False


def _is_executed_here() -> bool:
    """Tell whether a signal handler forks that interrupted such an import of this thread."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and str(frame.f_globals.get("__name__")).startswith(_OURS):
            return True
        frame = frame.f_back
    return False


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
