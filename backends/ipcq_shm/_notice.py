"""One request for a notice: a thread that sleeps until a message comes into the empty queue, and then tells."""

import errno
import os
import threading
from typing import Final

from ipcq.backend import NativeThread, Notice
from ipcq.errors import LimitExceeded
from ipcq_shm import _core

# Seconds in which a thread that is told leaves the ring, unless its process is held up just then.
_PATIENCE: Final = 1.0


class Request:
    def __init__(self, ring: _core.Ring, seen: int, notice: Notice) -> None:
        self._ring = ring
        self._notice = notice
        self._withdrawn = False
        # The thread has left the ring, which may be closed then.
        self._out = threading.Event()
        # A daemon: a notice that does not come must not keep the process from ending. And the system's thread: it waits
        # in the C core.
        NativeThread(target=self._wait, args=(seen,), name="ipcq-notice", daemon=True).start()

    def _wait(self, seen: int) -> None:
        try:
            while not self._ring.wait_notice(seen):
                pass
        finally:
            self._out.set()
        if self._withdrawn:
            return
        if isinstance(self._notice, int):
            os.kill(os.getpid(), self._notice)
        else:
            self._notice()

    def withdraw(self) -> None:
        """Take the request back, if it still stands, and keep the thread from using the ring any more."""
        if not self._out.is_set():
            self._withdrawn = True
            self._ring.cancel_notice()
            self._out.wait(_PATIENCE)


def taken() -> LimitExceeded:
    return LimitExceeded(
        limit="registrants for notice on this queue",
        value=1,
        asked=2,
        remedy="wait until the other was told, or let it take its request back",
        errno=errno.EBUSY,  # as mq_notify(3) has it
    )
