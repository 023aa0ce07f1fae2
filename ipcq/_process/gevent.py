"""What gevent has done to this process, if it is there at all: nothing here imports it."""

import sys
import threading
from importlib import import_module
from typing import Any, Final


def has_patched(module: str) -> bool:
    """Tell whether gevent has made a module of the standard library cooperative."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched(module))


def original(module: str, attribute: str) -> Any:
    """Return what the standard library has under that name, also where gevent put something else there, or nothing."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(import_module(module), attribute)
    return monkey.get_original(module, attribute)


#: A lock of the system's threads that its own thread can take again, for what is short and waits for nothing inside,
#: so that no greenlet is held up by another. The standard library's is one in C, which is taken or is not, whatever a
#: signal handler raises meanwhile; what gevent makes of it is written in Python and can be left locked by that.
NativeRLock: Final = original("_thread", "RLock")


def is_in_hub() -> bool:
    """Tell whether this is gevent's hub, where nothing may wait: a signal handler or a finaliser may run there."""
    if not has_patched("time"):
        return False
    gevent: Any = sys.modules["gevent"]
    return gevent.getcurrent() is gevent.get_hub()


class NativeThread(threading.Thread):
    """A thread of the system's, also where gevent makes greenlets of threads.

    For what blocks in a way that no greenlet may, or has to go on while the event loop is busy. Its `ident` is the
    system's.
    """

    _over: Any = None

    def start(self) -> None:
        """Start it.

        Raises:
            RuntimeError: The system gives no thread.
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
        """Wait for its end, in seconds at the most."""
        if self._over is None:
            super().join(timeout)
        elif self._over.acquire(timeout=-1 if timeout is None else timeout):
            self._over.release()


def is_this_thread(thread: threading.Thread) -> bool:
    """Tell whether that is the system's thread that asks."""
    return bool(thread.ident == original("_thread", "get_ident")())
