"""Detection of signal handlers that ran during a wait, for libraries whose waits end when a handler returns.

Waits of ipcq continue after a handler, as all waits of Python do. This module detects handlers by the descriptor of
`signal.set_wakeup_fd`, which it replaces during a wait. It forwards all bytes to the previous descriptor. Python runs
handlers only in the main thread, so other threads watch nothing.

The pipe is created for the first wait and kept, because creating one takes as long as most waits last.
"""

import os
import signal
import threading
from typing import Final

from ipcq._process.forks import Step, at_fork

#: Bytes to read per call; each signal writes one.
_READ_BYTES: Final = 4096

#: Returned by `watch` in threads that run no handlers.
UNWATCHED: Final = -1

# The read end and the write end, created for the first wait.
_pipe: tuple[int, int] | None = None
# Number of waits now: a handler may wait itself, and several greenlets may wait at once.
_waits = 0
# The descriptor that was set before the first of these waits.
_before = -1
# Number of signals so far.
_signals = 0


def watch() -> int:
    """Start to watch for signal handlers, and return a mark for `interrupted` and `unwatch`."""
    global _pipe, _waits, _before
    if threading.get_ident() != threading.main_thread().ident:
        return UNWATCHED
    if _pipe is None:
        _pipe = os.pipe()
        os.set_blocking(_pipe[0], False)
        os.set_blocking(_pipe[1], False)
    _waits += 1
    if _waits == 1:
        _before = signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    return _count()


def interrupted(mark: int) -> bool:
    """Return whether a signal handler has run since `watch` returned the mark."""
    return mark != UNWATCHED and _count() != mark


def unwatch(mark: int) -> None:
    """Stop watching."""
    global _waits
    if mark == UNWATCHED or not _waits:  # a forked child has stopped watching
        return
    _waits -= 1
    if not _waits:
        signal.set_wakeup_fd(_before)
        if _before != -1:
            _count()


def _count() -> int:
    global _signals
    if _pipe is None:
        return _signals
    try:
        numbers = os.read(_pipe[0], _READ_BYTES)
    except BlockingIOError:
        return _signals
    _signals += len(numbers)
    if _before != -1:
        try:
            os.write(_before, numbers)
        except OSError:
            pass  # full, or closed by now: Python ignores that too
    return _signals


def _after_fork() -> None:
    # The parent reads the same pipe and would count this process's signals as its own.
    global _pipe, _waits
    if _waits:
        signal.set_wakeup_fd(_before)
        _waits = 0
    if _pipe is not None:
        os.close(_pipe[0])
        os.close(_pipe[1])
        _pipe = None


at_fork(Step.OTHERS, after_in_child=_after_fork)
