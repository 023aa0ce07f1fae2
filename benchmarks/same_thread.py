"""The time of a put and of a get in one thread, compared with a bare ring in C.

Run ``python benchmarks/same_thread.py``. A batch is put and then got, and the two are timed separately. The contestants
take turns in rounds. The output has medians in nanoseconds, and medians of the ratios to the first floor of the same
round. Goals: at most 2 times the floor for a put and 1.6 times for a get of 64 bytes, and 1.45 and 1.4 times for a
small dict. The kernel's queues are full after a few messages, so their batches are short.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import repeat
from types import FunctionType
from typing import Any, NamedTuple

from floors import RingFloor
from rivals import CloudtoidInterprocess, FasterFifo, HyperQ, PosixIpc, SubethaIpc, installed

from ipcq._bench.contestant import Declined
from ipcq._bench.machine import machine
from ipcq._bench.queues import Ipcq, Queues
from ipcq._bench.report import FORMAT
from ipcq._bench.workload import WORKLOADS

RECORD = {"id": 12345, "name": "sensor-7", "value": 3.25, "ok": True, "tags": None}
#: The item to move, by the workload whose queues are used for it.
ITEMS: dict[str, Any] = {"64B": bytes(64), "dict": RECORD}

FLOOR = "ring, C"
FLOORS = RingFloor(FLOOR, "Ring"), RingFloor("ring with METH_O and METH_NOARGS, C", "PlainRing")
BACKENDS = ("shm", "memory", "mqueue", "socketpair", "pyshm")

#: The number of messages of a batch; and of a batch for the kernel's queues, which are small by default.
BATCH, SMALL_BATCH = 100, 8
KERNEL = ("ipcq mqueue", "ipcq mqueue, raw", "posix_ipc")
#: The number of messages to move before anything is counted. By then CPython has specialised the loops.
SPECIALISED = 400
#: The number of messages to move before anything is timed. By then all memory of a ring has been used.
WARM = 20_000


def ours() -> list[Queues]:
    return [each for name in BACKENDS for each in (Ipcq(name), Ipcq(name, f"ipcq {name}, raw", serializer="raw"))]


def peers() -> list[Queues]:
    """Return the installed peers whose both ends can be in one thread."""
    plans = FasterFifo("faster-fifo, raw", raw=True), PosixIpc(), CloudtoidInterprocess(), SubethaIpc(), HyperQ()
    return [plan for plan in plans if installed(plan.distribution)]


class Loops(NamedTuple):
    """Loops in Python that put or get a given number of messages through the public interface."""

    put: Callable[[int], None]
    get: Callable[[int], None]
    batch: int


def copy(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function with a copy of its code: CPython specialises code for the types that it sees."""
    return FunctionType(function.__code__.replace(), function.__globals__)


def fill(put: Callable[[Any], object], item: Any, times: int) -> None:
    for _ in repeat(None, times):
        put(item)


def drain(get: Callable[[], object], times: int) -> None:
    for _ in repeat(None, times):
        get()


@contextmanager
def loops(plan: Queues, workload: str, warming: int) -> Iterator[Loops]:
    """Open both ends of a queue, move `warming` messages, and yield the loops.

    Raises:
        Declined: The contestant does not support the workload.
    """
    asked, item = WORKLOADS[workload], ITEMS[workload]
    batch = SMALL_BATCH if plan.name in KERNEL else BATCH
    filling, draining = copy(fill), copy(drain)
    with plan.queues(asked) as (address,):
        reader, writer = plan.reader(address, asked), plan.writer(address, asked)
        put, get = writer.put, reader.get
        put(item)
        if (came := get()) != item:
            raise ValueError(f"{plan.name} changed {item!r} to {came!r}")
        made = Loops(lambda times: filling(put, item, times), lambda times: draining(get, times), batch)
        for _ in range(warming // batch):
            made.put(batch)
            made.get(batch)
        yield made
        writer.finish()
        reader.finish()


def seconds(loop: Callable[[int], None], times: int) -> float:
    begin = time.perf_counter()
    loop(times)
    return time.perf_counter() - begin


def round_of(made: Loops, batches: int) -> tuple[float, float]:
    """Return the nanoseconds of a put and of a get."""
    taken = [0.0, 0.0]
    for _ in range(batches):
        for place, loop in enumerate((made.put, made.get)):
            taken[place] += seconds(loop, made.batch) - seconds(loop, 0)
    return taken[0] / batches / made.batch * 1e9, taken[1] / batches / made.batch * 1e9


def measure(plans: Sequence[Queues], workload: str, rounds: int, batches: int) -> dict[str, Any]:
    """Return medians in nanoseconds and ratios to the floor by contestant, or the reason why it was not measured."""
    declined: dict[str, Any] = {}
    with ExitStack() as stack:
        opened: dict[str, Loops] = {}
        for plan in plans:
            try:
                opened[plan.name] = stack.enter_context(loops(plan, workload, WARM))
            except Declined as reason:
                declined[plan.name] = {"declined": str(reason)}
        turns = [{name: round_of(made, batches) for name, made in opened.items()} for _ in range(rounds)]
    results = {}
    for name in opened:
        measured = [[turn[name][place] for turn in turns] for place in range(2)]
        ratios = [[turn[name][place] / turn[FLOOR][place] for turn in turns] for place in range(2)]
        results[name] = figures(*map(statistics.median, [*measured, *ratios]))
    return {**results, **declined}


def figures(put: float, get: float, put_ratio: float, get_ratio: float) -> dict[str, float]:
    return {"put": put, "get": get, "put to floor": put_ratio, "get to floor": get_ratio}


def show(results: Mapping[str, Mapping[str, Any]], unit: str) -> None:
    """Print a table for each workload."""
    for workload, by_name in results.items():
        title = f"{WORKLOADS[workload].title}, {unit}"
        print(f"\n{title:<36}{'put':>10}{'get':>10}{'put/floor':>12}{'get/floor':>12}")
        for name, each in by_name.items():
            if "declined" not in each:
                ratios = f"{each['put to floor']:>12.2f}{each['get to floor']:>12.2f}"
                print(f"{name:<36}{each['put']:>10,.0f}{each['get']:>10,.0f}{ratios}")
        for name, each in by_name.items():
            if "declined" in each:
                print(f"not measured: {name}: {each['declined']}")


def report(rounds: int, batches: int) -> dict[str, Any]:
    plans = [*FLOORS, *ours(), *peers()]
    results = {workload: measure(plans, workload, rounds, batches) for workload in ITEMS}
    return {"format": FORMAT, "machine": machine(), "rounds": rounds, "results": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--batches", type=int, default=100, help="the number of batches of a round")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    measured = report(given.rounds, given.batches)
    if given.json:
        json.dump(measured, sys.stdout, indent=2)
        return
    print(*machine().values(), f"{given.rounds} rounds", sep=" · ")
    show(measured["results"], "ns")


if __name__ == "__main__":
    main()
