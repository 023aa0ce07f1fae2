"""Exhaustive check of short histories of non-waiting calls, including leases, and refusals by a full or an empty queue.

`ipcq.testing.judge` checks millions of calls by four rules, none of which covers a full queue. This check tries every
order in which the calls of a history may have taken effect, each at some instant between its begin and its return,
until one order is that of a FIFO queue. The algorithm is that of Wing and Gong, "Testing and verifying concurrent
objects" (1993), with the cache of visited states of Lowe, "Testing for linearizability" (2017). It can handle some
hundreds of calls.
"""

import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any, Final, Literal, NamedTuple

import ipcq
from ipcq.testing.oracle import HELD_UP
from ipcq.testing.processes import hear, say

__all__ = ("Call", "linearizable", "record")

#: The result of a put that finds the queue full, and of a get or a lease that finds it empty.
REFUSED: Final = None

#: What `record` does next: on a queue without leases, with leases, and while it holds some.
PLAIN: Final = ("put", "get")
TAKING: Final = ("put", "get", "lease", "lease")
LEASING: Final = ("put", "put", "get", "lease", "ack", "release")


class Call(NamedTuple):
    """One call and its result, or the return of a message whose holder died."""

    verb: Literal["put", "get", "lease", "ack", "release", "return"]
    value: int | None
    """The value that was put, taken or settled, at least 0; None if the queue was full or empty."""
    begun: int
    """Instant on `time.monotonic_ns`; for a return, that of the death."""
    returned: float
    """Instant on `time.monotonic_ns`; infinite for a return that may come at any time."""


def linearizable(history: Iterable[Call], capacity: float = math.inf) -> bool:
    """Return whether a FIFO queue that is empty at first can have produced this history.

    A leased message keeps its place in the capacity and in the order, and only its acknowledgement removes it.

    Args:
        history: The calls, in any order. Each value is put at most once.
        capacity: The queue's capacity, in messages.
    """
    calls = sorted(history, key=lambda call: call.begun)
    everything = (1 << len(calls)) - 1
    # A state: the calls that have taken effect, one bit for each, and the content of the queue after them, in which
    # the value of a leased message is inverted.
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
    verb, value = call.verb, call.value
    if verb == "put":
        if value is None:
            return content if len(content) >= capacity else None
        return (*content, value) if len(content) < capacity else None
    if verb in {"get", "lease"}:
        place = next((place for place, each in enumerate(content) if each >= 0), None)
        if place is None or value is None:
            return content if place is None and value is None else None
        after: tuple[int, ...] = () if verb == "get" else (~value,)
        return (*content[:place], *after, *content[place + 1 :]) if content[place] == value else None
    if value is None or ~value not in content:
        return None
    place = content.index(~value)
    return (*content[:place], *(() if verb == "ack" else (value,)), *content[place + 1 :])


def record(opener: Callable[..., Any], arguments: Sequence[Any], number: int, leases: bool = False) -> None:
    """Run a process that makes calls without waiting and reports them.

    It receives the number of calls, the instant to begin, and whether to die, until None, and sends the list of its
    calls after each. If it dies, that list ends with the returns of the messages that it holds; otherwise it releases
    them before. A refusal that took so long that it may be that of a lock is left out.
    """
    dice = random.Random(number)
    value = number << 32  # each process has its own range
    with closing(opener(*arguments)) as handle:
        say("ready")
        while (order := hear()) is not None:
            count, start, dies = order
            calls: list[tuple[str, int | None, int, float]] = []
            held: list[Any] = []
            while time.monotonic() < start:
                pass
            while count > 0 or (held and not dies):
                verb = dice.choice(LEASING if held else TAKING if leases else PLAIN) if count > 0 else "release"
                count -= 1
                value += 1
                begun = time.monotonic_ns()
                found = _perform(handle, verb, value, held)
                returned = time.monotonic_ns()
                if found is not REFUSED or returned - begun <= HELD_UP:
                    calls.append((verb, found, begun, returned))
            calls += [("return", job.item, time.monotonic_ns(), math.inf) for job in held]
            say(calls)
            if dies:
                os.kill(os.getpid(), signal.SIGKILL)


def _perform(handle: Any, verb: str, value: int, held: list[Any]) -> int | None:
    """Make a call, and return the value that it put, took or settled."""
    try:
        if verb == "put":
            handle.put(value, timeout=0)
            return value
        if verb == "get":
            return int(handle.get(timeout=0))
        if verb == "lease":
            held.append(handle.lease(timeout=0))
            return int(held[-1].item)
    except (ipcq.QueueFull, ipcq.QueueEmpty):
        return REFUSED
    job = held.pop(value % len(held))
    (job.ack if verb == "ack" else job.release)()
    return int(job.item)
