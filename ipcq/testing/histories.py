"""Exhaustive check of short histories of non-waiting calls, including refusals by a full or an empty queue.

`ipcq.testing.judge` checks millions of calls by four rules, none of which covers a full queue. This check tries every
order in which the calls of a history may have taken effect, each at some instant between its begin and its return,
until one order is that of a FIFO queue. The algorithm is that of Wing and Gong, "Testing and verifying concurrent
objects" (1993), with the cache of visited states of Lowe, "Testing for linearizability" (2017). It can handle some
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

#: The result of a put that finds the queue full, and of a get that finds it empty.
REFUSED: Final = None


class Call(NamedTuple):
    """One call and its result."""

    verb: Literal["put", "get"]
    value: int | None
    """The value that was put or taken; None if the queue was full or empty."""
    begun: int
    """Instant on `time.monotonic_ns`."""
    returned: int
    """Instant on `time.monotonic_ns`."""


def linearizable(history: Iterable[Call], capacity: float = math.inf) -> bool:
    """Return whether a FIFO queue that is empty at first can have produced this history.

    Args:
        history: The calls, in any order.
        capacity: The queue's capacity, in messages.
    """
    calls = sorted(history, key=lambda call: call.begun)
    everything = (1 << len(calls)) - 1
    # A state: the calls that have taken effect, one bit for each, and the content of the queue after them.
    start: tuple[int, tuple[int, ...]] = (0, ())
    seen = {start}
    pending = [start]
    while pending:
        done, content = pending.pop()
        if done == everything:
            return True
        earliest: float = math.inf
        # Start at the first call that has not taken effect.
        for place in range((~done & (done + 1)).bit_length() - 1, len(calls)):
            if done >> place & 1:
                continue
            call = calls[place]
            if call.begun > earliest:
                break  # an earlier call returned before this one and all later ones began, and has not taken effect
            earliest = min(earliest, call.returned)
            after = _after(call, content, capacity)
            if after is not None and (state := (done | 1 << place, after)) not in seen:
                seen.add(state)
                pending.append(state)
    return False


def _after(call: Call, content: tuple[int, ...], capacity: float) -> tuple[int, ...] | None:
    """Return the content of the queue after a call, or None if the call cannot have had this result."""
    if call.verb == "put":
        if call.value is None:
            return content if len(content) >= capacity else None
        return (*content, call.value) if len(content) < capacity else None
    if call.value is None:
        return None if content else content
    return content[1:] if content[:1] == (call.value,) else None


def record(opener: Callable[..., Any], arguments: Sequence[Any], number: int) -> None:
    """Run a process that puts and gets without waiting and reports its calls.

    It receives pairs, the number of calls and the instant to begin, until None, and sends the list of its calls after
    each.
    """
    dice = random.Random(number)
    value = number << 32  # each process has its own range
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
