"""Calls that may block, in threads of anyio's."""

import threading
from collections.abc import Callable
from typing import TypeVar

from anyio import to_thread

from ipcq._process.deadline import abandonment
from ipcq._process.limits import too_many_threads

R = TypeVar("R")


async def run_apart(call: Callable[[], R], undo: Callable[[R], object]) -> R:
    """Run a call in a thread; if it is given up, the thread ends soon, and what the call returned is undone.

    The call may be given up at any time: at once for who awaits it, and in the thread where it next pauses.

    Raises:
        LimitExceeded: The system starts no thread.
    """
    given_up, begun = threading.Event(), threading.Event()
    outcome: list[R] = []
    turn = threading.Lock()

    def run() -> None:
        begun.set()
        abandonment.set(given_up)  # in the thread's copy of the context
        result = call()
        with turn:
            if not given_up.is_set():
                outcome.append(result)
                return
        undo(result)

    try:
        await to_thread.run_sync(run, abandon_on_cancel=True)
    except BaseException as error:
        with turn:
            given_up.set()
        for result in outcome:  # it came in the very instant
            undo(result)
        if isinstance(error, RuntimeError) and not begun.is_set():
            raise too_many_threads() from error
        raise
    return outcome[0]
