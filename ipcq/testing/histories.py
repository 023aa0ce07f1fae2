"""Short histories of calls that do not wait, with what was full and what was empty, checked exhaustively.

`ipcq.testing.judge` checks millions of calls by four rules, which say nothing about a queue that is full. Here every
order is tried in which the calls of a history may have taken effect, each at some instant between its begin and its
return, until one is that of a FIFO queue: the algorithm of Wing and Gong, "Testing and verifying concurrent objects"
(1993), with the memory of Lowe, "Testing for linearizability" (2017), for what has been tried already. It is for some
hundreds of calls.
"""

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any, Final, Literal, NamedTuple

import ipcq
from ipcq.testing.processes import hear, say

__all__ = ("Call", "linearizable", "record")

#: What a put gives that finds the queue full, and a get that finds it empty.
REFUSED: Final = None


class Call(NamedTuple):
    """One call and what came of it."""

    verb: Literal["put", "get"]
    value: int | None
    """What was put or taken; None: the queue was full, or empty."""
    begun: int
    """When, on `time.monotonic_ns`."""
    returned: int


def linearizable(history: Iterable[Call], capacity: float = math.inf) -> bool:
    """Tell whether a FIFO queue, empty at first, can have given this.

    Args:
        history: The calls, in any order.
        capacity: In messages.
    """
    calls = sorted(history, key=lambda call: call.begun)
    everything = (1 << len(calls)) - 1
    # What has taken effect, one bit for each call, and what is then in the queue.
    start: tuple[int, tuple[int, ...]] = (0, ())
    seen = {start}
    open_ends = [start]
    while open_ends:
        done, content = open_ends.pop()
        if done == everything:
            return True
        earliest: float = math.inf
        # The first that is not done.
        for place in range((~done & (done + 1)).bit_length() - 1, len(calls)):
            if done >> place & 1:
                continue
            call = calls[place]
            if call.begun > earliest:
                break  # one that is not done had returned before this began, and so all that follow
            earliest = min(earliest, call.returned)
            after = _after(call, content, capacity)
            if after is not None and (end := (done | 1 << place, after)) not in seen:
                seen.add(end)
                open_ends.append(end)
    return False


def _after(call: Call, content: tuple[int, ...], capacity: float) -> tuple[int, ...] | None:
    """Return what is in a queue after a call, or None where a queue cannot have given this."""
    if call.verb == "put":
        if call.value is None:
            return content if len(content) >= capacity else None
        return (*content, call.value) if len(content) < capacity else None
    if call.value is None:
        return None if content else content
    return content[1:] if content[:1] == (call.value,) else None


def record(opener: Callable[..., Any], arguments: Sequence[Any], number: int) -> None:
    """Be a process that puts and gets without waiting, as often and at the instant that the test says, and tells all.

    It hears a pair, how many calls and when to begin, again and again until None, and says the list of its calls.
    """
    dice = random.Random(number)
    value = number << 32  # every process has its own
    with closing(opener(*arguments)) as handle:
        say("ready")
        while (order := hear()) is not None:
            count, start = order
            calls: list[tuple[str, int | None, int, int]] = []
            while time.monotonic() < start:
                pass
            for _ in range(count):
                found: int | None
                begun = time.monotonic_ns()
                if dice.random() < 0.5:
                    verb, value = "put", value + 1
                    try:
                        handle.put(value, timeout=0)
                        found = value
                    except ipcq.QueueFull:
                        found = REFUSED
                else:
                    verb = "get"
                    try:
                        found = handle.get(timeout=0)
                    except ipcq.QueueEmpty:
                        found = REFUSED
                calls.append((verb, found, begun, time.monotonic_ns()))
            say(calls)
