"""Blocking calls in anyio's worker threads.

They have a limit of their own: while a server is away, they must not take the threads of the program's other calls.
"""

import threading
from collections.abc import Callable
from typing import Final, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from ipcq._process.deadline import abandonment
from ipcq._process.limits import too_many_threads

R = TypeVar("R")

#: The most calls of ipcq in threads at a time, for each event loop; further calls await their turn.
_MOST_THREADS: Final = 40

_limiters: RunVar[CapacityLimiter] = RunVar("ipcq limiter")


def _limiter() -> CapacityLimiter:
    """Return the limiter of the running event loop."""
    try:
        return _limiters.get()
    except LookupError:
        limiter = CapacityLimiter(_MOST_THREADS)
        _limiters.set(limiter)
        return limiter


async def run_in_thread(call: Callable[[], R], undo: Callable[[R], object]) -> R:
    """Run a call in a thread; if the task is cancelled, the thread ends soon, and `undo` is called with its result.

    A cancelled task continues at once, and the call in the thread ends at its next `pause`.

    Raises:
        LimitExceeded: The system cannot start a thread.
    """
    abandoned, started = threading.Event(), threading.Event()
    results: list[R] = []
    lock = threading.Lock()

    def run() -> None:
        started.set()
        abandonment.set(abandoned)  # in the thread's copy of the context
        result = call()
        with lock:
            if not abandoned.is_set():
                results.append(result)
                return
        undo(result)

    try:
        await to_thread.run_sync(run, abandon_on_cancel=True, limiter=_limiter())
    except BaseException as error:
        with lock:
            abandoned.set()
        for result in results:  # the call returned at the same moment
            undo(result)
        if isinstance(error, RuntimeError) and not started.is_set():
            raise too_many_threads() from error
        raise
    return results[0]


def nothing(_: object) -> None:
    """Undo nothing."""
