"""Noticing that a signal handler ran during a wait, for a face whose original ends the wait then.

Waits of ipcq go on after a handler has returned, as all waits of Python do. What tells that one ran is the descriptor
of `signal.set_wakeup_fd`, which is this module's while somebody waits; what came there is handed on to whoever had it
before. Python runs handlers in the main thread alone, so in another there is nothing to notice.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

#: Bytes that are read at a time; one comes for each signal.
_MANY: Final = 4096


class _Watch:
    """What all waits share that are under way: a handler may wait itself, and greenlets side by side."""

    def __init__(self) -> None:
        self.waits = 0
        self._came = 0
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def count(self) -> int:
        """Return how many signals have come."""
        if self is not _watch:  # this is a forked child, and the pipe was its parent's
            return self._came
        try:
            numbers = os.read(self._read, _MANY)
        except BlockingIOError:
            return self._came
        self._came += len(numbers)
        if self._before >= 0:
            try:
                os.write(self._before, numbers)
            except OSError:
                pass  # it is full, or closed by now: Python would go on as well
        return self._came

    def end(self) -> None:
        signal.set_wakeup_fd(self._before)
        os.close(self._read)
        os.close(self._write)


_watch: _Watch | None = None


@contextmanager
def interruptions() -> Iterator[Callable[[], bool]]:
    """Watch for signal handlers that run meanwhile; what is given tells whether one did."""
    global _watch
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    if _watch is None:
        _watch = _Watch()
    watch = _watch
    watch.waits += 1
    try:
        before = watch.count()
        yield lambda: watch.count() != before
    finally:
        watch.waits -= 1
        if not watch.waits and watch is _watch:
            watch.count()  # hands on what came
            _watch = None
            watch.end()


def _after_fork() -> None:
    # The parent reads the same pipe, and would take this process's signals for its own.
    global _watch
    if _watch is not None:
        watch, _watch = _watch, None
        watch.end()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
