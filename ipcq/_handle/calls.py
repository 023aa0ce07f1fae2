"""The calls on a handle that the current thread is inside.

Usually zero or one. A signal handler or a finaliser that interrupts a call of its own thread adds one. It must not wait
for the interrupted call to end, because it would deadlock.
"""

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_counted: set[CodeType] = set()


def counted(method: Callable[P, R]) -> Callable[P, R]:
    """Mark a method, so that `calls_of_this_thread` counts its calls."""
    _counted.add(method.__code__)
    return method


def calls_of_this_thread(handle: object) -> int:
    """Count the marked calls on `handle` that are on this thread's stack.

    Walking the stack costs microseconds at each close and fork, and saves the bookkeeping in every put and get. The
    handle's counter could hold thread ids instead. But then each call would have to remove its own id at its end, not
    the newest, which costs more than twice as much as counting. And all greenlets of a thread would count as one,
    although they must wait for one another.
    """
    count = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _counted and frame.f_locals.get("self") is handle:
            count += 1
        frame = frame.f_back
    return count
