"""Imports that a fork cannot interrupt.

If another thread is importing a module at a fork, the child inherits that module's lock, and no thread of the child
releases it: the child hangs when it imports the module. Parts of ipcq and its plugins are imported when they are first
needed, perhaps in a thread. So a fork waits while another thread

- is inside `importing`, which surrounds each of these late imports, or
- executes a module of ipcq or of a bundled backend, as in ``import ipcq`` itself.

The wait has a limit, because the imported module may itself wait for the thread that forks.
"""

import sys
from contextlib import AbstractContextManager
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Final

from ipcq._process.gevent import NativeRLock, original
from ipcq._process.limits import shortage
from ipcq._process.signals import reraise_from_handler
from ipcq.errors import MessageQueueError

#: How long a fork waits for the imports of other threads, which take milliseconds.
_PATIENCE_SECONDS: Final = 10.0
#: How often a fork looks for modules that are being executed; also how long it waits, after one has been executed, for
#: the release of its lock.
_LOOK_SECONDS: Final = 0.001

_OURS: Final = "ipcq"

_sleep: Final = original("time", "sleep")

_lock: Any = NativeRLock()


def importing() -> AbstractContextManager[Any]:
    """Return a context manager inside which no other thread can fork.

    Use it only for imports: nothing inside may wait for another thread or process.
    """
    return _lock  # type: ignore[no-any-return]  # the lock itself: it is in C, so no signal handler can interrupt it


class _ShortageTold:
    # A class, because `contextlib` ties a cycle around an error that passes through, and that keeps what failed alive.

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        short = shortage_behind(error)
        if short is not None:
            raise short from error


_SHORTAGE_TOLD: Final = _ShortageTold()


def shortage_told() -> AbstractContextManager[None]:
    """Tell by our error that there were no descriptors or no memory left to open something, such as a module.

    It is no part of `importing`, which has to be the lock itself.

    Raises:
        LimitExceeded: No descriptors.
        NoSpace: No memory.
    """
    return _SHORTAGE_TOLD


def shortage_behind(error: BaseException | None) -> MessageQueueError | None:
    """Return what `shortage_told` raises instead of an error, if it does."""
    if not isinstance(error, OSError | ImportError) or isinstance(error, MessageQueueError):
        return None
    reraise_from_handler(error)
    return shortage(error)


def before_fork() -> None:
    until = monotonic() + _PATIENCE_SECONDS
    executed = False
    while _lock.acquire(timeout=_PATIENCE_SECONDS) and monotonic() < until:
        before, executed = executed, _is_executed_elsewhere()
        if not (before or executed):
            return
        _lock.release()  # the module may import late as well
        _sleep(_LOOK_SECONDS)


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
        _lock = NativeRLock()  # the thread that holds it is not in this process


def _is_executed_elsewhere() -> bool:
    """Tell whether another thread executes a module of ours for the first time."""
    for name, module in sys.modules.copy().items():
        # The import system asks the same to know whether it has to wait for another thread.
        if name.startswith(_OURS) and getattr(getattr(module, "__spec__", None), "_initializing", False):
            return not _is_executed_here()
    return False


def _is_executed_here() -> bool:
    """Tell whether this thread itself executes such a module: a signal handler that interrupted it forks."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "<module>" and str(frame.f_globals.get("__name__")).startswith(_OURS):
            return True
        frame = frame.f_back
    return False
