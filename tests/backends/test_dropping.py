"""C12: puts that drop and gets of the newest message, in the middle of which a signal handler uses the same queue."""

from contextlib import suppress
from typing import Any

import pytest

import ipcq
from backends.overtaking import Overtaking
from ipcq.testing.processes import fresh_name
from processes.needs import usable

CAPACITY = 3


def interrupt(queue: "ipcq.Queue[Any]", taken: list[bytes], dropped: list[int]) -> None:
    """Do what a handler may do."""
    with suppress(ipcq.QueueEmpty):
        taken.append(queue.get(timeout=0))
    with suppress(ipcq.QueueFull):  # the interrupted call has not counted yet what it has taken
        dropped.append(queue.put(b"inner", drop_oldest=True))


@pytest.mark.parametrize("kind", ["plain", "priorities", "leases"])
@pytest.mark.parametrize("backend", ["memory", "pyshm"])
@pytest.mark.parametrize("verb", ["put", "get_latest"])
def test_a_call_that_is_overtaken_starts_again(backend: str, kind: str, verb: str) -> None:
    """At any point: no message is taken twice, none is lost without being counted, and the limit holds."""
    options: dict[str, Any] = {} if kind == "plain" else {kind: True}
    name, point, reached = fresh_name(), 0, True
    with ipcq.open(
        name, usable(backend), max_messages=CAPACITY, max_message_size=64, serializer="raw", **options
    ) as queue:
        while reached:
            for number in range(CAPACITY):
                queue.put(b"%d" % number)
            taken: list[bytes] = []
            dropped: list[Any] = []
            overtaking = Overtaking(point, lambda taken=taken, dropped=dropped: interrupt(queue, taken, dropped))
            if verb == "put":
                dropped.append(overtaking.during(lambda: queue.put(b"outer", drop_oldest=True)))
            else:
                with suppress(ipcq.QueueEmpty):
                    taken.append(overtaking.during(lambda: queue.get_latest(block=False)))  # type: ignore[arg-type]  # the messages are bytes
            assert queue.qsize() <= CAPACITY
            with suppress(ipcq.QueueEmpty):
                while True:
                    taken.append(queue.get(timeout=0))
            assert len(set(taken)) == len(taken)
            assert (b"outer" in taken) == (verb == "put")
            assert verb != "put" or CAPACITY + len(dropped) == len(taken) + sum(dropped)
            stats = queue.stats()
            assert (stats.puts, stats.depth, stats.bytes) == (stats.gets, 0, 0)
            reached, point = overtaking.reached, point + 1
        queue.unlink()


@pytest.mark.parametrize("backend", ["memory", "pyshm", "shm", "sqlite"])
def test_a_drop_from_the_middle_keeps_the_order(backend: str) -> None:
    """Clause 43: here the last entry of a heap moves up to fill the gap."""
    with ipcq.open(fresh_name(), usable(backend), priorities=True, max_messages=6, max_message_size=64) as queue:
        for priority, item in ((10, "a"), (1, "b"), (9, "c"), (0, "d"), (0, "e"), (8, "f")):
            queue.put(item, priority=priority)
        assert queue.put("g", priority=5, drop_oldest=True) == 1
        assert queue.get_many() == ["a", "c", "f", "g", "b", "e"]
        queue.unlink()
