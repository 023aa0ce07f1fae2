"""Imports that a fork cannot interrupt.

If a process forks while another thread imports a module, the child inherits that module's lock and has no thread to
release it. The child then hangs when it imports the module. Parts of ipcq and its plugins are imported when first
needed, possibly in a thread. So a fork waits while another thread

- is inside `importing`, which surrounds each of these late imports, or
- executes a module of ipcq or of a bundled backend, as in ``import ipcq`` itself.

The wait has a limit, because the imported module may itself wait for the forking thread.
"""

import sys
from contextlib import AbstractContextManager
from time import monotonic
from types import FrameType
from typing import Any, Final

from ipcq._process.gevent import NativeRLock, original
from ipcq._process.limits import shortage
from ipcq._process.signals import translating

#: The longest time that a fork waits for the imports of other threads, which normally take milliseconds.
_TIMEOUT_SECONDS: Final = 10.0
#: The interval at which a fork looks for modules in execution. It also waits this long after the last one, until the
#: module's lock is released.
_POLL_SECONDS: Final = 0.001

_OURS: Final = "ipcq"

_sleep: Final = original("time", "sleep")

_lock: Any = NativeRLock()


def importing() -> AbstractContextManager[Any]:
    """Return a context manager inside which no other thread can fork.

    Use it only for imports: nothing inside may wait for another thread or process.
    """
    return _lock  # type: ignore[no-any-return]  # the lock itself: it is in C, so a signal handler cannot interrupt it


_SHORTAGE_REPORTED: Final = translating((OSError, ImportError), shortage)


def shortage_reported() -> AbstractContextManager[None]:
    """Return a context manager that replaces an `OSError` or `ImportError` from a lack of resources by our error.

    It is not part of `importing`, which must be the lock itself.

    Raises:
        LimitExceeded: No free descriptors.
        NoSpace: No free memory.
    """
    return _SHORTAGE_REPORTED


#: Returns the error that `shortage_reported` raises instead of this one, or None.
shortage_behind: Final = _SHORTAGE_REPORTED.meaning


def before_fork() -> None:
    until = monotonic() + _TIMEOUT_SECONDS
    executed = False
    while _lock.acquire(timeout=_TIMEOUT_SECONDS) and monotonic() < until:
        before, executed = executed, _is_executed_elsewhere()
        if not (before or executed):
            return
        _lock.release()  # the module may need it for its own late imports
        _sleep(_POLL_SECONDS)


def after_fork_in_parent() -> None:
    try:
        _lock.release()
    except RuntimeError:
        pass  # the wait timed out


def after_fork_in_child() -> None:
    global _lock
    try:
        _lock.release()  # not a new lock: a signal handler may have forked during an import of its own thread
    except RuntimeError:
        _lock = NativeRLock()  # the thread that holds it does not exist in the child


def _is_executed_elsewhere() -> bool:
    """Return whether another thread is executing the code of one of our modules."""
    for name, module in sys.modules.copy().items():
        # The import system uses the same attribute to decide whether to wait for another thread.
        if name.startswith(_OURS) and getattr(getattr(module, "__spec__", None), "_initializing", False):
            return not _is_executed_here()
    return False


def _is_executed_here() -> bool:
    """Return whether this thread itself is executing it, interrupted by a signal handler that forks."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and str(frame.f_globals.get("__name__")).startswith(_OURS):
            return True
        frame = frame.f_back
    return False
