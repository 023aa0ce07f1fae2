"""What measures queues: its messages, its checks, its processes, and its arithmetic."""

import multiprocessing
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ipcq._bench import _peers, _queues, _sample, _worker
from ipcq._bench._contestant import Declined, End, Failed
from ipcq._bench._goods import Cycle, Numbered, Wrong, data
from ipcq._bench._workload import WORKLOADS, Workload

SHORT = 0.02
SMALL = WORKLOADS["64B"]
LARGE = WORKLOADS["64KiB"]
IDLE = replace(WORKLOADS["idle"], lasts=0.05)

#: Of the tests' environment; baseplate is stood in for.
INSTALLED_ON_LINUX = ("faster-fifo", "pyzmq", "iceoryx2", "shmqueue")


# The goods


def cycle(workload: Workload) -> Cycle:
    return Cycle(workload, dict, itemgetter("id"))


@pytest.mark.parametrize("name", ["64B", "1KiB", "64KiB", "1MiB", "batch", "dict"])
def test_what_comes_as_it_was_put_is_right(name: str) -> None:
    """Over several cycles, in the steps in which a consumer takes it."""
    made, seen = cycle(WORKLOADS[name]), cycle(WORKLOADS[name])
    messages = [message for _ in range(3) for message in made.block()]
    for index in range(0, len(messages), seen.step):
        seen.take(messages[index : index + seen.step])
    Cycle.judge([len(messages)], [seen.report()])


def spoilt(messages: list[Any], fault: str) -> list[Any]:
    if fault == "lost":
        del messages[20]
    elif fault == "doubled":
        messages.insert(20, messages[20])
    elif fault == "swapped":
        messages[20], messages[21] = messages[21], messages[20]
    elif fault == "a cycle lost":
        del messages[0 : len(messages) // 3]
    else:
        messages[17] = messages[17][:30] + b"?" + messages[17][31:]
    return messages


@pytest.mark.parametrize("fault", ["lost", "doubled", "swapped", "a cycle lost", "damaged"])
@pytest.mark.parametrize("workload", [SMALL, LARGE], ids=["small", "large"])
def test_what_comes_otherwise_is_wrong(workload: Workload, fault: str) -> None:
    """Whatever is done to it."""
    made, seen = cycle(workload), cycle(workload)
    messages = spoilt([message for _ in range(3) for message in made.block()], fault)

    def take() -> None:
        for index in range(0, len(messages), seen.step):
            seen.take(messages[index : index + seen.step])
        seen.report()

    with pytest.raises(Wrong):
        take()


def test_a_count_that_differs_is_wrong() -> None:
    """As where cycles are too short to have a number."""
    with pytest.raises(Wrong, match="8 messages were put, and 4 came"):
        Cycle.judge([8], [4])


def numbered(*blocks: list[bytes]) -> Any:
    goods = Numbered(0)
    for block in blocks:
        goods.take(block)
    return goods.report()


def test_two_consumers_may_share_what_two_producers_put() -> None:
    """Each message to one of them."""
    one, other = Numbered(0).block(), Numbered(1).block()
    Numbered.judge([128, 128], [numbered(one[::2], other[:5]), numbered(one[1::2], other[5:])])


@pytest.mark.parametrize(
    ("take", "told"),
    [
        (lambda block: [block[:-1]], "127 different ones"),
        (lambda block: [block, block[:1]], "twice, to two"),
        (lambda block: [block, Numbered(7).block()[:1]], "from producer 7"),
    ],
)
def test_what_two_consumers_may_not_see(take: Callable[[list[bytes]], Any], told: str) -> None:
    """Less, more, or something else than was put."""
    with pytest.raises(Wrong, match=told):
        Numbered.judge([128], [numbered(each) for each in take(Numbered(0).block())])


@pytest.mark.parametrize("order", [[0, 0], [1, 0]])
def test_what_one_consumer_may_not_see(order: list[int]) -> None:
    """A message again, or out of order."""
    block = Numbered(0).block()
    with pytest.raises(Wrong, match="twice or out of order"):
        numbered([block[index] for index in order])


def test_an_absurd_number_is_wrong() -> None:
    """And does not take memory for all below it."""
    with pytest.raises(Wrong, match="never put"):
        numbered([data((1 << 48) - 1, 64)])


# The workers, run here


class Near(_queues.Queues):
    """A queue between threads."""

    name = "near"

    def __init__(self, *, batches: bool = False) -> None:
        self._batches = batches

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[list[Any]]:
        yield [queue.Queue(100) for _ in range(workload.queues)]

    def writer(self, address: Any, workload: Workload) -> End:
        many = (lambda items: [address.put(item) for item in items]) if self._batches else None
        return End(put=address.put, put_many=many)

    def reader(self, address: Any, workload: Workload) -> End:
        return End(get=address.get, get_many=(lambda most: [address.get()]) if self._batches else None)


class Thread:
    """What stands in for a worker's process."""

    def __init__(self, target: Any, args: Any, daemon: bool) -> None:
        job, connection = args
        # Spawned processes get a duplicate.
        kept = multiprocessing.connection.Connection(os.dup(connection.fileno()))

        def run() -> None:
            with kept:
                try:
                    _worker.work(job, _worker.Talk(kept))
                except Exception as error:
                    kept.send({"error": f"{type(error).__name__}: {error}"})
            os.close(self._told)

        self.sentinel, self._told = os.pipe()
        self.exitcode = 0
        self._thread = threading.Thread(target=run)
        self.start = self._thread.start

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def kill(self) -> None:
        """A thread ends by itself."""

    def close(self) -> None:
        os.close(self.sentinel)


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers be threads, so that what they do is measured."""
    monkeypatch.setattr(_sample, "SPAWN", SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Thread))


@pytest.mark.parametrize("workload", [*list(WORKLOADS.values())[:-1], IDLE], ids=lambda each: each.name)
def test_every_workload_has_a_figure(near: None, workload: Workload) -> None:
    """Above nothing, and with the messages counted."""
    if workload.typed:
        pytest.importorskip("msgspec")
    sample = Near().sample(workload, SHORT)
    assert sample.value > 0
    assert sample.messages > 0


def test_batches_are_used_where_there_are_some(near: None) -> None:
    """Also where what comes is in other portions than what was put."""
    assert Near(batches=True).sample(WORKLOADS["batch"], SHORT).messages > 100


class Echo(Near):
    """Whatever is put or not, the same comes."""

    def writer(self, address: Any, workload: Workload) -> End:
        return End(put=lambda item: None)

    def reader(self, address: Any, workload: Workload) -> End:
        return End(get=lambda: data(7, 64))


@pytest.mark.parametrize(("workload", "producer"), [("ping-pong", 0), ("wake-up", None)])
def test_what_comes_otherwise_is_noticed_where_each_is_timed(workload: str, producer: int | None) -> None:
    """What comes back is not what was sent, or was there before."""
    job = _worker.Job(Echo(), WORKLOADS[workload], (None, None), producer, SHORT)
    with pytest.raises(Wrong, match=r"not what was sent|out of order"):
        _worker.work(job, SimpleNamespace(go=lambda: None))  # type: ignore[arg-type]


def test_a_single_message_is_too_few(near: None) -> None:
    """There is no time between it and itself."""

    class Lone(Near):
        def goods(self, workload: Workload, producer: int) -> Any:
            goods = super().goods(workload, producer)
            block = goods.block

            def one() -> list[Any]:
                time.sleep(2 * SHORT)
                return block()[:1]

            goods.block = one  # type: ignore[method-assign]
            return goods

    with pytest.raises(Failed, match="1 messages are too few to measure"):
        Lone().sample(SMALL, SHORT)


# The contestants, each end used here


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let baseplate's interface be there: its distribution cannot be installed beside pytest."""
    import posix_ipc

    class MessageQueue:
        def __init__(self, name: str, max_messages: int, max_message_size: int) -> None:
            self.queue = posix_ipc.MessageQueue(
                name, posix_ipc.O_CREAT, max_messages=max_messages, max_message_size=max_message_size
            )
            self.put, self.close, self.unlink = self.queue.send, self.queue.close, self.queue.unlink

        def get(self) -> bytes:
            return self.queue.receive()[0]

    module = ModuleType("baseplate.lib.message_queue")
    module.MessageQueue = MessageQueue  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "baseplate", ModuleType("baseplate"))
    monkeypatch.setitem(sys.modules, "baseplate.lib", ModuleType("baseplate.lib"))
    monkeypatch.setitem(sys.modules, "baseplate.lib.message_queue", module)


def plans() -> list[_queues.Queues]:
    """Return every contestant that moves bytes, with its variants."""
    return [
        *(peer() for peer in _peers.PEERS.values()),
        _peers.FasterFifo("faster-fifo, raw", raw=True),
        _peers.PosixIpc("posix_ipc, polled", polled=True, max_messages=4, max_message_size=512),
        _queues.Ipcq("socketpair", max_messages=4, max_message_size=512),
        _queues.Ipcq("socketpair", "ipcq raw", serializer="raw"),
    ]


@pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan.name)
@pytest.mark.parametrize("workload", ["64B", "64KiB", "dict"])
def test_what_is_put_into_a_contestant_comes_out(here: None, plan: _queues.Queues, workload: str) -> None:
    """One message from a thread to this one, and then the end of both ends."""
    if plan.name.split(",")[0] in INSTALLED_ON_LINUX and sys.platform != "linux":
        pytest.skip("the peers are installed on Linux alone")
    asked = WORKLOADS[workload]
    message = plan.goods(asked, 0).block()[0]
    got: list[Any] = []

    def take(address: Any) -> None:
        end = plan.reader(address, asked)
        got.append(end.get())
        told.wait(60)
        end.finish()

    told = threading.Event()
    try:
        with plan.queues(asked) as (address,):
            thread = threading.Thread(target=take, args=(address,))
            thread.start()
            end = plan.writer(address, asked)
            end.put(message)
            while not got:
                assert thread.is_alive()
                time.sleep(0.001)
            told.set()
            thread.join(60)
            end.finish()
    except Declined as reason:
        assert str(reason)
    else:
        assert got == [message]
