"""How evenly a queue serves many processes, and how long a put takes if the consumer is slow.

Run ``python benchmarks/fairness.py``. The goals, with 63 producers and one consumer and vice versa: the 99th percentile
of each process's longest gap is at most 100 ms, and the smallest share is at least 0.4 of the largest. A gap is the
time between two successful calls of one process. With a consumer that takes a message every 10 ms, the 90th percentile
of a put is at most 25 ms.

The processes are forked before any queue is open, and each opens the queue by its name.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import ipcq
from ipcq._bench.machine import machine
from ipcq._bench.queues import new_name

Facts = dict[str, float]

ITEM = bytes(64)
#: Pause of the slow consumer between two messages.
REST_SECONDS = 0.01


def percentile(values: list[float], percent: int) -> float:
    """Return the smallest value that at least `percent` of all values do not exceed."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def started(work: Callable[[], Any]) -> int:
    """Run a function in its own process, and return a descriptor from which its result can be read as JSON."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as pipe:
            json.dump(work(), pipe)
        os._exit(0)
    os.close(writing)
    return reading


def finished(descriptors: list[int]) -> list[Any]:
    """Return the results of the processes, in the order of their start."""
    results = []
    for descriptor in descriptors:
        with os.fdopen(descriptor) as pipe:
            results.append(json.load(pipe))
    for _ in descriptors:
        os.wait()
    return results


def repeat(call: Callable[[], object], begin: float, end: float) -> tuple[int, float]:
    """Call repeatedly between two instants; return the number of successes and the longest time without one."""
    time.sleep(max(0.0, begin - time.monotonic()))
    count, longest, last = 0, 0.0, begin
    while (now := time.monotonic()) < end:
        try:
            call()
        except ipcq.TimedOutError:
            continue
        now = time.monotonic()
        longest = max(longest, now - last)
        last = now
        count += 1
    return count, max(longest, end - last)


def crowd(name: str, backend: str, many: str, others: int, seconds: float) -> Facts:
    """Measure many producers with one consumer, or many consumers with one producer."""
    begin = time.monotonic() + 0.02 * others + 0.5
    end = begin + seconds

    def put() -> tuple[int, float]:
        with ipcq.open(name, backend) as queue:
            return repeat(lambda: queue.put(ITEM, timeout=0.5), begin, end)

    def get() -> tuple[int, float]:
        with ipcq.open(name, backend) as queue:
            return repeat(lambda: queue.get(timeout=0.5), begin, end)

    one, each = (get, put) if many == "producers" else (put, get)
    results = finished([started(one), *(started(each) for _ in range(others))])[1:]
    counts, gaps = [count for count, _ in results], [gap for _, gap in results]
    return {
        "messages a second": sum(counts) / seconds,
        "longest gap, 99th percentile (ms)": percentile(gaps, 99) * 1e3,
        "longest gap, median (ms)": statistics.median(gaps) * 1e3,
        "smallest share of the largest": min(counts) / max(counts),
    }


def slow(name: str, backend: str, seconds: float) -> Facts:
    """Measure the puts of one producer while the consumer pauses after each message."""
    end = time.monotonic() + seconds

    def put() -> list[float]:
        took = []
        with ipcq.open(name, backend) as queue:
            queue.put_many([ITEM] * 1_000_000, block=False)
            while time.monotonic() < end:
                since = time.monotonic()
                queue.put(ITEM)
                took.append(time.monotonic() - since)
        return took

    def get() -> None:
        with ipcq.open(name, backend) as queue:
            while time.monotonic() < end + 1:
                time.sleep(REST_SECONDS)
                try:
                    queue.get(timeout=0.1)
                except ipcq.QueueEmpty:
                    continue

    took, _ = finished([started(put), started(get)])
    return {
        "put, median (ms)": statistics.median(took) * 1e3,
        "put, 90th percentile (ms)": percentile(took, 90) * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="shm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument(
        "--others", type=int, default=63, help="number of producers to one consumer, and of consumers to one producer"
    )
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    measures: dict[str, Callable[[str], Facts]] = {
        f"{given.others} producers": lambda name: crowd(name, given.backend, "producers", given.others, given.seconds),
        f"{given.others} consumers": lambda name: crowd(name, given.backend, "consumers", given.others, given.seconds),
        "a slow consumer": lambda name: slow(name, given.backend, given.seconds),
    }
    measured: dict[str, list[Facts]] = {what: [] for what in measures}
    for _ in range(given.rounds):
        for what, measure in measures.items():
            name = new_name()
            ipcq.open(name, given.backend, exclusive=True).close()
            try:
                measured[what].append(measure(name))
            finally:
                ipcq.unlink(name, given.backend)
    report = {
        what: {figure: statistics.median(each[figure] for each in rounds) for figure in rounds[0]}
        for what, rounds in measured.items()
    }
    if given.json:
        json.dump({"machine": machine(), "rounds": given.rounds, "results": report}, sys.stdout, indent=2)
        return
    print(*machine().values(), f"{given.rounds} rounds", sep=" · ")
    for what, figures in report.items():
        for figure, value in figures.items():
            print(f"{what:<20}{figure:<40}{value:>12.2f}")


if __name__ == "__main__":
    main()
