"""Calls to a queue during another call of the same thread, as signal handlers and finalisers make them."""

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import ipcq

Handle = ipcq.Queue[Any]

CAPACITY = 5


class Overtaking:
    """Call a function at the n-th point of another call where CPython may run a signal handler or a finaliser.

    CPython runs them when a Python function begins and after a C function has returned. A profiler sees both events.
    """

    def __init__(self, point: int, then: Callable[[], object]) -> None:
        self.point = point
        self.reached = False
        self._then = then
        self._count = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event not in ("call", "c_return") or argument is sys.setprofile or "ipcq" not in frame.f_code.co_filename:
            return
        if self._count == self.point:
            self.reached = True
            sys.setprofile(None)
            self._then()
        self._count += 1

    def during(self, call: Callable[[], object]) -> object:
        """Make a call, and make the other call in the middle of it."""
        sys.setprofile(self)
        try:
            return call()
        finally:
            sys.setprofile(None)


VERBS: dict[str, Callable[[Handle], list[Any]]] = {
    "put": lambda queue: [queue.put(b"outer", timeout=0)],
    "put_many": lambda queue: [queue.put_many([b"outer", b"outer"], block=False)],
    "get": lambda queue: [queue.get(timeout=0)],
    "get_many": lambda queue: queue.get_many(block=False),
}

INNER: dict[str, Callable[[Handle], list[Any]]] = {
    "put": lambda queue: [queue.put(b"inner", timeout=0)],
    "get": lambda queue: [queue.get(timeout=0)],
}


def check_everywhere(queue: Handle, outer: str, inner: str) -> None:
    """Check that a call in the middle of another, at any point, loses or duplicates nothing and exceeds no limit.

    The queue holds `CAPACITY` messages: the first three and those of the outer call. The inner call's may not fit.
    """
    point = 0
    while True:
        taken: list[Any] = []
        put = [b"first", b"second", b"third"]
        for item in put:
            queue.put(item)

        def overtake(taken: list[Any] = taken, put: list[bytes] = put) -> None:
            with suppress(ipcq.QueueFull, ipcq.QueueEmpty):
                taken += filter(None, INNER[inner](queue))
                put += [b"inner"] * (inner == "put")

        overtaking = Overtaking(point, overtake)
        with suppress(ipcq.QueueFull, ipcq.QueueEmpty):
            result = overtaking.during(lambda: VERBS[outer](queue))
            if outer.startswith("put"):
                put += [b"outer"] * (result[0] or 1)  # type: ignore[index]  # put_many returns a list
            else:
                taken += result  # type: ignore[arg-type]  # as above
        assert queue.qsize() <= CAPACITY, (outer, inner, point)
        while queue.qsize():
            taken.append(queue.get(timeout=0))
        assert Counter(taken) == Counter(put), (outer, inner, point)
        if not overtaking.reached:
            return
        point += 1
