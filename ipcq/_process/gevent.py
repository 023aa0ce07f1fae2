"""Whether and what gevent has patched in this process; nothing here imports gevent."""

import sys
import threading
from importlib import import_module
from typing import Any, Final


def has_patched(module: str) -> bool:
    """Return whether gevent has patched a module of the standard library."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched(module))


def original(module: str, attribute: str) -> Any:
    """Return an attribute of a standard library module as it was before gevent patched it, if it did."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(import_module(module), attribute)
    return monkey.get_original(module, attribute)


#: A reentrant lock of native threads. Hold it briefly and wait for nothing inside, because a greenlet that waits for it
#: blocks its whole thread. It is written in C, so an exception from a signal handler cannot leave it half taken;
#: gevent's replacement is written in Python, and such an exception can leave it locked.
NativeRLock: Final = original("_thread", "RLock")


def is_in_hub() -> bool:
    """Return whether this code runs in gevent's hub, where a signal handler or finaliser can run, but must not wait."""
    if not has_patched("time"):
        return False
    gevent: Any = sys.modules["gevent"]
    return gevent.getcurrent() is gevent.get_hub()


class NativeThread(threading.Thread):
    """A native thread, even if gevent has replaced threads with greenlets.

    For work that blocks its thread, or must continue while the event loop is busy. Its `ident` is the native one.
    """

    _over: Any = None

    def start(self) -> None:
        """Start the thread.

        Raises:
            RuntimeError: The system cannot start a thread.
        """
        if not has_patched("threading"):
            super().start()
            return
        self._over = original("_thread", "allocate_lock")()
        self._over.acquire()
        original("_thread", "start_new_thread")(self._run_natively, ())

    def _run_natively(self) -> None:  # pragma: no cover - coverage sees no thread that `threading` did not start
        self._ident = original("_thread", "get_ident")()
        try:
            self.run()
        finally:
            self._over.release()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the thread to end, for at most `timeout` seconds."""
        if self._over is None:
            super().join(timeout)
        elif self._over.acquire(timeout=-1 if timeout is None else timeout):
            self._over.release()


def is_this_thread(thread: threading.Thread) -> bool:
    """Return whether the caller runs in this native thread."""
    return bool(thread.ident == original("_thread", "get_ident")())
