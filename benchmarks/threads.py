"""The number of messages per second that the threads of one process move through one queue.

Run ``python benchmarks/threads.py``; ``nox -s free-threaded`` runs it on a Python without a global interpreter lock.
Half of the threads put and half get, each the same number of messages. They share a handle, or each has its own; or
each runs in its own interpreter, which has its own GIL since Python 3.12. `queue.Queue` of the standard library moves
references instead of messages, and shows what threads alone cost on this Python.
"""

import argparse
import json
import os
import queue as standard
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import ipcq

ITEMS: dict[str, Any] = {
    "bytes of 64 B": bytes(64),
    "dict of 5 fields": {"id": 12345, "name": "sensor-7", "value": 3.25, "ok": True, "tags": None},
}


class Gate:
    """Starts all workers at once, and reports when the last one has ended.

    It uses pipes, because interpreters share nothing but descriptors.
    """

    def __init__(self) -> None:
        self.ready, self.go, self.done = os.pipe(), os.pipe(), os.pipe()

    def ends(self) -> tuple[int, int, int]:
        """Return the descriptors for `work`."""
        return self.ready[1], self.go[0], self.done[1]

    def seconds(self, workers: int) -> float:
        """Start the workers when all are ready, and return how long the slowest took."""
        for _ in range(workers):
            os.read(self.ready[0], 1)
        begin = time.monotonic()
        os.write(self.go[1], bytes(workers))
        for _ in range(workers):
            os.read(self.done[0], 1)
        return time.monotonic() - begin

    def close(self) -> None:
        for pipe in (self.ready, self.go, self.done):
            for descriptor in pipe:
                os.close(descriptor)


def work(queue: Any, item: Any, count: int, ends: tuple[int, int, int]) -> None:
    """Put an item `count` times, or get `count` items if it is None."""
    ready, go, done = ends
    os.write(ready, b"r")
    os.read(go, 1)
    if item is None:
        get = queue.get
        for _ in repeat(None, count):
            get()
    else:
        put = queue.put
        for _ in repeat(None, count):
            put(item)
    os.write(done, b"d")


def finish(body: Callable[[tuple[int, int, int]], None], ends: tuple[int, int, int]) -> None:
    """Run a body. If it fails, end the process, because the other threads would wait forever."""
    try:
        body(ends)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def measure(bodies: list[Callable[[tuple[int, int, int]], None]]) -> float:
    """Run each body in a thread, and return the seconds."""
    gate = Gate()
    threads = [threading.Thread(target=finish, args=(body, gate.ends())) for body in bodies]
    for thread in threads:
        thread.start()
    seconds = gate.seconds(len(threads))
    for thread in threads:
        thread.join()
    gate.close()
    return seconds


def jobs(item: Any, threads: int) -> list[Any]:
    """Return what each thread puts; None gets."""
    return [item, None] * (threads // 2)


def with_one_handle(name: str, item: Any, threads: int, count: int) -> float:
    with ipcq.open(name, exclusive=True) as queue:
        return measure([partial(work, queue, each, count) for each in jobs(item, threads)])


def with_a_handle_each(name: str, item: Any, threads: int, count: int) -> float:
    def body(each: Any, ends: tuple[int, int, int]) -> None:
        with ipcq.open(name) as queue:
            work(queue, each, count, ends)

    with ipcq.open(name, exclusive=True):
        return measure([partial(body, each) for each in jobs(item, threads)])


def with_interpreters(name: str, item: Any, threads: int, count: int) -> float:
    interpreters = found_interpreters()

    def body(each: Any, ends: tuple[int, int, int]) -> None:
        script = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import ipcq, threads\n"
            f"with ipcq.open({name!r}) as queue: threads.work(queue, {each!r}, {count}, {ends})"
        )
        number = interpreters.create()
        failed = interpreters.run_string(number, script)
        if failed is not None:
            raise RuntimeError(failed)
        interpreters.destroy(number)

    with ipcq.open(name, exclusive=True):
        return measure([partial(body, each) for each in jobs(item, threads)])


def with_the_standard_library(_: str, item: Any, threads: int, count: int) -> float:
    queue = standard.Queue[Any](10_000)
    return measure([partial(work, queue, each, count) for each in jobs(item, threads)])


def found_interpreters() -> Any:
    """Return the module for interpreters with their own GIL; None before Python 3.12."""
    if sys.version_info < (3, 12):
        return None
    try:
        import _interpreters
    except ImportError:  # until Python 3.12
        import _xxsubinterpreters as _interpreters
    return _interpreters


def has_gil() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def main() -> None:
    # Imported here, because the other interpreters import this file, but cannot import everything that these need.
    from ipcq._bench.machine import machine
    from ipcq._bench.queues import new_name

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=100_000, help="in each measurement, over all threads")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    contestants = {"one handle": with_one_handle, "a handle each": with_a_handle_each}
    if found_interpreters() is not None:
        contestants["an interpreter each"] = with_interpreters
    contestants["queue.Queue"] = with_the_standard_library
    results: dict[str, dict[str, dict[str, float]]] = {}
    for what, item in ITEMS.items():
        for threads in (2, 4, 8):
            count = given.messages // (threads // 2)
            rates: dict[str, list[float]] = {name: [] for name in contestants}
            for _ in range(given.rounds):
                for contestant, run in contestants.items():
                    name = new_name()
                    try:
                        seconds = run(name, item, threads, count)
                    finally:
                        if ipcq.exists(name):
                            ipcq.unlink(name)
                    rates[contestant].append(count * (threads // 2) / seconds)
            medians = {contestant: statistics.median(each) for contestant, each in rates.items()}
            results[f"{what}, {threads} threads"] = medians
    if given.json:
        json.dump(
            {"machine": machine(), "gil": has_gil(), "rounds": given.rounds, "results": results}, sys.stdout, indent=2
        )
        return
    gil = "with the GIL" if has_gil() else "without the GIL"
    print(*machine().values(), gil, f"{given.rounds} rounds", "messages per second", sep=" · ")
    print(" " * 30, *(f"{contestant:>20}" for contestant in contestants))
    for what, medians in results.items():
        print(f"{what:<30}", *(f"{rate:>20,.0f}" for rate in medians.values()))


if __name__ == "__main__":
    main()
