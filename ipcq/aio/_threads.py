"""Blocking calls in anyio's worker threads."""

import threading
from collections.abc import Callable
from typing import TypeVar

from anyio import to_thread

from ipcq._process.deadline import abandonment
from ipcq._process.limits import too_many_threads

R = TypeVar("R")


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
        await to_thread.run_sync(run, abandon_on_cancel=True)
    except BaseException as error:
        with lock:
            abandoned.set()
        for result in results:  # the call returned at the same moment
            undo(result)
        if isinstance(error, RuntimeError) and not started.is_set():
            raise too_many_threads() from error
        raise
    return results[0]
