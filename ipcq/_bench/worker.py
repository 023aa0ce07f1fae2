"""A producer or consumer process.

A worker reports that it is ready, waits for the start, and reports its result or its error. A producer then waits for
the number of end markers to put. A single consumer gets one from each producer, because on every kind of queue only the
messages of one producer are in order. Several consumers get one each, all from the first producer, after all others are
done.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ipcq._bench.contestant import Plan
from ipcq._bench.payloads import Payloads, Wrong, data
from ipcq._bench.workload import PAUSE, SMALL, Kind, Workload
from ipcq.testing.processes import hear, say
from ipcq.testing.tally import Tally

clock = time.perf_counter  # on Linux, all processes share one clock

#: Round trips or wake-ups to discard at the start.
WARMING = 5

Report = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """The job of one worker. It is sent to the worker."""

    plan: Plan
    workload: Workload
    addresses: tuple[Any, ...]
    producer: int | None
    """The number of the producer; None for a consumer."""
    seconds: float

    @property
    def role(self) -> str:
        """Return the role for error messages."""
        return "consumer" if self.producer is None else f"producer {self.producer}"


class Talk:
    """A worker's connection to its parent.

    Args:
        say: Sends a JSON value.
        hear: Waits for a JSON value, and returns it.
    """

    def __init__(self, say: Callable[[object], None], hear: Callable[[], Any]) -> None:
        self._say = say
        self._hear = hear

    def go(self) -> None:
        """Report that the worker is ready, and wait for the start."""
        self.tell({"ready": True})

    def tell(self, report: Report) -> Any:
        """Send a report, and return the answer."""
        self._say(report)
        return self._hear()

    def all_put(self, report: Report, put: Callable[[Any], object], stop: Any) -> None:
        """Send a report, put as many end markers as the answer says, and wait until they have arrived."""
        for _ in range(self.tell(report)):
            put(stop)
        # Some libraries lose messages in transit when the producer exits.
        self._hear()


def main(job: Job) -> None:  # pragma: no cover - in the worker's process
    """Run a worker process."""
    try:
        work(job, Talk(say, hear))
    except EOFError:
        raise  # the parent is gone
    except Exception as error:
        say({"error": str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"})


def work(job: Job, talk: Talk) -> None:
    """Do the job."""
    kind = job.workload.kind
    if kind is Kind.TRIP:
        (serve if job.producer is None else ask)(job, talk)
    elif job.producer is None:
        reader = job.plan.reader(job.addresses[0], job.workload)
        if kind is Kind.STREAM:
            consume(job, talk, reader.get, reader.get_many)
        else:
            (be_woken if kind is Kind.WAKE else be_blocked)(talk, reader.get)
        reader.finish()
    else:
        writer = job.plan.writer(job.addresses[0], job.workload)
        if kind is Kind.STREAM:
            payloads = job.plan.payloads(job.workload, job.producer)
            produce(job, talk, writer.put, writer.put_many, payloads)
        else:
            wake(job, talk, writer.put)
        writer.finish()


def produce(
    job: Job,
    talk: Talk,
    put: Callable[[Any], object],
    put_many: Callable[[list[Any]], object] | None,
    payloads: Payloads,
) -> None:
    """Put as fast as possible for the duration of the sample."""
    talk.go()
    used, count = time.process_time(), 0
    until = clock() + job.seconds
    while clock() < until:
        block = payloads.block()
        if put_many is not None and job.workload.batch:
            put_many(block)
        else:
            for message in block:
                put(message)
        count += len(block)
    talk.all_put({"sent": count, "cpu": time.process_time() - used}, put, payloads.stop)


def consume(job: Job, talk: Talk, get: Callable[[], Any], get_many: Callable[[int], list[Any]] | None) -> None:
    """Get as fast as possible until all producers are done. The clock starts with the first messages."""
    payloads = job.plan.payloads(job.workload, 0)
    batches = get_many if job.workload.batch else None
    ends = job.workload.producers if job.workload.consumers == 1 else 1
    talk.go()
    used = time.process_time()
    begin = last = 0.0
    first = count = 0
    for _ in range(ends):
        # Both loops run in C where possible, and end with the end marker.
        blocks = batched(batches, payloads) if batches else singly(get, payloads)
        for messages in blocks:
            last = clock()
            count += len(messages)
            if not begin:
                begin, first = last, count
            payloads.take(messages)
    cpu = time.process_time() - used
    talk.tell({"begin": begin, "end": last, "first": first, "received": count, "cpu": cpu, "seen": payloads.report()})


def singly(get: Callable[[], Any], payloads: Payloads) -> Iterator[list[Any]]:
    """Yield received messages: the first one alone, then lists of `payloads.step`."""
    coming = iter(get, payloads.stop)
    step = 1
    while messages := list(islice(coming, step)):
        yield messages
        step = payloads.step


def batched(get_many: Callable[[int], list[Any]], payloads: Payloads) -> Iterator[list[Any]]:
    """Yield received batches."""
    while True:
        messages = get_many(payloads.step)
        if messages[-1] == payloads.stop:
            yield messages[:-1]
            return
        yield messages


def ask(job: Job, talk: Talk) -> None:
    """Send messages, and wait for each to return."""
    there = job.plan.writer(job.addresses[0], job.workload)
    back = job.plan.reader(job.addresses[1], job.workload)
    stop = data(-1, SMALL)
    talk.go()
    used = time.process_time()
    until = clock() + job.seconds
    if job.plan.awaited:
        import asyncio

        stamps = asyncio.run(await_trips(there.put, back.get, until, stop))
    else:
        stamps = make_trips(there.put, back.get, until)
        there.put(stop)
    cpu = time.process_time() - used
    trips = sorted(
        (after - before) * 1e6 for before, after in zip(stamps[WARMING:], stamps[WARMING + 1 :], strict=False)
    )
    talk.tell({"values": spread(trips), "received": len(stamps) - 1, "cpu": cpu})
    there.finish()
    back.finish()


def make_trips(put: Callable[[Any], object], get: Callable[[], Any], until: float) -> list[float]:
    """Make round trips; return the start time of each, and the end of the last one."""
    messages = [data(number, SMALL) for number in range(128)]
    stamps: list[float] = []
    while (now := clock()) < until or len(stamps) <= WARMING:
        message = messages[len(stamps) & 127]
        stamps.append(now)
        put(message)
        if get() != message:
            raise Wrong(f"what came back on round trip {len(stamps) - 1} is not what was sent")
    return [*stamps, now]


async def await_trips(put: Callable[[Any], Any], get: Callable[[], Any], until: float, stop: Any) -> list[float]:
    """Do the same with ends that must be awaited, and put the end marker."""
    messages = [data(number, SMALL) for number in range(128)]
    stamps: list[float] = []
    while (now := clock()) < until or len(stamps) <= WARMING:
        message = messages[len(stamps) & 127]
        stamps.append(now)
        await put(message)
        if await get() != message:
            raise Wrong(f"what came back on round trip {len(stamps) - 1} is not what was sent")
    await put(stop)
    return [*stamps, now]


def serve(job: Job, talk: Talk) -> None:
    """Send every message back."""
    there = job.plan.reader(job.addresses[0], job.workload)
    back = job.plan.writer(job.addresses[1], job.workload)
    stop = data(-1, SMALL)
    talk.go()
    used = time.process_time()
    if job.plan.awaited:
        import asyncio

        asyncio.run(await_and_send_back(there.get, back.put, stop))
    else:
        put = back.put
        for message in iter(there.get, stop):
            put(message)
    talk.tell({"cpu": time.process_time() - used})
    there.finish()
    back.finish()


async def await_and_send_back(get: Callable[[], Any], put: Callable[[Any], Any], stop: Any) -> None:
    """Send every message back, with ends that must be awaited."""
    while (message := await get()) != stop:
        await put(message)


def wake(job: Job, talk: Talk, put: Callable[[Any], object]) -> None:
    """Put timestamped messages, each after a pause."""
    idle = job.workload.kind is Kind.IDLE
    pause = job.seconds if idle else PAUSE
    least = 1 if idle else WARMING + 1
    talk.go()
    until = clock() + (0 if idle else job.seconds)
    count = 0
    while count < least or clock() < until:
        time.sleep(pause)
        put(data(round(clock() * 1e9), SMALL))
        count += 1
    talk.all_put({"sent": count}, put, data(-1, SMALL))


def be_woken(talk: Talk, get: Callable[[], Any]) -> None:
    """Get messages, and record the latency of each."""
    stop = data(-1, SMALL)
    talk.go()
    ways: list[float] = []
    before = 0
    while (message := get()) != stop:
        now = clock()
        sent = int.from_bytes(message[:8], "little")
        if sent <= before:
            raise Wrong(f"message {len(ways)} is duplicated or out of order")
        before = sent
        ways.append(now * 1e6 - sent / 1e3)
    talk.tell({"values": spread(sorted(ways[WARMING:])), **taken(len(ways))})


def be_blocked(talk: Talk, get: Callable[[], Any]) -> None:
    """Wait for a message, and record the CPU time of the wait."""
    talk.go()
    used = time.process_time()
    get()
    used = time.process_time() - used
    received = 1 + sum(1 for _ in iter(get, data(-1, SMALL)))
    talk.tell({"values": (used * 1e3, None), **taken(received)})


def taken(count: int) -> Report:
    """Return the report of a consumer that has checked the order itself."""
    return {"received": count, "seen": Tally.of_first(count).report()}


def spread(ordered: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    return ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
