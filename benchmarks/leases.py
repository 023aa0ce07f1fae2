"""How many messages a second a worker leases and acknowledges, compared with queues of other libraries for jobs.

Run ``python benchmarks/leases.py``. The contestants take turns in rounds, with messages of 64 bytes; the output has
medians. "One by one" leases and acknowledges in one thread, from a queue that is full before; "batches" does so with
`lease_many` and `ack_many`, 100 at a time; "two processes" leases while another process puts; "put, get" is a plain
queue of the same backend. Goals for shm: at least 1.5 million pairs a second one by one, 5 million messages in batches,
and a million with two processes; for pyshm, at least half of its plain queue.

"Held" is the time of a put and a get on a queue with leases in which messages are leased and delayed, divided by that
on an empty one. Goal for shm: at most 2.

The files of persist-queue and huey are in /dev/shm, so that no disk is measured. huey's storage removes a message when
it is taken, so a killed worker loses it. RQ needs a Redis server; its figure includes running a function that does
nothing, in the worker's process.
"""

import argparse
import json
import multiprocessing
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from itertools import repeat
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import ipcq
from ipcq._bench.contestant import Declined
from ipcq._bench.machine import machine
from ipcq._bench.queues import new_name
from ipcq._bench.report import FORMAT

ITEM = bytes(64)
BACKENDS = ("shm", "pyshm", "memory")
BATCH = 100

#: The figures, and the heads of their columns.
COLUMNS = {
    "pairs": "one by one",
    "batches": "batches",
    "processes": "two processes",
    "plain": "put, get",
    "to plain": "to put, get",
    "held": "held",
}

#: Space for a message with its place in a queue with leases, rounded up, in bytes.
ROOM = 512

#: Where the files of peers are.
SHARED_MEMORY = "/dev/shm"

#: Seconds that a server may take to start.
START_SECONDS = 10.0


class Ends(NamedTuple):
    """What a contestant does with its queue."""

    fill: Callable[[int], object]
    """Puts so many messages."""
    work: Callable[[int], object]
    """Takes as many and acknowledges them, one by one."""
    work_many: Callable[[int], object] | None = None
    """The same in batches of `BATCH`."""
    fill_elsewhere: Callable[[int], AbstractContextManager[object]] | None = None
    """Lets another process put so many messages."""


class Jobs:
    """A contestant."""

    name = ""
    messages = 500
    """How many messages a figure of a round needs, at most."""

    @contextmanager
    def open(self, messages: int) -> Iterator[Ends]:
        """Open a new queue with space for so many messages.

        Raises:
            Declined: It cannot be measured here.
        """
        raise NotImplementedError


class Ipcq(Jobs):
    """ipcq, through its public interface."""

    messages = 1_000_000

    def __init__(self, backend: str, *, leases: bool = True) -> None:
        self.name = f"ipcq {backend}" if leases else f"ipcq {backend}, plain"
        self.backend = backend
        self._leases = leases

    @contextmanager
    def open(self, messages: int) -> Iterator[Ends]:
        name = new_name()
        try:
            queue: ipcq.Queue[Any] = ipcq.open(
                name, self.backend, exclusive=True, leases=self._leases, buffer_size=messages * ROOM
            )
        except (ipcq.Unsupported, ipcq.LimitExceeded, ipcq.NoSpace, ipcq.BackendUnavailable) as error:
            raise Declined(error.detail or str(error)) from None
        try:
            yield self._ends(queue, name)
        finally:
            queue.unlink()
            queue.close()

    def _ends(self, queue: "ipcq.Queue[Any]", name: str) -> Ends:
        lease, lease_many, ack_many, put, get = queue.lease, queue.lease_many, queue.ack_many, queue.put, queue.get

        def fill(count: int) -> None:
            for _ in repeat(None, count):
                put(ITEM)

        def work(count: int) -> None:
            for _ in repeat(None, count):
                lease().ack()

        def work_many(count: int) -> None:
            while count:
                jobs = lease_many(min(count, BATCH))
                ack_many(jobs)
                count -= len(jobs)

        def take(count: int) -> None:
            for _ in repeat(None, count):
                get()

        if not self._leases:
            return Ends(fill, take)
        across = queue.capabilities.scope >= ipcq.Scope.HOST
        return Ends(fill, work, work_many, lambda count: producer(name, self.backend, count) if across else None)


@contextmanager
def producer(name: str, backend: str, count: int) -> Iterator[None]:
    """Start a process that puts, and wait until it is about to."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=produce, args=(name, backend, count, ready))
    process.start()
    if not ready.wait(START_SECONDS):
        raise RuntimeError("the producer did not start")
    try:
        yield
    finally:
        process.join()


def produce(name: str, backend: str, count: int, ready: Any) -> None:
    with ipcq.open(name, backend, create=False) as queue:
        ready.set()
        for _ in repeat(None, count):
            queue.put(ITEM)


class PersistQueue(Jobs):
    """persist-queue: a queue in an SQLite file, with an acknowledgement for each message."""

    name = "persist-queue, SQLiteAckQueue"

    @contextmanager
    def open(self, messages: int) -> Iterator[Ends]:
        needs("persistqueue")
        from persistqueue import SQLiteAckQueue

        with TemporaryDirectory(prefix="ipcq-bench-", dir=SHARED_MEMORY) as directory:
            queue = SQLiteAckQueue(directory, auto_commit=True)

            def fill(count: int) -> None:
                for _ in repeat(None, count):
                    queue.put(ITEM)

            def work(count: int) -> None:
                for _ in repeat(None, count):
                    queue.ack(queue.get())

            yield Ends(fill, work)
            queue.close()


class Huey(Jobs):
    """huey: its storage in an SQLite file, without its tasks and its consumer."""

    name = "huey, SqliteStorage, without ack"

    @contextmanager
    def open(self, messages: int) -> Iterator[Ends]:
        needs("huey")
        from huey.storage import SqliteStorage

        with TemporaryDirectory(prefix="ipcq-bench-", dir=SHARED_MEMORY) as directory:
            storage = SqliteStorage(filename=f"{directory}/jobs")

            def fill(count: int) -> None:
                for _ in repeat(None, count):
                    storage.enqueue(ITEM)

            def work(count: int) -> None:
                for _ in repeat(None, count):
                    if storage.dequeue() is None:
                        raise RuntimeError("huey has lost a message")

            yield Ends(fill, work)
            storage.close()


class Rq(Jobs):
    """RQ: jobs in a Redis server of its own on this machine, without a file."""

    name = "RQ, SimpleWorker"

    @contextmanager
    def open(self, messages: int) -> Iterator[Ends]:
        needs("rq")
        import redis
        import rq

        with server() as port, redis.Redis(port=port) as connection:
            queue = rq.Queue(connection=connection)

            def fill(count: int) -> None:
                for _ in repeat(None, count):
                    queue.enqueue(len, ITEM, result_ttl=0)

            def work(count: int) -> None:
                rq.SimpleWorker([queue], connection=connection).work(
                    burst=True, max_jobs=count, logging_level="ERROR", with_scheduler=False
                )

            yield Ends(fill, work)


def needs(module: str) -> None:
    if find_spec(module) is None:
        raise Declined("it is not installed")


@contextmanager
def server(*settings: str) -> Iterator[int]:
    """Start a Redis or Valkey server that keeps nothing unless its settings say so, and return its port."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise Declined("there is no Redis server: sudo apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *settings)
    with TemporaryDirectory(prefix="ipcq-bench-") as directory:
        process = subprocess.Popen([program, *options, "--dir", directory], stdout=subprocess.DEVNULL)
        try:
            wait_for(port)
            yield port
        finally:
            process.terminate()
            process.wait()


def wait_for(port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


# Measuring


def rate(count: int, work: Callable[[int], object]) -> float:
    begin = time.perf_counter()
    work(count)
    return count / (time.perf_counter() - begin)


def round_of(jobs: Jobs, messages: int) -> dict[str, float]:
    """Return the figures of one round, in messages a second."""
    count = min(messages, jobs.messages)
    figures: dict[str, float] = {}
    with jobs.open(count) as ends:
        ends.fill(count)
        figures["pairs"] = rate(count, ends.work)
        if ends.work_many is not None:
            ends.fill(count)
            figures["batches"] = rate(count, ends.work_many)
        elsewhere = ends.fill_elsewhere and ends.fill_elsewhere(count)
        if elsewhere is not None:
            with elsewhere:
                figures["processes"] = rate(count, ends.work)
    if isinstance(jobs, Ipcq):
        with Ipcq(jobs.backend, leases=False).open(count) as ends:
            begin = time.perf_counter()
            ends.fill(count)
            ends.work(count)
            figures["plain"] = count / (time.perf_counter() - begin)
        figures["to plain"] = figures["pairs"] / figures["plain"]
    return figures


def held(backend: str, leased: int, delayed: int, rounds: int) -> float:
    """Return the time of a put and a get beside messages that are leased and delayed, divided by that without.

    Raises:
        Declined: There is not enough memory.
    """
    count, jobs = 1000, Ipcq(backend)
    space = leased + delayed + count

    def seconds(ends: "ipcq.Queue[Any]") -> float:
        begin = time.perf_counter()
        for _ in repeat(None, count):
            ends.put(ITEM)
            ends.get()
        return time.perf_counter() - begin

    with both(jobs, space) as (empty, full):
        for _ in repeat(None, delayed):
            full.put(ITEM, delay=1e6)
        for _ in repeat(None, leased):
            full.put(ITEM)
        kept = [lease for _ in range(0, leased, BATCH) for lease in full.lease_many(min(BATCH, leased))]
        ratios = [seconds(full) / seconds(empty) for _ in range(rounds)]
        full.ack_many(kept)
    return statistics.median(ratios)


@contextmanager
def both(jobs: Ipcq, space: int) -> Iterator[tuple["ipcq.Queue[Any]", "ipcq.Queue[Any]"]]:
    """Open two queues of the same size."""
    names = new_name(), new_name()
    queues: list[ipcq.Queue[Any]] = []
    try:
        queues.extend(
            ipcq.open(name, jobs.backend, exclusive=True, leases=True, buffer_size=space * ROOM) for name in names
        )
        yield queues[0], queues[1]
    except (ipcq.Unsupported, ipcq.LimitExceeded, ipcq.NoSpace, ipcq.BackendUnavailable) as error:
        raise Declined(error.detail or str(error)) from None
    finally:
        for queue in queues:
            queue.unlink()
            queue.close()


def contestants() -> list[Jobs]:
    return [*map(Ipcq, BACKENDS), PersistQueue(), Huey(), Rq()]


def report(
    rounds: int, messages: int, leased: int, delayed: int, plans: Sequence[Jobs] | None = None
) -> dict[str, Any]:
    """Measure all, and return medians by contestant; or why it was not measured."""
    chosen = contestants() if plans is None else plans
    turns: dict[str, list[dict[str, float]]] = {jobs.name: [] for jobs in chosen}
    declined: dict[str, str] = {}
    for _ in range(rounds):
        for jobs in chosen:
            if jobs.name not in declined:
                try:
                    turns[jobs.name].append(round_of(jobs, messages))
                except Declined as reason:
                    declined[jobs.name] = str(reason)
    results: dict[str, dict[str, Any]] = {}
    for jobs in chosen:
        if jobs.name in declined:
            results[jobs.name] = {"declined": declined[jobs.name]}
            continue
        first, *_ = of_one = turns[jobs.name]
        results[jobs.name] = {figure: statistics.median(turn[figure] for turn in of_one) for figure in first}
        if isinstance(jobs, Ipcq) and leased + delayed:
            try:
                results[jobs.name]["held"] = held(jobs.backend, leased, delayed, rounds)
            except Declined as reason:
                print(f"{jobs.name}: held: {reason}", file=sys.stderr)
    return {"format": FORMAT, "machine": machine(), "rounds": rounds, "results": results}


def show(results: Mapping[str, Mapping[str, Any]]) -> None:
    print(f"{'messages/s':<34}", *(f"{head:>14}" for head in COLUMNS.values()))
    for name, each in results.items():
        if "declined" not in each:
            cells = (shown(each.get(column)) for column in COLUMNS)
            print(f"{name:<34}", *(f"{cell:>14}" for cell in cells))
    for name, each in results.items():
        if "declined" in each:
            print(f"not measured: {name}: {each['declined']}")


def shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:,.0f}" if figure >= 100 else f"{figure:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=50_000, help="for each figure of a round")
    parser.add_argument("--leased", type=int, default=100_000, help="held meanwhile; 0 and 0 leave out this figure")
    parser.add_argument("--delayed", type=int, default=1_000_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    measured = report(given.rounds, given.messages, given.leased, given.delayed)
    if given.json:
        json.dump(measured, sys.stdout, indent=2)
        return
    print(*machine().values(), f"{given.rounds} rounds", sep=" · ")
    show(measured["results"])


if __name__ == "__main__":
    main()
