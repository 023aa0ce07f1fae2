"""Which calls of a handle the current thread is inside of.

Usually none or one. In a signal handler or a finaliser that interrupted a call of the same thread it is one more, and
then waiting for that call to end would be waiting for ever.
"""

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_counted: set[CodeType] = set()


def counted(method: Callable[P, R]) -> Callable[P, R]:
    """Mark a method as one whose calls count."""
    _counted.add(method.__code__)
    return method


def calls_of_this_thread(handle: object) -> int:
    """Count the marked calls on `handle` that are on this thread's stack.

    Looking at the stack takes microseconds where a handle is closed or a process forks, and spares every put and get
    the bookkeeping. The handle's counter could hold thread ids instead. But then a call that ends would have to remove
    its own id, not the newest, which costs more than twice what counting does. And greenlets that share a thread, and
    do wait for one another, would count as one.
    """
    count = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code in _counted and frame.f_locals.get("self") is handle:
            count += 1
        frame = frame.f_back
    return count
