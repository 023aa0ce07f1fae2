"""The backend shm through the public API against multiprocessing.Queue: messages a second, round trips, and floors.

Run ``python benchmarks/shm_throughput.py``; wanted are a median ratio of 45 or more at 64 B, with several producers and
consumers too, and a put and a get in one thread of at most 2.5 times the 62 to 73 ns of a prototype in C. "ring" is the
channel without the `Queue` around it, "ipcq raw, slow" is a handle without the shortcut. The control is
multiprocessing.Queue a second time. What happens in one thread is measured in its processor time.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from typing import Any

import harness

NAME = "/ipcq-benchmark"
SPAWN = multiprocessing.get_context("spawn")

#: For each implementation, what share of the messages it is given, so that a sample takes about as long on each.
SHARE = {"multiprocessing": 0.05, "multiprocessing again": 0.05, "ipcq": 1.0, "ipcq raw": 1.0, "ring": 2.0}
IN_ONE_THREAD = ("ipcq", "ipcq raw", "ipcq raw, slow", "ring")
BATCH = 100


#: Handles that stay open until the process ends.
OPEN: list[Any] = []


def ends(implementation: str, queue: Any) -> tuple[Callable[[bytes], object], Callable[[], Any]]:
    """Return how to put and how to get in this process."""
    import ipcq

    if implementation.startswith("multiprocessing"):
        return queue.put, queue.get
    os.environ["IPCQ_SHORTCUTS"] = "0" if implementation.endswith("slow") else "1"
    handle = ipcq.open(queue, "shm", create=False, serializer="msgpack" if implementation == "ipcq" else "raw")
    OPEN.append(handle)
    if implementation != "ring":
        return handle.put, handle.get
    return partial(put, handle._channel), partial(get, handle._channel)


def put(ring: Any, data: bytes) -> None:
    while not ring.try_put(data, 0):
        now = time.monotonic()
        ring.wait_writable(len(data), now, now + 0.1)


def get(ring: Any) -> bytes:
    while True:
        received = ring.try_get()
        if received is not None:
            return received[0]
        now = time.monotonic()
        ring.wait_readable(now, now + 0.1)


def numbered(count: int, size: int) -> Iterator[bytes]:
    """Return that many messages, made beforehand, so that their making is not measured; every 251st is the same."""
    different = [number.to_bytes(8) + bytes(size - 8) for number in range(251)]
    return islice(cycle(different), count)


def produce(implementation: str, queue: Any, count: int, size: int) -> None:
    send, _ = ends(implementation, queue)
    for message in numbered(count, size):
        send(message)


def consume(implementation: str, queue: Any, count: int, size: int, alone: bool, told: Any) -> None:
    """Take messages, which one producer's consumer expects in order, and tell when the first and the last came."""
    _, receive = ends(implementation, queue)
    messages = numbered(count, size)
    if receive() != next(messages) and alone:
        raise SystemExit("the first message is not the first")
    begin = time.perf_counter()
    for message in messages:
        if receive() != message and alone:
            raise SystemExit(f"a message is lost, doubled or out of order behind {message[:8]!r}")
    told.send((begin, time.perf_counter()))


def answer(implementation: str, there: Any, back: Any, count: int) -> None:
    _, receive = ends(implementation, there)
    send, _ = ends(implementation, back)
    for _ in range(count):
        send(receive())


def with_queues(implementation: str, number: int, run: Callable[..., float]) -> float:
    """Run with as many new queues as are needed, and leave none behind."""
    import ipcq

    if implementation.startswith("multiprocessing"):
        return run(*(SPAWN.Queue(1000) for _ in range(number)))
    names = [f"{NAME}-{os.getpid()}-{which}" for which in range(number)]
    queues = [ipcq.open(name, "shm", exclusive=True, buffer_size=4 << 20) for name in names]
    try:
        return run(*names)
    finally:
        for queue in queues:
            queue.unlink()
            queue.close()


def rate(implementation: str, count: int, size: int, producers: int = 1, consumers: int = 1) -> float:
    """Return messages a second, from the first that any consumer took to the last."""
    share = max(100, int(count * SHARE[implementation])) // (producers * consumers)
    alone = producers == consumers == 1

    def run(queue: Any) -> float:
        heard, told = SPAWN.Pipe(False)
        taking, giving = (implementation, queue, share * producers, size, alone, told), (implementation, queue)
        processes = [SPAWN.Process(target=consume, args=taking) for _ in range(consumers)]
        processes += [SPAWN.Process(target=produce, args=(*giving, share * consumers, size)) for _ in range(producers)]
        for process in processes:
            process.start()
        begun, ended = zip(*(heard.recv() for _ in range(consumers)), strict=True)
        for process in processes:
            process.join()
        return share * producers * consumers / (max(ended) - min(begun))

    return with_queues(implementation, 1, run)


def round_trip(implementation: str, count: int) -> float:
    """Return the median of round trips, in microseconds."""
    share = max(100, int(count * min(1.0, SHARE[implementation])))

    def run(there: Any, back: Any) -> float:
        process = SPAWN.Process(target=answer, args=(implementation, there, back, share))
        process.start()
        send, _ = ends(implementation, there)
        _, receive = ends(implementation, back)
        item = bytes(harness.SIZE)
        trips = []
        for _ in range(share):
            begin = time.perf_counter()
            send(item)
            receive()
            trips.append(time.perf_counter() - begin)
        process.join()
        return statistics.median(trips) * 1e6

    return with_queues(implementation, 2, run)


def pair(implementation: str, count: int) -> float:
    """Return what a put and a get in one thread take, in nanoseconds."""

    def run(queue: Any) -> float:
        send, receive = ends(implementation, queue)
        item = bytes(harness.SIZE)
        begin = time.thread_time()
        for _ in range(count):
            send(item)
            receive()
        return (time.thread_time() - begin) / count * 1e9

    return with_queues(implementation, 1, run)


def batches(implementation: str, count: int) -> float:
    """Return what each message takes in batches that are put and got in one thread, in nanoseconds."""

    def run(queue: Any) -> float:
        ends(implementation, queue)
        handle, batch = OPEN[-1], [bytes(harness.SIZE)] * BATCH
        begin = time.thread_time()
        for _ in range(count // BATCH):
            handle.put_many(batch)
            handle.get_many(BATCH)
        return (time.thread_time() - begin) / count * 1e9

    return with_queues(implementation, 1, run)


def idle(seconds: float = 2.0) -> float:
    """Return the processor time that a blocked get takes, in milliseconds."""
    import ipcq

    with ipcq.open(f"{NAME}-{os.getpid()}", "shm", exclusive=True) as queue:
        before = time.process_time()
        try:
            queue.get(timeout=seconds)
        except ipcq.QueueEmpty:
            pass
        queue.unlink()
        return (time.process_time() - before) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=300_000, help="messages of 64 B in a sample of ours")
    parser.add_argument("--only", help="the workloads to run, separated by commas")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    workloads: dict[str, tuple[str, dict[str, Callable[[], float]]]] = {
        "64 B": ("messages/s", {name: partial(rate, name, given.count, 64) for name in SHARE}),
        "64 B from 4": ("messages/s", {name: partial(rate, name, given.count, 64, 4, 1) for name in SHARE}),
        "64 B from 2 to 2": ("messages/s", {name: partial(rate, name, given.count, 64, 2, 2) for name in SHARE}),
        "1 KiB": ("messages/s", {name: partial(rate, name, given.count // 2, 1024) for name in SHARE}),
        "64 KiB": ("messages/s", {name: partial(rate, name, given.count // 20, 65536) for name in SHARE}),
        "1 MiB": ("messages/s", {name: partial(rate, name, given.count // 200, (1 << 20) - 64) for name in SHARE}),
        "round trip": ("us", {name: partial(round_trip, name, given.count // 10) for name in SHARE}),
        "pair in one thread": (
            "ns",
            {name: partial(pair, name, given.count // 3) for name in IN_ONE_THREAD},
        ),
        "batches of 100": ("ns", {name: partial(batches, name, given.count) for name in ("ipcq", "ipcq raw")}),
    }
    report: dict[str, Any] = {}
    chosen = given.only.split(",") if given.only else list(workloads)
    workloads = {name: workloads[name] for name in chosen}
    for workload, (unit, contestants) in workloads.items():
        measured = harness.rounds(contestants, given.rounds)
        base = measured.get("multiprocessing") or list(measured.values())[-1]
        report[workload] = {
            name: {"median": statistics.median(of), "unit": unit, "ratio": harness.paired(of, base)}
            for name, of in measured.items()
        }
    report["blocked for 2 s"] = {"ipcq": {"median": idle(), "unit": "ms of processor time"}}
    if given.json:
        json.dump({"machine": harness.machine(), "rounds": given.rounds, "results": report}, sys.stdout, indent=2)
        return
    print(*harness.machine().values(), f"{given.rounds} rounds", sep=" · ")
    for workload, results in report.items():
        for name, figures in results.items():
            low, median, high = figures.get("ratio", (1, 1, 1))
            print(
                f"{workload:<20}{name:<24}{figures['median']:>14,.2f} {figures['unit']:<12}"
                f"{median:8.2f} x ({low:.2f} to {high:.2f})"
            )


if __name__ == "__main__":
    main()
