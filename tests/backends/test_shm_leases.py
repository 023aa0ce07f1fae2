"""Leases on shm beyond the contract: deaths, stopped processes, the limits of the system, and hostile contents."""

import errno
import os
import random
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import ipcq
from backends import shm
from backends.shm import attach, create, held_by, run_script
from ipcq.backend import LeaseChannel, Verdict
from ipcq_shm import _segment

_lease_channel = pytest.importorskip("ipcq_shm._lease_channel", reason="the extension was not built")

works, name, stopped = shm.works, shm.name, shm.stopped

Queue = ipcq.Queue[Any]

#: Leases a message, says so, and waits to be killed.
HOLDER = """
import sys, ipcq
with ipcq.open(sys.argv[1], "shm", create=False, serializer="raw") as queue:
    job = queue.lease(timeout=15)
    print(flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that has leased a message of the queue."""
    command = [sys.executable, "-c", HOLDER, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def channel_of(queue: Queue) -> LeaseChannel:
    channel = queue._channel
    assert isinstance(channel, LeaseChannel)
    return channel


# Deaths


WAITS: dict[str, Callable[[Queue], object]] = {
    "get": lambda queue: queue.get(timeout=15),
    "lease": lambda queue: queue.lease(timeout=15).item,
    "poll": lambda queue: (select.select([queue.fileno()], [], [], 15), queue.get(timeout=0))[1],
}


@pytest.mark.parametrize("wait", ["get", "lease", "poll"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_waiting_consumer_soon_has_the_message_of_a_killed_one(name: str, wait: str) -> None:
    """C3: within 100 ms, and no clock is asked; ten times that are allowed here."""
    with create(name, leases=True) as queue:
        queue.put(b"job")
        if wait == "poll":
            queue.fileno()
        with holder(name) as process:
            killed = []

            def kill() -> None:
                killed.append(time.monotonic())
                process.kill()

            timer = threading.Timer(0.2, kill)
            timer.start()
            assert WAITS[wait](queue) == b"job"
            took = time.monotonic() - killed[0]
            timer.join()
        queue.unlink()
        assert 0 < took < 1


def test_a_stopped_holder_keeps_its_lease(name: str) -> None:
    """C3, C11: it is alive, and acknowledges when it continues; only its hold would end."""
    with create(name, leases=True) as queue:
        queue.put(b"job")
        with holder(name) as process:
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(ipcq.QueueEmpty):
                queue.get(timeout=0.3)
            assert queue.stats().leased == 1


def test_the_leases_of_all_processes_are_listed(name: str) -> None:
    """C3: with the process that holds each, the longest held first."""
    with create(name, leases=True) as queue:
        queue.put_many([b"one", b"two"])
        with holder(name) as process, queue.lease(timeout=0):
            held = channel_of(queue).held(5)
            assert [(each.pid, each.deliveries) for each in held] in (
                [(process.pid, 1), (os.getpid(), 1)],
                [(os.getpid(), 1), (process.pid, 1)],  # seconds are counted
            )
            assert all(0 <= each.seconds < 60 for each in held)


def test_the_holder_of_a_lease_that_has_just_died_is_unknown(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C3: nobody has its lock any more."""
    with create(name, leases=True) as queue, attach(name) as other:
        queue.put(b"job")
        with other.lease(timeout=0):
            assert [each.pid for each in channel_of(queue).held(5)] == [None]  # another handle of this process


# Stopped processes


def test_a_lease_blocked_by_a_stopped_process_names_it(name: str, stopped: int) -> None:
    """C11: the queue has a message, so the error does not claim that it is empty."""
    with create(name, leases=True) as queue:
        queue.put(b"item")
        with held_by(queue, stopped, "put"), pytest.raises(ipcq.QueueEmpty, match=f"messages, but process {stopped} "):
            queue.lease(timeout=0.05)
        queue.lease(timeout=0).ack()


@pytest.mark.parametrize(
    "call",
    [
        lambda queue, job: job.ack(),
        lambda queue, job: job.extend(1),
        lambda queue, job: job.lost,
        lambda queue, job: queue.dead().requeue(),
        lambda queue, job: queue.dead().clear(),
        lambda queue, job: channel_of(queue).held(1),
        lambda queue, job: channel_of(queue).recall(1, 1),
    ],
    ids=["ack", "extend", "lost", "requeue", "clear", "held", "recall"],
)
def test_a_call_that_cannot_wait_for_a_stopped_process_says_so(
    name: str, stopped: int, call: Callable[[Queue, "ipcq.Lease[Any]"], object]
) -> None:
    """C11, C37: half a second later; nothing was done."""
    with create(name, leases=True) as queue:
        queue.put(b"item")
        job = queue.lease(timeout=0)
        with held_by(queue, stopped, "put"), pytest.raises(ipcq.TimedOutError, match="ipcq doctor"):
            call(queue, job)
        job.ack()


def test_counting_does_not_wait_for_a_stopped_process(name: str, stopped: int) -> None:
    """C11: the figures are there, and name it."""
    with create(name, leases=True) as queue:
        queue.put_many([b"one", b"two"])
        with queue.lease(timeout=0), held_by(queue, stopped, "put"):
            with pytest.raises(ipcq.QueueFull):
                queue.put(b"three", timeout=0.05)
            stats = queue.stats()
            assert (stats.depth, stats.leased, stats.holder and stats.holder.pid) == (1, 1, stopped)
            assert (queue.qsize(), channel_of(queue).tend()) == (1, 0.05)


def test_dead_letters_blocked_by_a_stopped_process_seem_to_be_none(name: str, stopped: int) -> None:
    """C11: as a get that does not wait."""
    with create(name, leases=True) as queue:
        queue.put(b"item")
        queue.lease(timeout=0).reject()
        with held_by(queue, stopped, "put"):
            assert (channel_of(queue).try_get_dead(), channel_of(queue).peek_dead(0, 1)) == (None, [])
            assert not channel_of(queue).try_put_delayed(b"later", 0, 1.0)
        assert queue.dead().get() == b"item"


def test_closing_leaves_leases_to_death_if_a_stopped_process_has_the_lock(name: str, stopped: int) -> None:
    """C34, clause 31: the close ends within a second."""
    with create(name, leases=True) as queue:
        queue.put(b"item")
        other = attach(name)
        job = other.lease(timeout=0)
        with held_by(queue, stopped, "put"):
            since = time.monotonic()
            other.close()
            assert time.monotonic() - since < 10
        with queue.lease(timeout=15) as again:
            assert (again.deliveries, job.lost) == (2, True)


# Limits of the system


def test_a_settlement_that_cannot_ring_settles_nothing(name: str) -> None:
    """Clause 28, C24: without a free descriptor the doorbell cannot be opened, and pollers would not be woken."""
    code = f"""
import resource, ipcq
with ipcq.open({name!r}, "shm", create=False, serializer="raw") as queue:
    jobs = queue.lease_many(2)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        jobs[0].release()
    except ipcq.LimitExceeded as error:
        print(error.limit, queue.stats().leased, [job.lost for job in jobs])
    jobs[0].ack()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    jobs[1].release()
"""
    with create(name, leases=True) as queue:
        queue.put_many([b"one", b"two", b"three"])
        queue.fileno()
        assert run_script(code) == "RLIMIT_NOFILE 2 [False, False]"
        assert queue.get_many(block=False) == [b"two", b"three"]
        queue.unlink()


def test_no_memory_loses_no_message(name: str) -> None:
    """C36, clause 24: whichever allocation fails, what was not returned was not leased, taken or settled."""
    pytest.importorskip("_testcapi", reason="_testcapi came with Python 3.0")
    code = f"""
import _testcapi, ipcq
from ipcq.backend import Verdict
failed = 0
with ipcq.open({name!r}, "shm", max_messages=16, max_message_size=64, serializer="raw", leases=True) as queue:
    channel = queue._channel
    def put():
        queue.put_many([bytes([number]) * 40 for number in range(12)])
    def kill():
        put()
        channel.settle([each.token for each in channel.try_lease_many(1, 12, None)], Verdict.REJECT, 0.0, b"why")
    calls = {{
        "lease": (put, channel.try_lease, (1 << 40, None), lambda: channel.counts().leased),
        "lease_many": (put, channel.try_lease_many, (1 << 40, 12, None), lambda: channel.counts().leased),
        "get_dead": (kill, channel.try_get_dead, (), lambda: 12 - channel.counts().dead),
        "peek_dead": (kill, channel.peek_dead, (0, 5), lambda: 12 - channel.counts().dead),
    }}
    for verb, (prepare, call, arguments, taken) in calls.items():
        for allocation in range(80):
            prepare()
            result = None
            _testcapi.set_nomemory(allocation, allocation + 1)
            try:
                result = call(*arguments)
            except MemoryError:
                failed += 1
            _testcapi.remove_mem_hooks()
            got = 0 if result is None or verb == "peek_dead" else len(result) if verb == "lease_many" else 1
            assert taken() == got, (verb, allocation, taken(), result)
            channel.recall(1 << 40, 12)
            channel.clear_dead()
            queue.clear()
print(failed > 20)
"""
    assert run_script(code) == "True"


@pytest.mark.parametrize("verb", ["lease", "lease_many"])
def test_no_memory_for_the_result_gives_the_messages_back(
    name: str, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C36, clause 24: at the channel, without a failure."""

    def refuse(*_: object) -> None:
        raise MemoryError

    with create(name, leases=True) as queue:
        queue.put_many([b"one", b"two"])
        channel = channel_of(queue)
        with monkeypatch.context() as patch, pytest.raises(MemoryError):
            patch.setattr(_lease_channel, "Leased", refuse)
            channel.try_lease(1, None) if verb == "lease" else channel.try_lease_many(1, 2, None)
        assert (channel.counts().leased, queue.stats().returned) == (0, 1 if verb == "lease" else 2)


@pytest.mark.parametrize("good", range(3))
def test_a_header_that_cannot_be_read_leaves_no_descriptor(
    name: str, good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5: neither open, nor closed twice, whether the first or a later look at it fails."""
    read, looks = _segment.read_header, []

    def refuse(descriptor: int) -> _segment.Header:
        looks.append(descriptor)
        if len(looks) > good:
            raise OSError(errno.EIO, "broken")
        return read(descriptor)

    create(name).close()
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(_segment, "read_header", refuse)
    with pytest.raises(ipcq.MessageQueueError):
        attach(name)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("options", [{"max_deliveries": 2**32}, {"leases": True, "buffer_size": 1 << 40}])
def test_more_than_a_queue_can_have_is_refused(name: str, options: dict[str, int]) -> None:
    """C24: Unsupported says what is possible, and nothing is created."""
    with pytest.raises(ipcq.Unsupported, match="at most"):
        create(name, **options)
    assert not ipcq.exists(name, "shm")


# Others


def test_methods_of_leases_need_a_queue_with_leases(name: str) -> None:
    """C28: the extension checks it; nothing reaches memory that is not there."""
    from ipcq_shm._lease_channel import ShmLeaseChannel

    with create(name) as queue:
        for call in (ShmLeaseChannel.counts, ShmLeaseChannel.try_get_dead, ShmLeaseChannel.tend):
            with pytest.raises((TypeError, AttributeError)):
                call(queue._channel)  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("flag", [0, _segment.LEASES])
def test_a_header_that_changes_while_it_is_read_is_corrupt(
    name: str, flag: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C28: the class of the channel follows from the first look, and is checked after the second."""
    create(name, leases=not flag).close()
    read = _segment.read_header
    monkeypatch.setattr(_segment, "read_header", lambda descriptor: read(descriptor)._replace(flags=flag))
    with pytest.raises(ipcq.CorruptQueue):
        attach(name)


def test_a_queue_of_another_time_namespace_is_refused(name: str) -> None:
    """C18: its clock is another one, so holds and delays would end at other times."""
    create(name, leases=True).close()
    code = f"import ipcq; ipcq.open({name!r}, 'shm', create=False)"
    command = ["unshare", "--time", "--fork", "--boottime", "1000", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "unshare" in done.stderr:
        pytest.skip("only root can make a time namespace")
    assert "VersionMismatch" in done.stderr


def lease_calls(queue: Queue, dice: random.Random) -> list[Callable[[], object]]:
    """Return all calls of a channel with leases; they settle some of what they lease."""
    channel = channel_of(queue)
    tokens: list[int] = []
    moment = 1e-6
    return [
        lambda: tokens.extend(each.token for each in channel.try_lease_many(dice.getrandbits(40), 2, None)),
        lambda: channel.settle(tokens[-2:], Verdict(dice.randrange(4)), dice.choice((0.0, moment)), b"why"),
        lambda: channel.extend(tokens[-2:], moment),
        lambda: queue.put(b"x" * 100, False, delay=dice.choice((0, moment))),
        channel.try_get_dead,
        lambda: channel.peek_dead(0, 3),
        lambda: channel.requeue(2),
        lambda: channel.held(3),
        channel.counts,
        channel.tend,
        queue.qsize,
    ]


@pytest.mark.parametrize("priorities", [False, True])
def test_hostile_bytes_are_corrupt_or_harmless(name: str, priorities: bool) -> None:
    """C28: whatever follows the header, calls return or raise our errors, and in time."""
    dice = random.Random(4711)
    # The state and the two sides; the derived words; what participants hold, and the cells.
    # Not the lock: each call would wait half a second for a process that does not exist.
    places = (128, shm.LOCKS["put"]), (shm.LOCKS["put"] + 4, 1200), (17664, 17720), (20480, 60_000)
    for _ in range(40):
        with create(name, priorities=priorities, max_deliveries=2) as queue:
            queue.put_many([b"one", b"two" * 100, b"three"])
            calls = lease_calls(queue, dice)
            for _ in range(20):
                place = dice.randrange(*dice.choice(places))
                value = dice.choice((0, 1, 3, 7, 255, 259, 1 << 31, (1 << 32) - 1, dice.getrandbits(32)))
                os.pwrite(queue._channel.descriptor, struct.pack("=I", value), place & ~3)
                for call in calls:
                    with suppress(ipcq.MessageQueueError, MemoryError):
                        call()
            queue.unlink()
