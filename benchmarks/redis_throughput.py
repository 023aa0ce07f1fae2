"""The backend redis compared with redis-py's bare calls and with RQ, on a Redis server of its own on this machine.

Each contestant puts messages of 64 bytes and takes them: in one thread, in
batches of 100, and with a producer in another process. A lease is also
acknowledged. redis-py calls LPUSH and BRPOP, and loses what a killed consumer has
taken. RQ's figure includes running a function that notes the message. Goals: a put
and a get take at most 1.2 times the processor time of redis-py's calls in the
client, and a message in a batch moves 20 times as fast as a single one.

Processor time is that of the client, and of the server for both calls. "Wake-up" is
the time from before a put to after the get of a process that has waited for it.
The server keeps nothing on disk, unless --appendfsync is given.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click
from leases import server

import ipcq

BATCH = 100
SIZE = 64
#: Seconds for which a consumer has waited before it is woken.
IDLE_SECONDS = 0.005
#: The arguments of the script that let it put messages, and take them.
PRODUCE, CONSUME = "produce", "consume"

#: The messages that jobs of RQ have noted.
noted: list[bytes] = []


class Ends(NamedTuple):
    """What a contestant does with its queue."""

    put: Callable[[bytes], object]
    take: Callable[[int], list[bytes]]
    """Waits for so many messages, one after the other, and acknowledges each."""
    put_many: Callable[[list[bytes]], object] | None = None
    take_many: Callable[[int], list[bytes]] | None = None
    """Takes up to so many messages, and acknowledges them."""


Opener = Callable[[int], AbstractContextManager[Ends]]


@contextmanager
def plain(port: int) -> Iterator[Ends]:
    """ipcq, through its public interface."""
    with ipcq.open("/bench", f"redis://127.0.0.1:{port}/0/", serializer="raw") as queue:
        yield Ends(
            queue.put, lambda count: [queue.get() for _ in range(count)], queue.put_many, lambda n: queue.get_many(n)
        )


@contextmanager
def leasing(port: int) -> Iterator[Ends]:
    """ipcq with leases."""
    with ipcq.open("/bench", f"redis://127.0.0.1:{port}/0/", serializer="raw", leases=True) as queue:

        def take(count: int) -> list[bytes]:
            items = []
            for _ in range(count):
                job = queue.lease()
                items.append(job.item)
                job.ack()
            return items

        def take_many(count: int) -> list[bytes]:
            jobs = queue.lease_many(count)
            queue.ack_many(jobs)
            return [job.item for job in jobs]

        yield Ends(queue.put, take, queue.put_many, take_many)


def bare(parser: str) -> Opener:
    """Return the opener of redis-py's calls, with one of its parsers."""

    @contextmanager
    def opened(port: int) -> Iterator[Ends]:
        import redis
        from redis import _parsers

        pool = redis.ConnectionPool(port=port, parser_class=getattr(_parsers, parser))
        client: Any = redis.Redis(connection_pool=pool)
        yield Ends(
            lambda item: client.lpush("bench", item),
            lambda count: [client.brpop("bench")[1] for _ in range(count)],
            lambda items: client.lpush("bench", *items),
            lambda count: client.rpop("bench", count) or [],
        )
        pool.disconnect()

    return opened


@contextmanager
def rq(port: int) -> Iterator[Ends]:
    """RQ: its worker runs each job in this process."""
    import redis
    from rq import Queue, SimpleWorker

    with redis.Redis(port=port) as connection:
        queue = Queue(connection=connection)

        def take(count: int) -> list[bytes]:
            from redis_throughput import noted  # the module that the worker imports; this one may be __main__

            worker = SimpleWorker([queue], connection=connection)
            worker.work(max_jobs=count, logging_level="ERROR", with_scheduler=False)
            items = noted[:]
            noted.clear()
            return items

        yield Ends(lambda item: queue.enqueue("redis_throughput.note", item, result_ttl=0), take)


def note(item: bytes) -> None:
    """Be a job of RQ."""
    noted.append(item)


#: By name: how to open it, and the module that it needs.
CONTESTANTS: dict[str, tuple[Opener, str]] = {
    "ipcq": (plain, "redis"),
    "ipcq, leases": (leasing, "redis"),
    "redis-py": (bare("_RESP2Parser"), "redis"),
    "redis-py, hiredis": (bare("_HiredisParser"), "hiredis"),
    "RQ, SimpleWorker": (rq, "rq"),
}

#: The heads of the columns, by figures.
COLUMNS = {
    "put": "put, µs of processor",
    "take": "take, µs of processor",
    "server": "server, µs of processor",
    "one": "one thread, messages/s",
    "processes": "two processes, messages/s",
    "batches": "batches, messages/s",
    "wake": "wake-up, µs",
}


def items_of(count: int) -> list[bytes]:
    return [number.to_bytes(8, "big").ljust(SIZE, b"x") for number in range(count)]


def produce(name: str, port: int, count: int) -> None:
    """Put messages; the script runs this in another process."""
    with CONTESTANTS[name][0](port) as ends:
        print("ready", flush=True)
        for item in items_of(count):
            ends.put(item)


def consume(name: str, port: int, count: int) -> None:
    """Take messages, and tell when each was there; the script runs this in another process."""
    with CONTESTANTS[name][0](port) as ends:
        print("ready", flush=True)
        for _ in range(count):
            ends.take(1)
            print(time.monotonic_ns(), flush=True)


@contextmanager
def another(verb: str, name: str, port: int, count: int) -> Iterator[Callable[[], str]]:
    """Start another process, and yield what reads its lines."""
    command = [sys.executable, __file__, verb, name, str(port), str(count)]
    # The worker of RQ imports this file.
    path = [str(Path(__file__).parent), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError("the other process did not start")
        yield process.stdout.readline


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def server_seconds(admin: Any) -> float:
    used = admin.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def check(name: str, taken: Sequence[bytes], put: Sequence[bytes]) -> None:
    """Check that each message came once and in order."""
    if list(taken) != list(put):
        raise RuntimeError(f"{name} has lost, doubled or swapped messages: {len(taken)} of {len(put)} came")


def round_of(name: str, count: int, port: int) -> dict[str, float]:
    """Return the figures of one round."""
    import redis

    opener, _ = CONTESTANTS[name]
    figures = {}
    items = items_of(count)
    with redis.Redis(port=port) as admin:
        admin.flushall()
        with opener(port) as ends:
            ends.put(items[0])  # connects, and sends the scripts
            check(name, ends.take(1), items[:1])
            begin, server_before, before = time.perf_counter(), server_seconds(admin), processor_seconds()
            for item in items:
                ends.put(item)
            between = processor_seconds()
            taken = ends.take(count)
            after, server_after, end = processor_seconds(), server_seconds(admin), time.perf_counter()
            check(name, taken, items)
            figures["put"] = (between - before) / count * 1e6
            figures["take"] = (after - between) / count * 1e6
            figures["server"] = (server_after - server_before) / count * 1e6
            figures["one"] = count / (end - begin)
            with another(PRODUCE, name, port, count):
                begin = time.perf_counter()
                taken = ends.take(count)
                figures["processes"] = count / (time.perf_counter() - begin)
            check(name, taken, items)
            if ends.put_many is not None and ends.take_many is not None:
                many = items_of(count // BATCH * BATCH or BATCH)
                taken = []
                begin = time.perf_counter()
                for start in range(0, len(many), BATCH):
                    ends.put_many(many[start : start + BATCH])
                while len(taken) < len(many):
                    taken += ends.take_many(BATCH)
                figures["batches"] = len(many) / (time.perf_counter() - begin)
                check(name, taken, many)
            if ends.put_many is not None:  # the worker of RQ is no call that waits
                figures["wake"] = statistics.median(wake_ups(name, ends, port, min(count, 50)))
    return figures


def wake_ups(name: str, ends: Ends, port: int, count: int) -> Iterator[float]:
    """Yield times from before a put to after the get of another process, in microseconds."""
    with another(CONSUME, name, port, count) as line:
        for item in items_of(count):
            time.sleep(IDLE_SECONDS)
            begin = time.monotonic_ns()
            ends.put(item)
            yield (int(line()) - begin) / 1000


@click.command(help=f"\b\n{__doc__}")
@click.option("--rounds", default=5, show_default=True, help="Rounds, in which the contestants take turns.")
@click.option("--messages", default=2000, show_default=True, help="Messages of each figure.")
@click.option(
    "--appendfsync", type=click.Choice(["always", "everysec", "no"]), help="Let the server keep an append-only file."
)
def main(rounds: int, messages: int, appendfsync: str | None) -> None:
    found: dict[str, list[dict[str, float]]] = {}
    settings = ("--appendonly", "yes", "--appendfsync", appendfsync) if appendfsync else ()
    with server(*settings) as port:
        for number in range(rounds):
            click.echo(f"round {number + 1} of {rounds}", err=True)
            for name, (_, module) in CONTESTANTS.items():
                if find_spec(module) is not None:
                    found.setdefault(name, []).append(round_of(name, messages, port))
    click.echo("| median of the rounds (smallest–largest) |" + "".join(f" {each} |" for each in COLUMNS.values()))
    click.echo("|---|" + "---:|" * len(COLUMNS))
    for name in CONTESTANTS:
        figures = found.get(name)
        cells = [_cell(figures, each) for each in COLUMNS] if figures else ["not installed"] * len(COLUMNS)
        click.echo(f"| {name} | {' | '.join(cells)} |")
    click.echo()
    for line in comparisons(found):
        click.echo(line)


def _cell(figures: list[dict[str, float]], figure: str) -> str:
    values = [each[figure] for each in figures if figure in each]
    if not values:
        return "–"
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}–{max(values):,.0f})"


def comparisons(found: dict[str, list[dict[str, float]]]) -> Iterator[str]:
    """Yield the ratios of the goals, paired by rounds."""
    rival = "redis-py, hiredis" if "redis-py, hiredis" in found else "redis-py"
    for name in ("ipcq", "ipcq, leases"):
        pairs = list(zip(found.get(name, []), found.get(rival, []), strict=False))
        for parts, meaning in (
            (("put", "take"), "the client"),
            (("put", "take", "server"), "client and server"),
        ):
            ratios = [sum(ours[part] for part in parts) / sum(theirs[part] for part in parts) for ours, theirs in pairs]
            if ratios:
                yield f"{name}: {statistics.median(ratios):.2f} times the processor time of {meaning} of {rival}"
        ratios = [ours["batches"] / ours["one"] for ours, _ in pairs]
        if ratios:
            yield f"{name}: {statistics.median(ratios):.1f} times as many messages a second in batches as one by one"


if __name__ == "__main__":
    if sys.argv[1:2] == [PRODUCE]:
        produce(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == [CONSUME]:
        consume(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
