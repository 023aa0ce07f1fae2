"""The types of the public interface. This file is never run: mypy checks it, and `assert_type` is the test."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypedDict, assert_type

import ipcq
import ipcq.aio
from ipcq.backend import Attributes, Availability, Backend, Capabilities, Channel, Received, Request
from ipcq.hooks import hookimpl
from ipcq.logging import QueueHandler, QueueListener, RecordQueue
from ipcq.serializers import register


@dataclasses.dataclass
class Job:
    number: int


class Order(TypedDict):
    number: int


# A handle has the type that was given to open, or Any.
assert_type(ipcq.open("/jobs"), ipcq.Queue[Any])
assert_type(ipcq.open("/jobs", type=Job), ipcq.Queue[Job])
assert_type(ipcq.open("/jobs", "memory", create=False, wait=1.5, type=Order), ipcq.Queue[Order])
assert_type(ipcq.open("/jobs", type=dict[str, int]), ipcq.Queue[dict[str, int]])
# The same holds for types that are not classes.
assert_type(ipcq.open("/jobs", type=int | str), ipcq.Queue[int | str])
assert_type(ipcq.open("/jobs", type=Job | None, create=False), ipcq.Queue[Job | None])
assert_type(ipcq.open("/jobs", type=Literal["on", "off"]), ipcq.Queue[Literal["on", "off"]])
# A mistyped option is a type error too, so options of a backend are passed in a dict of Any.
ipcq.open("/jobs", max_message=4)  # type: ignore[call-overload]
ipcq.open("/jobs", typ=Job)  # type: ignore[call-overload]
ipcq.open("/jobs", option_of_a_backend=3)  # type: ignore[call-overload]
OF_A_BACKEND: dict[str, Any] = {"option_of_a_backend": 3}
assert_type(ipcq.open("/jobs", "memory", **OF_A_BACKEND), ipcq.Queue[Any])
MINIMA = {"persistence": ipcq.Persistence.DISK, "max_message_size": 1 << 20, "peek": True}
assert_type(ipcq.open("/jobs", require=MINIMA), ipcq.Queue[Any])
assert_type(ipcq.open("/jobs", require={"scope": "host"}, type=Job), ipcq.Queue[Job])
assert_type(ipcq.open("/jobs", require=("peek", "persistence:disk")), ipcq.Queue[Any])
ipcq.open("/jobs", lifetime="weekend")  # type: ignore[call-overload]
ipcq.open("/jobs", mode="0600")  # type: ignore[call-overload]

# Options of classes that pass them on are checked as well.
QueueHandler("/logs", backend="shm", max_messages=1000, timeout=0.1)
QueueListener("/logs", backend="shm", max_messages=1000)
RecordQueue("/logs", backend="shm", max_messages=1000)
QueueHandler("/logs", max_message=1000)  # type: ignore[call-arg]
QueueListener("/logs", max_message=1000)  # type: ignore[call-arg]
RecordQueue("/logs", mode="0600")  # type: ignore[arg-type]
ipcq.aio.open("/jobs", max_message=4)  # type: ignore[call-overload]
ipcq.aio.open("/jobs", lifetime="weekend")  # type: ignore[call-overload]


def verbs(queue: ipcq.Queue[Job]) -> None:
    queue.put(Job(1))
    queue.put(Job(1), timeout=0.5, priority=3)
    queue.put_nowait(Job(1))
    queue.put({"number": 1})  # type: ignore[call-overload]
    queue.put(Job(1), timeout=1, drop_oldest=True)  # type: ignore[call-overload]
    assert_type(queue.put(Job(1), drop_oldest=True), int)
    assert_type(queue.get_latest(timeout=1), Job)
    assert_type(queue.get(), Job)
    assert_type(queue.get_nowait(), Job)
    assert_type(queue.get_many(10, linger=0.5), list[Job])
    assert_type(queue.put_many([Job(1), Job(2)], timeout=0.5, priority=3), int)
    assert_type(queue.peek(), Job)
    assert_type(queue.clear(), int)
    assert_type(queue.qsize(), int)
    assert_type(queue.empty(), bool)
    assert_type(queue.full(), bool)
    message = queue.get_message(timeout=1)
    assert_type(message, ipcq.Message[Job])
    assert_type(message.item, Job)
    assert_type(message.priority, int)
    assert_type(queue.stats(), ipcq.Stats)
    assert_type(queue.stats().depth, int | None)
    assert_type(queue.fileno(), int)
    assert_type(queue.name, str)
    assert_type(queue.backend, str)
    assert_type(queue.capabilities, ipcq.Capabilities)
    assert_type(queue.mode, int)
    assert_type(queue.max_messages, int | None)
    assert_type(queue.max_message_size, int)
    assert_type(queue.closed, bool)
    queue.put(Job(1), delay=2.5)
    with queue.lease(hold=60) as lease:
        assert_type(lease, ipcq.Lease[Job])
        assert_type(lease.item, Job)
        assert_type(lease.deliveries, int)
        assert_type(lease.failures, int)
        assert_type(lease.lost, bool)
    leases = queue.lease_many(10, timeout=1)
    assert_type(leases, list[ipcq.Lease[Job]])
    queue.ack_many(leases)
    for lease in queue.leases():
        assert_type(lease.item, Job)
    queue.join(timeout=1)
    assert_type(queue.dead(), ipcq.DeadLetters[Job])
    assert_type(queue.dead().get(), Job)
    assert_type(queue.dead().peek_message(), ipcq.DeadLetter[Job])
    assert_type(queue.dead().requeue(), int)
    assert_type(queue.max_deliveries, int | None)
    for item in queue:
        assert_type(item, Job)
    with queue as same:
        assert_type(same, ipcq.Queue[Job])


def descriptors(queue: ipcq.Queue[bytes], ring: Callable[[], None]) -> None:
    queue.notify(ring)
    queue.notify(signal=10)
    queue.notify()
    queue.shutdown(immediate=True)


def inspection() -> None:
    assert_type(ipcq.exists("/jobs"), bool)
    for queue in ipcq.queues():
        assert_type(queue.name, str)
        assert_type(queue.backend, str)
    for backend in ipcq.backends():
        assert_type(backend.usable, bool)
        assert_type(backend.rank, int | None)
        assert_type(backend.capabilities, ipcq.Capabilities | None)


def errors() -> None:
    try:
        ipcq.open("/jobs", max_messages=50)
    except ipcq.LimitExceeded as error:
        assert_type(error.limit, str)
        assert_type(error.value, int)
        assert_type(error.remedy, str)
        assert_type(error.queue, str | None)
    except ipcq.BackendUnavailable as error:
        assert_type(error.reasons, dict[str, str])
    except ipcq.DecodeError as error:
        assert_type(error.data, bytes)


register(1001, "text", str.encode, bytes.decode)


# A minimal backend satisfies the protocols without a cast.
class EmptyChannel(Channel):
    capabilities = Capabilities()
    attributes = Attributes(mode=0o600, max_messages=8, max_message_size=8192)

    def try_put(self, data: bytes, priority: int, /) -> bool:
        return False

    def try_get(self) -> Received | None:
        return None

    def qsize(self) -> int:
        return 0

    def close(self) -> None:
        pass


class EmptyBackend(Backend):
    name = "empty"
    capabilities = Capabilities()

    def create(self, name: str, request: Request) -> Channel:
        return EmptyChannel()

    def attach(self, name: str, request: Request) -> Channel:
        return EmptyChannel()

    def exists(self, name: str) -> bool:
        return False

    def unlink(self, name: str) -> None:
        pass

    def probe(self) -> Availability:
        return Availability.no("it is an example")


@hookimpl
def ipcq_backend() -> Backend:
    return EmptyBackend()


async def awaited_verbs() -> None:
    async with ipcq.aio.open("/jobs", type=Job) as queue:
        assert_type(queue, ipcq.aio.Queue[Job])
        assert_type(await queue.get(), Job)
        assert_type(await queue.get_many(10, linger=0.5), list[Job])
        assert_type((await queue.get_message()).item, Job)
        assert_type([job async for job in queue], list[Job])
        async with queue.lease() as lease:
            assert_type(lease, ipcq.aio.Lease[Job])
            assert_type(lease.item, Job)
        assert_type(await queue.lease(hold=5), ipcq.aio.Lease[Job])
        assert_type([lease.item async for lease in queue.leases()], list[Job])
        assert_type(await queue.lease_many(5), list[ipcq.aio.Lease[Job]])
        await queue.put({"number": 1})  # type: ignore[call-overload]
        assert_type(queue.queue, ipcq.Queue[Job])
    assert_type(await ipcq.aio.open("/jobs"), ipcq.aio.Queue[Any])
    assert_type(await ipcq.aio.open("/jobs", type=int | str, create=False), ipcq.aio.Queue[int | str])
