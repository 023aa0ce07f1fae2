"""The backend sqlite compared with persist-queue, litequeue and huey, which keep their queues in SQLite, too.

Each contestant puts messages of 64 bytes and takes them: alone in a process, in
batches of 100, and with a producer in another process. What leases or marks a
message also acknowledges it. The two halves of the table differ in what a power
cut may take: nothing (the journal is synced at each commit), or the last moments.
Goals: as fast as each peer of the same half, and batches 10 times as fast as its
single messages. The disk decides the first half, so measure where queues will be.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click

import ipcq

ITEM = b"x" * 64
BATCH = 100
#: The argument of the script that lets it put messages.
PRODUCE = "produce"


class Ends(NamedTuple):
    """What a contestant does with its queue."""

    put: Callable[[bytes], object]
    take: Callable[[], bool]
    """Takes a message and acknowledges it; returns whether there was one."""
    put_many: Callable[[list[bytes]], object] | None = None
    take_many: Callable[[int], int] | None = None


Opener = Callable[[str], AbstractContextManager[Ends]]


@contextmanager
def opened(place: str, durability: str, leases: bool) -> Iterator[Ends]:
    """ipcq, through its public interface."""
    options: dict[str, Any] = {"durability": durability, "serializer": "raw", "leases": leases}
    with ipcq.open("/bench", f"sqlite://{place}/", **options) as queue:

        def get() -> bool:
            try:
                queue.get(block=False)
            except ipcq.QueueEmpty:
                return False
            return True

        def lease() -> bool:
            try:
                queue.lease(block=False).ack()
            except ipcq.QueueEmpty:
                return False
            return True

        def get_many(count: int) -> int:
            return len(queue.get_many(count))

        def lease_many(count: int) -> int:
            jobs = queue.lease_many(count)
            queue.ack_many(jobs)
            return len(jobs)

        yield Ends(queue.put, lease if leases else get, queue.put_many, lease_many if leases else get_many)


@contextmanager
def persist_queue(place: str, durability: str, leases: bool) -> Iterator[Ends]:
    """persist-queue: SQLite's default syncs each commit."""
    from persistqueue import SQLiteAckQueue
    from persistqueue.exceptions import Empty

    queue = SQLiteAckQueue(place, auto_commit=True, multithreading=True)

    def take() -> bool:
        try:
            queue.ack(queue.get(block=False))
        except Empty:
            return False
        return True

    yield Ends(queue.put, take)
    queue.close()


@contextmanager
def litequeue(place: str, durability: str, leases: bool) -> Iterator[Ends]:
    """litequeue: it holds text, and does not sync each commit unless told to."""
    from litequeue import LiteQueue

    queue = LiteQueue(f"{place}/queue")
    if durability == "full":
        queue.conn.execute("PRAGMA synchronous = FULL")

    def take() -> bool:
        message = queue.pop()
        if message is None:
            return False
        queue.done(message.message_id)
        return True

    yield Ends(lambda item: queue.put(item.decode()), take)
    queue.close()


@contextmanager
def huey(place: str, durability: str, leases: bool) -> Iterator[Ends]:
    """huey's storage: it removes a message as it takes it, without an acknowledgement."""
    from huey.storage import SqliteStorage

    storage = SqliteStorage(filename=f"{place}/queue", fsync=durability == "full")
    yield Ends(storage.enqueue, lambda: storage.dequeue() is not None)
    storage.close()


#: By name: how to open it, the module that it needs, its durability, and whether it leases.
CONTESTANTS: dict[str, tuple[Any, str, str, bool]] = {
    "ipcq": (opened, "ipcq", "full", False),
    "ipcq, leases": (opened, "ipcq", "full", True),
    "persist-queue, SQLiteAckQueue": (persist_queue, "persistqueue", "full", True),
    "litequeue, synced": (litequeue, "litequeue", "full", True),
    "huey, fsync": (huey, "huey", "full", False),
    "ipcq, normal": (opened, "ipcq", "normal", False),
    "ipcq, normal, leases": (opened, "ipcq", "normal", True),
    "litequeue": (litequeue, "litequeue", "normal", True),
    "huey, without fsync": (huey, "huey", "normal", False),
}


def produce(name: str, place: str, count: int) -> None:
    """Put messages; the script runs this in another process."""
    open_ends, _, durability, leases = CONTESTANTS[name]
    with open_ends(place, durability, leases) as ends:
        print("ready", flush=True)
        for _ in range(count):
            ends.put(ITEM)


@contextmanager
def producer(name: str, place: str, count: int) -> Iterator[None]:
    command = [sys.executable, __file__, PRODUCE, name, place, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError("the producer did not start")
        yield


def round_of(name: str, count: int, parent: str | None) -> dict[str, float]:
    """Return the figures of one round, in messages a second."""
    open_ends, _, durability, leases = CONTESTANTS[name]
    figures = {}
    with TemporaryDirectory(prefix="ipcq-bench-", dir=parent) as place:
        with open_ends(place, durability, leases) as ends:
            begin = time.perf_counter()
            for _ in range(count):
                ends.put(ITEM)
            middle = time.perf_counter()
            for _ in range(count):
                if not ends.take():
                    raise RuntimeError(f"{name} has lost a message")
            figures["put"] = count / (middle - begin)
            figures["take"] = count / (time.perf_counter() - middle)
            if ends.put_many is not None and ends.take_many is not None:
                rounds = max(1, count // 10)
                begin = time.perf_counter()
                for _ in range(rounds):
                    ends.put_many([ITEM] * BATCH)
                taken = 0
                while taken < rounds * BATCH:
                    taken += ends.take_many(BATCH)
                figures["in batches"] = taken / (time.perf_counter() - begin)
            with producer(name, place, count):
                begin, taken = time.perf_counter(), 0
                while taken < count:
                    if ends.take():
                        taken += 1
                    else:
                        time.sleep(0.0002)
                figures["1 to 1"] = count / (time.perf_counter() - begin)
        if open_ends is opened:
            ipcq.unlink("/bench", f"sqlite://{place}/")
    return figures


@click.command(help=f"\b\n{__doc__}")
@click.option("--rounds", default=5, show_default=True, help="Rounds, in which the contestants take turns.")
@click.option("--messages", default=300, show_default=True, help="Messages of each figure.")
@click.option("--directory", type=click.Path(exists=True, file_okay=False), help="Where the queues are.")
def main(rounds: int, messages: int, directory: str | None) -> None:
    found: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds):
        click.echo(f"round {number + 1} of {rounds}", err=True)
        for name, (_, module, _, _) in CONTESTANTS.items():
            if find_spec(module) is None:
                continue
            for figure, value in round_of(name, messages, directory).items():
                found.setdefault(name, {}).setdefault(figure, []).append(value)
    columns = ("put", "take", "1 to 1", "in batches")
    click.echo("| messages/s, median of the rounds (smallest–largest) |" + "".join(f" {each} |" for each in columns))
    click.echo("|---|" + "---:|" * len(columns))
    for name in CONTESTANTS:
        figures = found.get(name, {})
        cells = (_cell(figures.get(each)) for each in columns) if figures else ["not installed"] * len(columns)
        click.echo(f"| {name} | {' | '.join(cells)} |")


def _cell(values: list[float] | None) -> str:
    if values is None:
        return "–"
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}–{max(values):,.0f})"


if __name__ == "__main__":
    if sys.argv[1:2] == [PRODUCE]:
        produce(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
