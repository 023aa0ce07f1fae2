"""Each drop-in replacement compared with what it replaces, by message size: time and processor time.

Run ``python benchmarks/faces.py``. One process puts a fixed number of `bytes`, and another gets them. The replacement
and the original take turns in rounds. The output has the original's time as a multiple of the replacement's, as the
median over the rounds: the time from the first put to the last get, and the processor time of both processes with all
their threads. Ratios of processor time hardly depend on other load on the machine.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import compat_baseplate
import compat_faster_fifo
import compat_multiprocessing
import compat_posix_ipc
import compat_shmqueue
import rivals

from ipcq._bench.contestant import Declined
from ipcq._bench.machine import machine
from ipcq._bench.queues import Queues
from ipcq._bench.references import MultiprocessingQueue
from ipcq._bench.workload import Workload
from ipcq.compat.multiprocessing import Queue
from ipcq.testing.processes import SPAWN, Peers, hear, say

SIZES = (1, 100, 1000, 10_000, 100_000, 1_000_000, 1 << 20)

#: A sample moves this many messages, or fewer so that they have at most this many bytes.
MESSAGES = 30_000
BYTES = 100 << 20

#: The size in bytes of the largest message of the kernel's queues.
KERNEL = 8192


class Unbounded(MultiprocessingQueue):
    """The standard library's queue without a limit, as most programs create it."""

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[Any]]:
        queue = self.make()
        try:
            yield [queue]
        finally:
            queue.close()

    def make(self) -> Any:
        return SPAWN.Queue()


class UnboundedDropIn(Unbounded):
    def make(self) -> Any:
        return Queue()


#: The replacements, each with what it replaces and its largest message in bytes.
FACES: dict[str, tuple[Queues, Queues, int]] = {
    "multiprocessing": (UnboundedDropIn(), Unbounded(), sys.maxsize),
    "multiprocessing, bounded": (compat_multiprocessing.DropIn(), MultiprocessingQueue(), sys.maxsize),
    "faster_fifo": (compat_faster_fifo.DropIn(), rivals.FasterFifo(), sys.maxsize),
    "posix_ipc on mqueue": (
        compat_posix_ipc.DropIn("mqueue", max_messages=10),
        rivals.PosixIpc(max_messages=10),
        KERNEL,
    ),
    "posix_ipc on shm": (compat_posix_ipc.DropIn("shm", max_messages=10), rivals.PosixIpc(max_messages=10), KERNEL),
    "baseplate on mqueue": (compat_baseplate.DropIn("mqueue"), rivals.Baseplate(), KERNEL),
    "shmqueue": (compat_shmqueue.DropIn(), rivals.ShmQueue(), sys.maxsize),
}


def produce(queues: Queues, address: Any, workload: Workload, count: int) -> None:
    """Put messages, and report the processor time."""
    end = queues.writer(address, workload)
    message = bytes(workload.size)
    say("ready")
    hear()
    used = time.process_time()
    for _ in range(count):
        end.put(message)
    end.finish()
    say(time.process_time() - used)
    hear()  # some libraries lose messages in transit when the producer exits


def consume(queues: Queues, address: Any, workload: Workload, count: int) -> None:
    """Get messages, and report the processor time."""
    end = queues.reader(address, workload)
    say("ready")
    hear()
    used = time.process_time()
    for _ in range(count):
        message = end.get()
    say([time.process_time() - used, len(message)])
    end.finish()


def sample(queues: Queues, workload: Workload) -> tuple[float, float]:
    """Move messages once; return the seconds, and the seconds of processor time."""
    count = max(20, min(MESSAGES, BYTES // workload.size))
    os.environ.pop("IPCQ_BACKEND", None)  # set by a replacement that chose a backend
    with queues.queues(workload) as (address,), Peers(seed=0) as peers:
        producer, consumer = (peers.inherit(each, queues, address, workload, count) for each in (produce, consume))
        for peer in (producer, consumer):
            peer.hear()
        begin = time.perf_counter()
        for peer in (consumer, producer):
            peer.say("go")
        got, size = consumer.hear()
        lasted = time.perf_counter() - begin
        put = producer.hear()
        producer.say("bye")
        for peer in (producer, consumer):
            peer.done()
    if size != workload.size:
        raise ValueError(f"a message of {workload.size} bytes arrived with {size}")
    return lasted, put + got


def compare(face: Queues, replaced: Queues, workload: Workload, rounds: int) -> dict[str, Any]:
    """Return a replacement's ratios at one size and its microseconds per message, or the reason why there are none."""
    samples: list[list[tuple[float, float]]] = [[], []]
    try:
        for _ in range(rounds):
            for each, taken in zip((face, replaced), samples, strict=True):
                taken.append(sample(each, workload))
    except (Declined, ImportError) as reason:
        return {"declined": str(reason)}
    count = max(20, min(MESSAGES, BYTES // workload.size))
    ratios = zip(*[(b[0] / a[0], b[1] / a[1]) for a, b in zip(*samples, strict=True)], strict=True)
    mine = zip(*samples[0], strict=True)
    return {
        **dict(zip(("time", "cpu"), map(statistics.median, ratios), strict=True)),
        **{name: statistics.median(each) / count * 1e6 for name, each in zip(("us", "cpu_us"), mine, strict=True)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--face", action="append", choices=FACES, help="measure only this replacement; may be repeated")
    parser.add_argument("--size", action="append", type=int, help="measure only this size in bytes; may be repeated")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    results: dict[str, dict[int, Any]] = {}
    if not given.json:
        print(*machine().values(), f"{given.rounds} rounds", sep=" · ")
        print(f"{'':<26}{'bytes':>9}{'time':>8}{'CPU':>8}{'µs':>10}{'CPU µs':>10}")
    for name in given.face or FACES:
        face, replaced, largest = FACES[name]
        results[name] = {}
        for size in given.size or SIZES:
            if size > largest:
                continue
            result = compare(face, replaced, Workload(str(size), f"{size} B", size=size), given.rounds)
            results[name][size] = result
            if not given.json:
                figures = (
                    f"  {result['declined']}"
                    if "declined" in result
                    else (
                        f"{result['time']:>7.2f}×{result['cpu']:>7.2f}×{result['us']:>10.2f}{result['cpu_us']:>10.2f}"
                    )
                )
                print(f"{name:<26}{size:>9}{figures}", flush=True)
    if given.json:
        json.dump({"machine": machine(), "rounds": given.rounds, "results": results}, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
