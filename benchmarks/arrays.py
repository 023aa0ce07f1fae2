"""The time to put and get an array of NumPy or a table in one thread, compared with pickle and with copying its bytes.

Run ``python benchmarks/arrays.py``. The contestants take turns in rounds. The output has the time of "arrays", and for
the others the median over the rounds of its time as a multiple of theirs. "two copies" copies the bytes to memory that
is used again, as a queue's is, and from there to a new object, as a get has to. Goal for 1 MiB: at most 1.3.

The second table has tables of eight columns of numbers. "pickle in band" has all elements in the pickle, as
``pickle.dumps`` writes it. Goal for a DataFrame of pandas: at most 0.33.
"""

import argparse
import json
import pickle
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

#: Columns of a table.
COLUMNS = 8


def table_makers() -> dict[str, Callable[[dict[str, np.ndarray]], Any]]:
    """Return, by library, what makes a table of columns."""
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    return {"pandas": pd.DataFrame, "Polars": pl.DataFrame, "Arrow": pa.table}


@contextmanager
def through(
    backend: str,
    item: object,
    size: int,
    dumps: Callable[[Any], object] | None = None,
    loads: Callable[[Any], object] | None = None,
    **options: Any,
) -> Iterator[Callable[[], object]]:
    """Return a function that puts the item into a new queue and gets it."""
    name = new_name()
    with ipcq.open(name, backend, exclusive=True, max_messages=2, max_message_size=size + MARGIN, **options) as queue:

        def put_and_get() -> object:
            queue.put(item)
            return queue.get()

        def put_and_get_converted() -> object:
            queue.put(dumps(item))
            return loads(queue.get())

        try:
            yield put_and_get if dumps is None else put_and_get_converted
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


def compare(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the microseconds of the first call, and its time as multiples of the others'."""
    times = {name: max(3, int(SAMPLE_SECONDS / seconds(call, 3))) for name, call in calls.items()}
    measured: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            measured[name].append(seconds(call, times[name]))
    own = measured.pop(next(iter(calls)))
    ratios = {
        name: statistics.median([mine / other for mine, other in zip(own, others, strict=True)])
        for name, others in measured.items()
    }
    return {"us": statistics.median(own) * 1e6, **ratios}


def report(rounds: int, backend: str, sizes: dict[str, int]) -> dict[str, dict[str, float]]:
    """Return, by size, the microseconds of "arrays" and its time as multiples of the others'."""
    results = {}
    for what, size in sizes.items():
        array = np.arange(size // 8, dtype="i8")
        with (
            through(backend, array, size, serializer="arrays") as arrays,
            through(backend, array, size, serializer="pickle", allow_pickle=True) as pickled,
            through(backend, array, size, serializer="raw") as raw,
            copied(array) as copies,
        ):
            calls = {"arrays": arrays, "pickle": pickled, "raw": raw, "two copies": copies}
            results[what] = compare(calls, rounds)
    return results


def report_tables(rounds: int, backend: str, sizes: dict[str, int]) -> dict[str, dict[str, float]]:
    """Return the same for tables, by size and library."""
    results = {}
    for what, size in sizes.items():
        values = np.random.default_rng(1).random((COLUMNS, size // 8 // COLUMNS))
        for library, make in table_makers().items():
            table = make({f"c{number}": column for number, column in enumerate(values)})
            space = size + 4 * MARGIN
            with (
                through(backend, table, space, serializer="arrays") as arrays,
                through(backend, table, space, serializer="pickle", allow_pickle=True) as pickled,
                through(backend, table, space, pickle.dumps, pickle.loads, serializer="raw") as in_band,
            ):
                calls = {"arrays": arrays, "pickle": pickled, "pickle in band": in_band}
                results[f"{what} {library}"] = compare(calls, rounds)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--backend", default="shm")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    results = report(given.rounds, given.backend, SIZES)
    tables = report_tables(given.rounds, given.backend, {what: SIZES[what] for what in ("1 MiB", "6 MiB")})
    if given.json:
        told = {"machine": machine(), "rounds": given.rounds, "results": results, "tables": tables}
        json.dump(told, sys.stdout, indent=2)
        return
    print(*machine().values(), given.backend, f"{given.rounds} rounds", sep=" · ")
    print(f"{'':<10}{'arrays (µs)':>12}{'to pickle':>12}{'to raw':>9}{'to two copies':>15}")
    for what, each in results.items():
        print(f"{what:<10}{each['us']:>12.1f}{each['pickle']:>11.2f}×{each['raw']:>8.2f}×{each['two copies']:>14.2f}×")
    print(f"\n{'':<14}{'arrays (µs)':>12}{'to pickle':>12}{'to pickle in band':>19}")
    for what, each in tables.items():
        print(f"{what:<14}{each['us']:>12.1f}{each['pickle']:>11.2f}×{each['pickle in band']:>18.2f}×")


if __name__ == "__main__":
    main()
