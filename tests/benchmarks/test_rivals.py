"""The rivals of benchmarks/: each moves what is put into it, and declines what it cannot do."""

import platform
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ipcq._bench.contestant import Declined
from ipcq._bench.payloads import data
from ipcq._bench.queues import Queues
from ipcq._bench.workload import WORKLOADS
from ipcq._distribution import DISTRIBUTION, FORMER

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import rivals

sys.path.pop(0)

SMALL = WORKLOADS["64B"]

#: Seconds for a thread that has to end.
WATCHDOG = 60

#: Of the tests' environment; baseplate is stood in for.
INSTALLED_ON_LINUX = ("faster-fifo", "pyzmq", "shmqueue", "cloudtoid-interprocess", "subetha-ipc")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let baseplate's interface be there: its distribution cannot be installed beside pytest.

    And let what multiprocessing keeps of its shared memory, for its next use, go with the test.
    """
    import multiprocessing.heap

    import posix_ipc

    monkeypatch.setattr(multiprocessing.heap.BufferWrapper, "_heap", multiprocessing.heap.Heap())

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


def plans() -> list[Queues]:
    """Return every rival that moves bytes, with its variants."""
    return [
        # iceoryx2's ends wait for each other.
        *(rival() for rival, _ in rivals.RIVALS.values() if rival is not rivals.Iceoryx2),
        rivals.FasterFifo("faster-fifo, raw", raw=True),
        rivals.PosixIpc("posix_ipc, polled", polled=True),
    ]


def skip_without(plan: Queues) -> None:
    """Skip where the group `tests` has no such rival."""
    if plan.distribution in INSTALLED_ON_LINUX and sys.platform != "linux":
        pytest.skip("peers are installed on Linux alone")
    if isinstance(plan, rivals.SubethaIpc) and platform.machine() != "x86_64":
        pytest.skip("subetha-ipc has wheels for x86-64 alone")


@pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan.name)
@pytest.mark.parametrize("workload", ["64B", "64KiB", "dict"])
def test_what_is_put_into_a_rival_comes_out(here: None, plan: Queues, workload: str) -> None:
    """One message goes in and comes out, and then both ends end."""
    skip_without(plan)
    asked = WORKLOADS[workload]
    message = plan.payloads(asked, 0).block()[0]
    try:
        with plan.queues(asked) as (address,):
            reader = plan.reader(address, asked)
            writer = plan.writer(address, asked)
            writer.put(message)
            came = reader.get()
            writer.finish()
            reader.finish()
    except Declined as reason:
        assert str(reason)
    else:
        assert came == message


@pytest.mark.parametrize(
    ("plan", "workload"),
    [
        (rivals.PosixIpc("posix_ipc, polled", polled=True, max_messages=4, max_message_size=512), "64B"),
        (rivals.CloudtoidInterprocess(), "64KiB"),
        (rivals.CloudtoidInterprocess(), "batch"),
        (rivals.SubethaIpc(), "64B"),
        (rivals.SubethaIpc(), "batch"),
    ],
    ids=lambda each: each if isinstance(each, str) else each.name,
)
def test_a_rival_waits_where_there_is_nothing_or_no_room(plan: Queues, workload: str) -> None:
    """Twice what it has room for goes through it, and what comes is what was put."""
    skip_without(plan)
    asked = WORKLOADS[workload]
    put, got = plan.payloads(asked, 0), plan.payloads(asked, 0)
    blocks = [list(put.block()) for _ in range(2 * asked.depth // len(put.block()) + 2)]
    with plan.queues(asked) as (address,):
        reader = plan.reader(address, asked)

        def write() -> None:
            writer = plan.writer(address, asked)
            for block in blocks:
                if writer.put_many is not None and asked.batch:
                    writer.put_many(block)
                else:
                    for message in block:
                        writer.put(message)
            done.wait(WATCHDOG)
            writer.finish()

        done = threading.Event()
        thread = threading.Thread(target=write)
        thread.start()
        try:
            count = sum(map(len, blocks))
            messages: list[Any] = []
            while len(messages) < count:
                messages += reader.get_many(got.step) if reader.get_many and asked.batch else [reader.get()]
        finally:
            done.set()
            thread.join(WATCHDOG)
            reader.finish()
    assert messages == [message for block in blocks for message in block]


def test_ends_that_wait_for_each_other_find_each_other() -> None:
    """Nothing is put before they are connected."""
    pytest.importorskip("iceoryx2", reason="peers are installed on Linux alone")
    plan, done = rivals.Iceoryx2(), threading.Event()

    def write(address: Any) -> None:
        end = plan.writer(address, SMALL)
        end.put(data(1, 64))
        done.wait(WATCHDOG)
        end.finish()

    with plan.queues(SMALL) as (address,):
        thread = threading.Thread(target=write, args=(address,))
        thread.start()
        end = plan.reader(address, SMALL)
        assert end.get() == data(1, 64)
        end.finish()
        done.set()
        thread.join(WATCHDOG)


@pytest.mark.parametrize(
    "plan", [plan for plan in plans() if rivals.installed(plan.distribution)], ids=lambda plan: plan.name
)
def test_a_rival_that_is_installed_tells_its_version(plan: Queues) -> None:
    """Of its distribution."""
    assert plan.version


@pytest.mark.parametrize(
    ("plan", "workload", "reason"),
    [
        (rivals.FasterFifo(raw=True), "dict", "bytes"),
        (rivals.Pyzmq(), "2P2C", "share"),
        (rivals.Iceoryx2(), "2P2C", "every message"),
        (rivals.Iceoryx2(), "dict", "bytes"),
        (rivals.CloudtoidInterprocess(), "dict", "bytes"),
        (rivals.SubethaIpc(), "dict", "bytes"),
        (rivals.SubethaIpc(), "1KiB", "64 bytes"),
        (rivals.SubethaIpc(), "4P1C", "one producer"),
        (rivals.PosixIpc(max_message_size=1 << 30), "64B", "ulimit"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_a_rival_cannot_do_it_declines(plan: Queues, workload: str, reason: str) -> None:
    """With the reason, and before any process is started."""
    skip_without(plan)
    with pytest.raises(Declined, match=reason):
        plan.sample(WORKLOADS[workload], 0.02)


def test_the_length_of_a_message_queue_follows_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has none it is short."""
    assert rivals.depth_of(64, 2) >= 1

    def refuse(self: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert rivals.depth_of(64, 2) == 10


def test_no_rival_is_called_as_ours() -> None:
    """Who installs the rivals by their names gets none of them in our place."""
    assert {DISTRIBUTION, FORMER}.isdisjoint(rivals.RIVALS)
