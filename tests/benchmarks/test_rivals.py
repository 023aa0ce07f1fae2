"""The rivals of benchmarks/: each moves messages unchanged, and declines workloads that it cannot run."""

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

#: Timeout of a thread that has to end, in seconds.
WATCHDOG = 60

#: Rivals that the test environment has on Linux only; baseplate is replaced by a stand-in.
INSTALLED_ON_LINUX = ("faster-fifo", "pyzmq", "shmqueue", "cloudtoid-interprocess", "subetha-ipc", "hyperq")
#: Rivals whose ends wait for each other.
CONNECTED = (rivals.Iceoryx2, rivals.TachyonIpc)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Provide a stand-in for baseplate's interface: its distribution cannot be installed together with pytest.

    Also give multiprocessing a heap of shared memory that is freed after the test.
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
    module.MessageQueue = MessageQueue
    monkeypatch.setitem(sys.modules, "baseplate", ModuleType("baseplate"))
    monkeypatch.setitem(sys.modules, "baseplate.lib", ModuleType("baseplate.lib"))
    monkeypatch.setitem(sys.modules, "baseplate.lib.message_queue", module)


def plans() -> list[Queues]:
    """Return all rivals that move bytes, and their variants."""
    return [
        *(rival() for rival, _ in rivals.RIVALS.values() if rival not in CONNECTED),
        rivals.FasterFifo("faster-fifo, raw", raw=True),
        rivals.PosixIpc("posix_ipc, polled", polled=True),
    ]


def skip_without(plan: Queues) -> None:
    """Skip if the dependency group `tests` does not have this rival here."""
    if plan.distribution in INSTALLED_ON_LINUX and sys.platform != "linux":
        pytest.skip("peers are installed on Linux alone")
    if isinstance(plan, rivals.SubethaIpc) and platform.machine() != "x86_64":
        pytest.skip("subetha-ipc has wheels for x86-64 alone")
    if isinstance(plan, rivals.HyperQ) and (platform.machine() != "x86_64" or sys.version_info >= (3, 13)):
        pytest.skip("hyperq has wheels for x86-64 and CPython up to 3.12 alone")


@pytest.mark.parametrize("plan", plans(), ids=lambda plan: plan.name)
@pytest.mark.parametrize("workload", ["64B", "64KiB", "dict"])
def test_a_message_comes_out_of_a_rival_unchanged(here: None, plan: Queues, workload: str) -> None:
    """Both ends finish afterwards."""
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
def test_a_rival_waits_for_messages_and_for_space(plan: Queues, workload: str) -> None:
    """Twice its capacity passes through it, in order and unchanged."""
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


@pytest.mark.parametrize("rival", CONNECTED)
def test_ends_that_wait_for_each_other_connect(rival: type[Queues]) -> None:
    """No message is put before they are connected."""
    plan, done = rival(), threading.Event()
    if not rivals.installed(plan.distribution):
        pytest.skip("peers are installed on Linux alone, and tachyon-ipc where a new compiler is")

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
def test_an_installed_rival_has_a_version(plan: Queues) -> None:
    """It is that of its distribution."""
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
        (rivals.TachyonIpc(), "dict", "bytes"),
        (rivals.TachyonIpc(), "4P1C", "one producer"),
        (rivals.PosixIpc(max_message_size=1 << 30), "64B", "ulimit"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_rival_declines_a_workload_that_it_cannot_run(plan: Queues, workload: str, reason: str) -> None:
    """It gives the reason, before any process is started."""
    skip_without(plan)
    with pytest.raises(Declined, match=reason):
        plan.sample(WORKLOADS[workload], 0.02)


def test_the_depth_of_a_message_queue_follows_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel has none, the depth is small."""
    assert rivals.depth_of(64, 2) >= 1

    def refuse(self: Path) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert rivals.depth_of(64, 2) == 10


def test_no_rival_has_a_name_of_ipcq() -> None:
    """Installing the rivals by name must not install one of them instead of ipcq."""
    assert {DISTRIBUTION, FORMER}.isdisjoint(rivals.RIVALS)
