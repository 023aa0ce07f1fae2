"""The time to open a queue, compared with a POSIX message queue and a bare mapping.

Run ``python benchmarks/opening.py``. Each round does these in turn: attach to an existing queue and close it, with
backend="auto" and with the backend's name; create, unlink and close a queue; the same with posix_ipc; open and map a
file of the same size. The output has medians, and ratios to posix_ipc's attach and create.
"""

import argparse
import json
import mmap
import os
import statistics
import sys
import time
from collections.abc import Callable

import posix_ipc
from queue_overhead import in_rounds

import ipcq
from ipcq._bench.machine import machine
from ipcq._bench.queues import new_name

BACKEND = "shm"
TIMES = 10
MAPPED = 1 << 20


def each(act: Callable[[], object]) -> Callable[[], float]:
    """Return a function that measures the time of an action, in microseconds."""

    def measure() -> float:
        begin = time.perf_counter()
        for _ in range(TIMES):
            act()
        return (time.perf_counter() - begin) / TIMES * 1e6

    return measure


def create(name: str, backend: str) -> None:
    with ipcq.open(name, backend, exclusive=True) as queue:
        queue.unlink()


def theirs_attach(name: str) -> None:
    posix_ipc.MessageQueue(name).close()


def theirs_create(name: str) -> None:
    queue = posix_ipc.MessageQueue(name, posix_ipc.O_CREX, max_messages=4, max_message_size=512)
    queue.unlink()
    queue.close()


def mapped(path: str) -> None:
    descriptor = os.open(path, os.O_RDWR)
    mmap.mmap(descriptor, MAPPED).close()
    os.close(descriptor)


def measured(rounds: int) -> dict[str, float]:
    """Return the medians in microseconds."""
    ours, theirs, fresh, path = new_name(), new_name(), new_name(), f"/dev/shm{new_name()}"
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, MAPPED)
    peer = posix_ipc.MessageQueue(theirs, posix_ipc.O_CREX, max_messages=4, max_message_size=512)
    try:
        with ipcq.open(ours, BACKEND, exclusive=True) as queue:
            try:
                figures = in_rounds(
                    {
                        "attach, auto": each(lambda: ipcq.open(ours, create=False).close()),
                        f"attach, {BACKEND}": each(lambda: ipcq.open(ours, BACKEND, create=False).close()),
                        "create and unlink, auto": each(lambda: create(fresh, "auto")),
                        f"create and unlink, {BACKEND}": each(lambda: create(fresh, BACKEND)),
                        "attach, posix_ipc": each(lambda: theirs_attach(theirs)),
                        "create and unlink, posix_ipc": each(lambda: theirs_create(fresh)),
                        "open and map a file": each(lambda: mapped(path)),
                    },
                    rounds,
                )
            finally:
                queue.unlink()
    finally:
        peer.unlink()
        peer.close()
        os.unlink(path)
    return {what: statistics.median(times) for what, times in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    medians = measured(given.rounds)
    if given.json:
        json.dump({"machine": machine(), "rounds": given.rounds, "results": medians}, sys.stdout, indent=2)
        return
    print(*machine().values(), f"{given.rounds} rounds", sep=" · ")
    print(f"{'':<32}{'µs':>8}{'× posix_ipc':>14}")
    for what, median in medians.items():
        floor = medians["create and unlink, posix_ipc" if what.startswith("create") else "attach, posix_ipc"]
        print(f"{what:<32}{median:>8.0f}{median / floor:>14.1f}")


if __name__ == "__main__":
    main()
