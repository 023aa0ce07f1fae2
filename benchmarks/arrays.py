"""The time to put and get an array of NumPy in one thread, compared with pickle and with copying its bytes.

Run ``python benchmarks/arrays.py``. The contestants take turns in rounds. The output has the time of "arrays", and for
the others the median over the rounds of its time as a multiple of theirs. "two copies" copies the bytes to memory that
is used again, as a queue's is, and from there to a new object, as a get has to. Goal for 1 MiB: at most 1.3.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import ipcq
from ipcq._bench.machine import machine
from ipcq._bench.queues import new_name

#: Space for what a serializer adds to the elements, in bytes.
MARGIN = 4096

#: Seconds for each figure of a round.
SAMPLE_SECONDS = 0.05

SIZES = {"1 KiB": 1 << 10, "64 KiB": 1 << 16, "1 MiB": 1 << 20, "6 MiB": 6 << 20}


@contextmanager
def through(backend: str, array: np.ndarray, **options: Any) -> Iterator[Callable[[], object]]:
    """Return a function that puts the array into a new queue and gets it."""
    name = new_name()
    with ipcq.open(
        name, backend, exclusive=True, max_messages=2, max_message_size=array.nbytes + MARGIN, **options
    ) as queue:

        def put_and_get() -> object:
            queue.put(array)
            return queue.get()

        try:
            yield put_and_get
        finally:
            queue.unlink()


@contextmanager
def copied(array: np.ndarray) -> Iterator[Callable[[], object]]:
    """Return a function that copies the bytes twice."""
    between = bytearray(array.nbytes)
    source = memoryview(array).cast("B")

    def copy() -> object:
        between[:] = source
        return bytes(between)

    yield copy


def seconds(call: Callable[[], object], times: int) -> float:
    """Return the seconds of a call; its result is freed."""
    begin = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - begin) / times


def report(rounds: int, backend: str, sizes: dict[str, int]) -> dict[str, dict[str, float]]:
    """Return, by size, the microseconds of "arrays" and its time as multiples of the others'."""
    results = {}
    for what, size in sizes.items():
        array = np.arange(size // 8, dtype="i8")
        with (
            through(backend, array, serializer="arrays") as arrays,
            through(backend, array, serializer="pickle", allow_pickle=True) as pickled,
            through(backend, array, serializer="raw") as raw,
            copied(array) as copies,
        ):
            calls = {"arrays": arrays, "pickle": pickled, "raw": raw, "two copies": copies}
            times = {name: max(3, int(SAMPLE_SECONDS / seconds(call, 3))) for name, call in calls.items()}
            measured: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(rounds):
                for name, call in calls.items():
                    measured[name].append(seconds(call, times[name]))
        own = measured.pop("arrays")
        ratios = {
            name: statistics.median([mine / other for mine, other in zip(own, others, strict=True)])
            for name, others in measured.items()
        }
        results[what] = {"us": statistics.median(own) * 1e6, **ratios}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--backend", default="shm")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    results = report(given.rounds, given.backend, SIZES)
    if given.json:
        json.dump({"machine": machine(), "rounds": given.rounds, "results": results}, sys.stdout, indent=2)
        return
    print(*machine().values(), given.backend, f"{given.rounds} rounds", sep=" · ")
    print(f"{'':<10}{'arrays (µs)':>12}{'to pickle':>12}{'to raw':>9}{'to two copies':>15}")
    for what, each in results.items():
        print(f"{what:<10}{each['us']:>12.1f}{each['pickle']:>11.2f}×{each['raw']:>8.2f}×{each['two copies']:>14.2f}×")


if __name__ == "__main__":
    main()
