"""One request for a notice: a thread that sleeps until a message arrives in the empty queue, and then gives it."""

import sys
import threading

from ipcq.backend import NativeThread, Notice, give_notice, is_this_thread, reraise_from_handler, too_many_threads
from ipcq.errors import QueueClosed
from ipcq_shm import _core


class Request:
    def __init__(self, ring: _core.Ring, seen: int, notice: Notice) -> None:
        self._ring = ring
        self._notice = notice
        self._withdrawn = False
        # Set when the thread has left the ring, so that the ring may be closed.
        self._out = threading.Event()
        # A daemon thread, because a pending notice must not keep the process from exiting. A native thread, because it
        # waits in the C core.
        self._thread = NativeThread(target=self._wait, args=(seen,), name="ipcq-notice", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            reraise_from_handler(error)
            ring.cancel_notice()
            raise too_many_threads() from error

    def _wait(self, seen: int) -> None:
        try:
            while not self._withdrawn and not self._ring.wait_notice(seen):
                pass
        except QueueClosed:
            pass  # a finaliser in this thread closed the handle just before
        finally:
            self._out.set()
        if not self._withdrawn:
            give_notice(self._notice)

    def withdraw(self) -> None:
        """Cancel the request if it is pending, and return when the thread has left the ring.

        While a stopped process holds the lock, the request cannot be cancelled. Even then the thread leaves within a
        time slice, and the request ends when this handle releases its slot.
        """
        if not self._out.is_set():
            self._withdrawn = True
            self._ring.cancel_notice()
            # At interpreter exit the thread leaves the ring, but never runs again to set the event.
            if not (sys.is_finalizing() or is_this_thread(self._thread)):
                self._out.wait()
