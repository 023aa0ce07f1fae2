"""Noticing that a signal handler ran during a wait, for a face whose original ends the wait then.

Waits of ipcq go on after a handler has returned, as all waits of Python do. What tells that one ran is the descriptor
of `signal.set_wakeup_fd`, which is this module's while somebody waits; what came there is handed on to whoever had it
before. Python runs handlers in the main thread alone, so in another there is nothing to notice.

The pipe behind it is made for the first wait and kept: making one takes as long as most waits last.
"""

import os
import signal
import threading
from typing import Final

from ipcq._process.forks import Step, at_fork

#: Bytes that are read at a time; one comes for each signal.
_MANY: Final = 4096

#: What `watch` returns in a thread that has no need to.
UNWATCHED: Final = -1

# The ends to read and to write, once there was a wait.
_pipe: tuple[int, int] | None = None
# Waits under way: a handler may wait itself, and greenlets side by side.
_waits = 0
# Whose descriptor was set when the first of them began.
_before = -1
# How many signals have come.
_came = 0


def watch() -> int:
    """Begin to watch for signal handlers, and return what `interrupted` and `unwatch` want to know."""
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
    """Tell whether a signal handler ran since."""
    return mark != UNWATCHED and _count() != mark


def unwatch(mark: int) -> None:
    """End to watch."""
    global _waits
    if mark == UNWATCHED or not _waits:  # or this is a forked child, which does not watch any more
        return
    _waits -= 1
    if not _waits:
        signal.set_wakeup_fd(_before)
        if _before != -1:
            _count()


def _count() -> int:
    global _came
    if _pipe is None:
        return _came
    try:
        numbers = os.read(_pipe[0], _MANY)
    except BlockingIOError:
        return _came
    _came += len(numbers)
    if _before != -1:
        try:
            os.write(_before, numbers)
        except OSError:
            pass  # it is full, or closed by now: Python would go on as well
    return _came


def _after_fork() -> None:
    # The parent reads the same pipe, and would take this process's signals for its own.
    global _pipe, _waits
    if _waits:
        signal.set_wakeup_fd(_before)
        _waits = 0
    if _pipe is not None:
        os.close(_pipe[0])
        os.close(_pipe[1])
        _pipe = None


at_fork(Step.OTHERS, after_in_child=_after_fork)
