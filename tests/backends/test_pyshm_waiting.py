"""Waiting for a pyshm queue: bells, polls, the system calls for a message, and when waits are recorded."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ipcq
from backends import pyshm
from backends.pyshm import HANG_SECONDS, Handle, attach, create, read_file, write_file
from ipcq.backend import no_fork
from ipcq.errors import QueueGone, QueueShutDown
from ipcq_pyshm import _bells, _channel, _file, _place, _segment
from ipcq_pyshm._bells import ALL, MESSAGES, RESET, SET, SPACE, Bells, bell_at, bells_of, kernel_here
from ipcq_pyshm._layout import DATA_AT, RECORD

name, queue = pyshm.name, pyshm.queue

with_bells = pytest.mark.skipif(sys.platform != "linux", reason=f"Windows has no futexes, nor has {sys.platform}")


def set_bell(name: str, bell: int) -> None:
    """Set a bell, as if a process were going to sleep."""
    write_file(name, bell_at(bell), SET)


def is_set(name: str, bell: int) -> bool:
    """Return whether a bell is set."""
    return read_file(name)[bell_at(bell) :].startswith(SET)


# Bells


@pytest.fixture
def only_bells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a wait last longer than a test unless a bell ends it."""
    monkeypatch.setattr(_channel, "_SPIN_SECONDS", 0.0)
    monkeypatch.setattr(_channel, "_SHARE_WITH_BELL", 1e9)


@pytest.fixture
def other(queue: Handle, name: str) -> Iterator[Handle]:
    """Return a second handle to the queue."""
    with attach(name) as other:
        yield other


def ends(name: str, bell: int, wait: Callable[[float, float], None], act: Callable[[], object]) -> bool:
    """Return whether `act` ends a wait that has set a bell."""
    began = time.monotonic()
    waiting = threading.Thread(target=wait, args=(began, began + 3 * HANG_SECONDS), daemon=True)
    waiting.start()
    while not is_set(name, bell):
        assert time.monotonic() < began + HANG_SECONDS
        time.sleep(0.001)
    act()
    waiting.join(HANG_SECONDS)
    return not waiting.is_alive()


@with_bells
@pytest.mark.parametrize(
    "act",
    [
        lambda queue: queue.put(b"x"),
        lambda queue: queue.put_many([b"x", b"y"]),
        lambda queue: queue.shutdown(),
    ],
    ids=["put", "put_many", "shutdown"],
)
def test_a_wait_for_a_message_is_ended_by_a_bell(
    queue: Handle, other: Handle, name: str, act: Callable[[Handle], object], only_bells: None
) -> None:
    """C13: at once, not at its next poll."""
    assert ends(name, MESSAGES, other._channel.wait_readable, lambda: act(queue))


@with_bells
@pytest.mark.parametrize(
    "act",
    [
        lambda queue: queue.get(),
        lambda queue: queue._channel.try_get_many(2),
        lambda queue: queue.clear(),
        lambda queue: queue.shutdown(),
    ],
    ids=["get", "get_many", "clear", "shutdown"],
)
def test_a_wait_for_space_is_ended_by_a_bell(
    queue: Handle, other: Handle, name: str, act: Callable[[Handle], object], only_bells: None
) -> None:
    """C13: at once, as for a message."""
    queue.put_many([b"x"] * 4)

    def wait(since: float, until: float) -> None:
        other._channel.wait_writable(1, since, until)

    assert ends(name, SPACE, wait, lambda: act(queue))


# Bells, and processes that are killed or stopped


@pytest.fixture
def step_under_way(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Stop a put between its read of the bells and its commit; return a function that lets it continue."""
    inside, go_on = threading.Event(), threading.Event()
    order = queue._channel._order
    store = order.store

    def stopped(*arguments: Any) -> Any:
        inside.set()
        assert go_on.wait(HANG_SECONDS)
        return store(*arguments)

    monkeypatch.setattr(order, "store", stopped)
    putting = threading.Thread(target=queue.put, args=(b"x",))
    putting.start()
    assert inside.wait(HANG_SECONDS)
    yield go_on.set
    go_on.set()
    putting.join()


@with_bells
def test_a_wait_that_begins_during_a_step_misses_no_ring(
    step_under_way: Callable[[], None], other: Handle, name: str, only_bells: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C13: that step has not seen the bell, so the wait must see the step's commit before it sleeps with a bell."""
    refused = threading.Event()

    def sleep(seconds: float) -> None:
        refused.set()
        time.sleep(seconds)

    monkeypatch.setattr(_channel, "sleep", sleep)
    began = time.monotonic()
    waiting = threading.Thread(target=other._channel.wait_readable, args=(began, began + 3 * HANG_SECONDS), daemon=True)
    waiting.start()
    while not (refused.is_set() or is_set(name, MESSAGES)):
        assert time.monotonic() < began + HANG_SECONDS
        time.sleep(0.001)
    step_under_way()
    waiting.join(HANG_SECONDS)
    assert not waiting.is_alive()


@with_bells
def test_a_get_from_a_queue_with_a_limit_in_bytes_wakes_every_put(name: str, only_bells: None) -> None:
    """C13: the first waiting process may need more space than is free, and the second one less."""
    with create(name, max_messages=None, buffer_size=100) as queue, attach(name) as large, attach(name) as small:
        queue.put(b"x" * 4)
        queue.put(b"x" * 60)
        began = time.monotonic()
        until = began + 3 * HANG_SECONDS
        threads = []
        for handle, size in ((large, 64), (small, 10)):
            wait = handle._channel.wait_writable
            threads.append(threading.Thread(target=wait, args=(size, began, until), daemon=True))
            threads[-1].start()
            sleeping(threads[-1])
        queue.get()
        threads[1].join(HANG_SECONDS)
        assert not threads[1].is_alive()
        queue.clear()


def sleeping(thread: threading.Thread) -> None:
    """Return when a thread sleeps in futex(2), which the kernel shows."""
    until = time.monotonic() + HANG_SECONDS
    number = str(_bells._NUMBERS[os.uname().machine])
    while Path(f"/proc/self/task/{thread.native_id}/syscall").read_text().split()[:1] != [number]:
        assert time.monotonic() < until
        time.sleep(0.001)


#: Forks consumers that wait, and a producer that rings for them. One of them is killed or stopped at a chosen call.
STRIKE = """
import os, signal, sys, time
import ipcq
from ipcq_pyshm import _bells, _channel
name, who, number = sys.argv[1], sys.argv[2], signal.Signals[sys.argv[3]]
kernel = _bells.kernel_here()
kernel_wait = kernel.wait
_channel._SHARE_WITH_BELL = 1e9  # sleep for a whole slice

def struck(call, instant, after=False):
    calls = 0
    def strike_or_call(*arguments):
        nonlocal calls
        done = call(*arguments) if after else 0
        calls += call is not kernel_wait or done == 0  # not if the time was over
        if calls == instant:
            os.kill(os.getpid(), number)
        return done if after else call(*arguments)
    return strike_or_call

def child(act):
    pid = os.fork()
    if not pid:
        queue = ipcq.open(name, "pyshm", create=False, serializer="raw")
        act(queue)
        os._exit(0)
    return pid

def consume(queue):
    until = time.monotonic() + %(seconds)s
    queue.get(timeout=%(seconds)s)
    os._exit(time.monotonic() >= until)  # a get looks once more at the end of its time

def strike_producer(instant, wake=kernel.wake, after=False):
    def act(queue):
        kernel.wake = struck(wake, instant, after)
        queue.put_many([b"1", b"2", b"3"])
    return act

def strike_consumer(after):
    def act(queue):
        kernel.wait = struck(kernel_wait, 1, after)
        consume(queue)
    return act

def sleeps(pid):
    while open(f"/proc/{pid}/syscall").read().split()[:1] != [str(kernel._number)]:
        time.sleep(0.001)

queue = ipcq.open(name, "pyshm", exclusive=True, serializer="raw", max_messages=4, max_message_size=64)
strikes = {
    "producer before it rings": strike_producer(1),
    "producer before it resets the bell": strike_producer(1, after=True),
    # As if the consumers had fallen asleep right after the first ring.
    "producer before it rings for those that fell asleep before the reset": strike_producer(2, lambda word, count: 0),
    "consumer before it sleeps": strike_consumer(after=False),
    "consumer when it was woken": strike_consumer(after=True),
}
woken = who.endswith("woken")
if who.startswith("consumer"):
    victim = child(strikes[who])
    if woken:
        sleeps(victim)
    else:
        os.waitid(os.P_PID, victim, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
consumers = [child(consume) for _ in range(1 if woken else 2)]
for pid in consumers:
    sleeps(pid)
if who.startswith("producer"):
    victim = child(strikes[who])
else:
    for _ in consumers:
        queue.put(b"x")  # wakes the victim first, if that was woken
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in consumers]
if woken:
    queue.put(b"x")  # if the first one woke the consumer after all
os.waitid(os.P_PID, victim, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
os.kill(victim, signal.SIGKILL)
os.waitpid(victim, 0)
print(*set(codes))
"""


@with_bells
@pytest.mark.parametrize("number", ["SIGKILL", "SIGSTOP"])
@pytest.mark.parametrize(
    "who",
    [
        "producer before it rings",
        "producer before it resets the bell",
        "producer before it rings for those that fell asleep before the reset",
        "consumer before it sleeps",
        "consumer when it was woken",
    ],
)
def test_every_consumer_gets_its_message_although_a_ring_is_lost(name: str, who: str, number: str) -> None:
    """C13, C15: a process that is killed or stopped at any call for a bell delays others by a slice, not forever."""
    script = STRIKE % {"seconds": HANG_SECONDS}
    run = subprocess.run([sys.executable, "-c", script, name, who, number], capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("0\n", "")


# The bell itself


@with_bells
@pytest.mark.parametrize("bell", [MESSAGES, SPACE], ids=["messages", "space"])
def test_a_bell_at_which_nobody_sleeps_is_reset(queue: Handle, name: str, bell: int) -> None:
    """Only the first step after a wait pays for the bell."""
    queue.put(b"x")
    set_bell(name, bell)
    assert is_set(name, bell)
    (queue.put if bell == MESSAGES else lambda item: queue.get())(b"y")
    assert not is_set(name, bell)


@with_bells
def test_a_step_leaves_the_bell_of_the_other_kind(queue: Handle, name: str) -> None:
    """A put makes no space."""
    set_bell(name, SPACE)
    queue.put(b"x")
    assert is_set(name, SPACE)


def test_a_bell_is_reset_before_the_last_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """C13: otherwise a process that fell asleep after the first ring would sleep on, and no later step would ring."""
    calls: list[object] = []

    class Kernel:
        def wake(self, word: int, count: int) -> int:
            calls.append(count)
            return 1

    monkeypatch.setattr(_file, "pwrite", lambda descriptor, data, at: calls.append(data))
    Bells(0, Kernel(), 0).ring(MESSAGES, 2)  # type: ignore[arg-type]  # as much of a kernel as it needs
    assert calls == [2, RESET, ALL]


class Failing:
    """A kernel whose calls fail with an error number."""

    def __init__(self, number: int) -> None:
        self._number = number

    def wait(self, word: int, seconds: float) -> int:
        return self._number

    def wake(self, word: int, count: int) -> int:
        return -1


@pytest.mark.parametrize(
    ("number", "slept"),
    [(0, []), (errno.EINTR, []), (errno.ETIMEDOUT, []), (errno.EAGAIN, [0.00005]), (errno.ENOSYS, [0.625])],
)
def test_a_bell_that_fails_is_a_sleep(number: int, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox may forbid the call, and a hostile process may keep resetting the bell: no wait becomes a busy loop."""
    seconds: list[float] = []
    monkeypatch.setattr(_bells, "sleep", seconds.append)
    rang = Bells(0, Failing(number), 0).wait(MESSAGES, 5.0)  # type: ignore[arg-type]  # as much of a kernel as it needs
    assert (seconds, rang) == (slept, number == 0)


@with_bells
def test_a_queue_whose_bells_cannot_be_mapped_has_none() -> None:
    """The system may limit the number of mappings; waits then poll."""
    number = os.open("/dev/null", os.O_RDWR)  # cannot be mapped
    try:
        assert bells_of(number, kernel_here()) is None
    finally:
        os.close(number)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no"), MemoryError()], ids=["error", "memory"])
def test_a_bell_that_cannot_be_reset_does_no_harm(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the step is complete, so its call must not raise."""

    def refuse(*_: object) -> int:
        raise error

    monkeypatch.setattr(_file, "pwrite", refuse)
    Bells(0, Failing(0), 0).ring(MESSAGES, 1)  # type: ignore[arg-type]  # as above


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """Remove something that bells need."""
    if request.param == "ctypes":
        monkeypatch.setitem(sys.modules, "ctypes", None)
    else:
        monkeypatch.setattr(_bells, "_NUMBERS", {})
    _bells.kernel_here.cache_clear()
    yield
    _bells.kernel_here.cache_clear()


@pytest.mark.parametrize("no_kernel", ["ctypes", "architecture"], indirect=True)
def test_without_bells_a_wait_polls(no_kernel: None, name: str) -> None:
    """C13: as on macOS and Windows."""
    with create(name) as queue, attach(name) as other:
        assert queue._channel._bells is None
        thread = threading.Thread(target=lambda: (time.sleep(0.01), other.put(b"x")))
        thread.start()
        assert queue.get(timeout=HANG_SECONDS) == b"x"
        thread.join()


@with_bells
def test_a_file_that_cannot_be_mapped_has_no_bells() -> None:
    """If memory runs out, for example, an open still succeeds."""
    assert bells_of(-1, kernel_here()) is None


@with_bells
def test_no_child_has_a_mapping_that_nobody_knows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C35: no other thread can fork before the channel has its bells."""
    could_fork: list[bool] = []

    def try_to_fork() -> None:
        could_fork.append(no_fork.acquire(timeout=0))
        if could_fork[-1]:
            no_fork.release()

    def watched(*arguments: Any) -> Bells | None:
        bells = bells_of(*arguments)
        thread = threading.Thread(target=try_to_fork)
        thread.start()
        thread.join()
        return bells

    monkeypatch.setattr(_channel, "bells_of", watched)
    with create(name):
        assert could_fork == [False]


@with_bells
def test_a_mapping_does_not_keep_the_lock(queue: Handle, other: Handle, name: str) -> None:
    """C15, C35: a forked child has a copy of the mapping, even after its parent was killed inside a step."""
    channel: Any = other._channel
    channel._lock.acquire()
    own = os.open(_place.path_of(name), os.O_RDWR)
    os.dup2(own, channel._descriptor)  # as the child does; the parent's copy is gone too
    os.close(own)
    queue.put_nowait(b"x")
    assert other.get_nowait() == b"x"


@with_bells
def test_a_close_unmaps_the_file(name: str) -> None:
    """C17: the memory of an unlinked queue is free once its handles are closed."""
    path = _place.path_of(name)
    with create(name):
        other = attach(name)  # the kernel knows the creator's file by another name
        with open("/proc/self/maps", encoding="utf-8") as maps:
            assert path in maps.read()
        other.close()
        with open("/proc/self/maps", encoding="utf-8") as maps:
            assert path not in maps.read()


@with_bells
def test_a_truncated_file_does_not_kill_a_process_that_waits(queue: Handle, other: Handle, name: str) -> None:
    """C29: only the kernel uses the mapping, so there is no SIGBUS."""
    bells = other._channel._bells
    os.truncate(_place.path_of(name), 0)
    bells.wait(MESSAGES, 0.001)
    bells.ring(MESSAGES, 1)
    os.truncate(_place.path_of(name), 0)
    with pytest.raises(ipcq.CorruptQueue):
        other.get(timeout=HANG_SECONDS)


def test_a_wait_polls_before_it_sleeps(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that arrives at once is taken without the cost of a sleep."""
    reads: list[int] = []
    whole = _file.pread

    def pread(descriptor: int, size: int, at: int) -> bytes:
        reads.append(at)
        if len(reads) == 3:
            queue.put(b"x")
        return whole(descriptor, size, at)

    def sleep(*_: object) -> None:
        raise AssertionError("the wait slept")

    monkeypatch.setattr(_file, "pread", pread)
    monkeypatch.setattr(_channel, "sleep", sleep)
    monkeypatch.setattr(_bells, "sleep", sleep)
    monkeypatch.setattr(_bells.Kernel, "wait", sleep)
    monkeypatch.setattr(_channel, "_SPIN_SECONDS", HANG_SECONDS)
    now = time.monotonic()
    queue._channel.wait_readable(now, now + HANG_SECONDS)
    assert queue.get_nowait() == b"x"


# The cost of a message


@pytest.fixture
def fstats(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the calls of fstat on the queue's file, while a channel checks it once per minute."""
    calls: list[int] = []
    whole = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        if descriptor == queue._channel._descriptor:
            calls.append(descriptor)
        return whole(descriptor)

    monkeypatch.setattr(_segment, "BLIND_SECONDS", 60.0)
    monkeypatch.setattr(_channel.os, "fstat", fstat)
    return calls


def test_a_busy_channel_rarely_checks_whether_the_queue_was_unlinked(queue: Handle, fstats: list[int]) -> None:
    """The check takes longer than any other call on the file."""
    queue._channel._next_look = 0.0
    for _ in range(10):
        queue.put(b"x")
        queue.get()
        queue.qsize()
    assert len(fstats) == 1


def test_removing_the_file_ends_the_queue(queue: Handle, name: str) -> None:
    """C14: `rm` is an unlink."""
    queue.put(b"x")
    os.unlink(_place.path_of(name))
    time.sleep(2 * _segment.BLIND_SECONDS)
    with pytest.raises(QueueGone):
        queue.get()


def test_an_unlink_returns_when_every_channel_sees_it(queue: Handle, other: Handle, name: str) -> None:
    """C14: a call that begins after the unlink returned raises, however recently the channel has checked."""
    queue.put(b"x")
    other.qsize()
    ipcq.unlink(name, "pyshm")
    for handle in (queue, other):
        with pytest.raises(QueueGone):
            handle.get()


@pytest.fixture
def reads(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the reads of messages."""
    calls: list[int] = []
    whole = _file.pread

    def pread(descriptor: int, size: int, at: int) -> bytes:
        if at >= DATA_AT:
            calls.append(at)
        return whole(descriptor, size, at)

    monkeypatch.setattr(_file, "pread", pread)
    return calls


def test_one_read_serves_several_gets(queue: Handle, reads: list[int]) -> None:
    """The records that follow are read ahead."""
    queue.put_many([b"1", b"2", b"3"])
    assert [queue.get() for _ in range(3)] == [b"1", b"2", b"3"]
    assert len(reads) == 1


def test_what_was_read_ahead_is_not_returned_twice(queue: Handle, other: Handle) -> None:
    """C2: even if another consumer takes it and its space is reused."""
    for round_ in range(10):
        queue.put_many([b"%d" % (4 * round_ + number) for number in range(4)])
        assert queue.get() == b"%d" % (4 * round_)
        assert [other.get() for _ in range(2)] == [b"%d" % (4 * round_ + number) for number in (1, 2)]
        assert queue.get() == b"%d" % (4 * round_ + 3)


def test_a_damaged_record_that_was_read_ahead_is_read_again(queue: Handle, name: str) -> None:
    """C28: the contents of the file count, not the bytes that were read ahead."""
    queue.put_many([b"sound", b"repaired"])
    at = DATA_AT + RECORD.size + len(b"sound")
    header = read_file(name)[at : at + RECORD.size]
    write_file(name, at, bytes(RECORD.size))
    assert queue.get() == b"sound"
    write_file(name, at, header)
    assert queue.get() == b"repaired"


# Statistics


def waits_of(handle: Handle) -> int | None:
    """Return the number of waits in the file."""
    return handle.stats().waits


def test_a_wait_that_succeeded_is_recorded_by_the_next_commit(queue: Handle, other: Handle) -> None:
    """C25: a separate step would delay the message."""
    queue._channel.count_wait(True)
    assert waits_of(other) == 0
    queue.put(b"x")
    assert waits_of(other) == 1


def wait_without_bells(queue: Handle) -> None:
    """Let a channel wait as on macOS and Windows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue._channel, "_bells", None)
        queue._channel.wait_readable(time.monotonic() - 1, time.monotonic() + 0.001)


@pytest.mark.parametrize(
    "act",
    [
        lambda queue: queue._channel.wait_readable(time.monotonic() - 1, time.monotonic() + 0.001),
        wait_without_bells,
        lambda queue: queue.stats(),
        lambda queue: queue.close(),
    ],
    ids=["wait", "wait without bells", "stats", "close"],
)
def test_a_wait_that_succeeded_is_recorded_without_a_commit(
    queue: Handle, other: Handle, act: Callable[[Handle], object]
) -> None:
    """C25: at the latest when the channel waits again, is asked for statistics, or is closed."""
    queue._channel.count_wait(True)
    act(queue)
    assert waits_of(other) == 1


def test_a_wait_is_ended_by_a_shutdown_without_bells(
    queue: Handle, other: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C14: a waiting process polls the state, which has a flag for it."""
    monkeypatch.setattr(other._channel, "_bells", None)
    thread = threading.Thread(target=lambda: (time.sleep(0.01), queue.shutdown()))
    thread.start()
    with pytest.raises(QueueShutDown):
        other.get(timeout=HANG_SECONDS)
    thread.join()
