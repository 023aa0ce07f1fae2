"""The time of a put and a get in one thread, the overhead of `Queue` over its channel, and the time of ``import ipcq``.

Run ``python benchmarks/queue_overhead.py``. Goals: at most 250 ns per call on the backend memory, 40 ms per import, and
on shm, raw, at most 2.5 times the 62 to 73 ns that a pair takes in a prototype in C. Channel and queue are measured in
turn.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

import ipcq
from ipcq._bench.machine import machine
from ipcq._bench.queues import new_name
from ipcq._bench.workload import SMALL

PAIRS = 20_000


def in_rounds(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Call each measurement once per round."""
    measured: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            measured[name].append(measure())
    return measured


def seconds(put: Callable[[bytes], object], get: Callable[[], object], item: bytes) -> float:
    begin = time.perf_counter()
    for _ in range(PAIRS):
        put(item)
        get()
    return time.perf_counter() - begin


def pair(backend: str, serializer: str, rounds: int) -> tuple[float, float]:
    """Return the time of a pair, and the overhead of one call over the channel, in nanoseconds."""
    item = bytes(SMALL)
    with ipcq.open(new_name(), backend, exclusive=True, serializer=serializer) as queue:
        channel, data = queue._channel, queue._encode(item)
        measured = in_rounds(
            {
                "pair": lambda: seconds(queue.put, queue.get, item),
                "channel": lambda: seconds(lambda each: channel.try_put(each, 0), channel.try_get, data),
                # Also a lambda, so that both measurements include its cost.
                "queue": lambda: seconds(lambda each: queue.put(each), queue.get, item),
            },
            rounds,
        )
        queue.unlink()
    differences = [ours - its for ours, its in zip(measured["queue"], measured["channel"], strict=True)]
    return statistics.median(measured["pair"]) / PAIRS * 1e9, statistics.median(differences) / PAIRS / 2 * 1e9


def start(statement: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    report: dict[str, float] = {}
    for backend in ("memory", "shm"):
        for serializer in ("raw", "msgpack"):
            both, added = pair(backend, serializer, given.rounds)
            report[f"put and get, {backend}, {serializer} (ns)"] = both
            report[f"added to a call of {backend}'s channel, {serializer} (ns)"] = added
    starts = in_rounds({"bare": lambda: start("pass"), "ipcq": lambda: start("import ipcq")}, given.rounds)
    report["added to a start by import ipcq (ms)"] = (
        statistics.median([ours - bare for ours, bare in zip(starts["ipcq"], starts["bare"], strict=True)]) * 1e3
    )
    if given.json:
        json.dump({"machine": machine(), "rounds": given.rounds, "results": report}, sys.stdout, indent=2)
        return
    print(*machine().values(), f"{given.rounds} rounds", sep=" · ")
    for what, figure in report.items():
        print(f"{what:<50}{figure:>8.0f}")


if __name__ == "__main__":
    main()
