"""The lock of a pyshm queue: who stopped in it, shmlock's, and who has it after a fork."""

import errno
import os
import re
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

import pytest

import ipcq
from backends import pyshm
from backends.overtaking import INNER, MOST, VERBS, Overtaking, check_everywhere
from backends.pyshm import Handle, again, both_locks, drained, made, with_shmlock
from ipcq.backend import Attributes
from ipcq.errors import (
    CorruptQueue,
    InvalidArgument,
    MessageQueueError,
    QueueEmpty,
    QueueFull,
    QueueGone,
    QueueMismatch,
    TimedOutError,
    Unsupported,
)
from ipcq_pyshm import _channel, _lock, _place, _segment
from ipcq_pyshm._layout import Header, State
from ipcq_pyshm._lock import FileLock

name, queue = pyshm.name, pyshm.queue


# Locks


@pytest.fixture
def held(queue: Handle, name: str) -> Iterator[Callable[[], None]]:
    """Hold the lock as a stopped process would; return what lets it go."""
    descriptor = os.open(_place.path_of(name), os.O_RDWR)
    lock = FileLock(descriptor)
    lock.acquire()
    with pytest.raises(BlockingIOError):
        queue._channel._lock.acquire()
    yield lock.release
    os.close(descriptor)


def test_who_stopped_inside_the_lock_makes_a_queue_look_full_and_empty(queue: Handle, held: object) -> None:
    """C11: a put and a get end on time, and nothing was stored or taken."""
    for call, error in (
        (lambda: queue.put(b"x", timeout=0.05), QueueFull),
        (lambda: queue.put_many([b"x"], timeout=0.05), QueueFull),
        (lambda: queue.get(timeout=0.05), QueueEmpty),
    ):
        began = time.monotonic()
        with pytest.raises(error):
            call()
        assert time.monotonic() - began < 1.05
    assert queue.qsize() == 0


def test_a_batch_that_cannot_be_taken_on_is_what_was_taken(queue: Handle, held: Callable[[], None]) -> None:
    """C9: at least one item, then what is there, unless somebody stops inside the lock meanwhile."""
    channel = queue._channel
    assert channel.try_get_many(3) == []
    held()
    queue.put(b"x")
    assert channel.try_get_many(3) == [(b"x", 0)]


@pytest.mark.parametrize("use", ["peek", "clear", "shutdown"])
def test_what_has_no_time_of_its_own_says_that_the_lock_is_held(
    queue: Handle, held: object, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C11: after a second, with the way out."""
    monkeypatch.setattr(_channel, "LONG_PATIENCE", 0.05)
    with pytest.raises(TimedOutError, match=f"process {os.getpid()} .* holds its lock"):
        getattr(queue, use)()


def test_a_lock_whose_holder_cannot_be_seen_is_told_of_with_its_file(
    queue: Handle, held: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C37: as on systems that do not say who holds a lock."""
    monkeypatch.setattr(_channel, "LONG_PATIENCE", 0.05)
    monkeypatch.setattr(queue._channel, "holder", lambda getting: None)
    with pytest.raises(TimedOutError, match=re.escape(_place.path_of(queue.name))):
        queue.clear()


def test_waits_that_could_not_be_counted_are_counted_later(queue: Handle, held: Callable[[], None]) -> None:
    """C25: by the next step that has the lock."""
    with pytest.raises(QueueEmpty):
        queue.get(timeout=0.1)
    assert queue.stats().waits == 0
    held()
    queue.put(b"x")
    figures = queue.stats()
    assert (figures.waits, figures.timeouts) == (1, 1)


def test_looking_needs_no_lock(queue: Handle, held: object) -> None:
    """C11: the state's checksum tells whether it is whole."""
    assert (queue.qsize(), queue.empty(), queue.full(), queue.stats().puts) == (0, True, False, 0)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", VERBS)
@pytest.mark.parametrize("priorities", [False, True])
def test_a_call_in_the_middle_of_another_is_done_and_loses_nothing(
    name: str, priorities: bool, outer: str, inner: str
) -> None:
    """C12: wherever a handler or a finaliser strikes in a step of its own thread."""
    with made(name, priorities=priorities, max_messages=MOST) as queue:
        check_everywhere(queue, outer, inner)


@pytest.mark.parametrize("error", [struct.error("torn"), CorruptQueue()])
def test_what_a_step_that_was_overtaken_stumbles_over_is_no_error(
    queue: Handle, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """C12: what it reads was changed meanwhile; it is done anew."""

    def fits(*_: object) -> bool:
        monkeypatch.undo()
        queue.put(b"inner")
        raise error

    monkeypatch.setattr(queue._channel._order, "fits", fits)
    queue.put(b"outer")
    assert queue.get_many() == [b"inner", b"outer"]


def test_a_look_that_is_overtaken_looks_anew(name: str) -> None:
    """C12: where the rest of the message was, there may be another one by now."""
    one, other = bytes(10_000), b"x" * 10_000
    with made(name, max_messages=2, max_message_size=11_000) as queue:
        for point in count():
            queue.put(one)
            overtaking = Overtaking(point, lambda: queue.get_many() and queue.put_many([other, other]))
            assert overtaking.during(queue.peek) in (one, other)
            queue.clear()
            if not overtaking.reached:
                break


def test_what_a_handler_raises_after_it_has_put_goes_on(queue: Handle) -> None:
    """C12: it is not taken for an error of the step that it interrupted, whatever its class."""

    def strike(*_: object) -> None:
        queue.put(b"inner")
        raise QueueFull("the handler's own")

    before = signal.signal(signal.SIGUSR2, strike)
    try:
        for point in count():
            overtaking = Overtaking(point, strike)
            with suppress(QueueFull):
                overtaking.during(lambda: queue.put(b"outer"))
                assert not overtaking.reached
            left = queue.get_many()
            if not overtaking.reached:
                break
            assert left.count(b"inner") == 1 >= left.count(b"outer")
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize(
    ("call", "order"),
    [("acquire", [b"inner", b"outer"]), ("release", [b"outer", b"inner"])],
    ids=["taken", "given back"],
)
def test_a_call_right_after_a_step_took_or_gave_back_the_lock_leaves_it_free(
    queue: Handle, name: str, call: str, order: list[bytes]
) -> None:
    """C12: as from a handler there; the lock is a function in C, in which no profiler sees this point."""
    lock = queue._channel._lock
    original = getattr(lock, call)

    def strike() -> None:
        original()
        setattr(lock, call, original)
        queue.put(b"inner")

    setattr(lock, call, strike)
    queue.put(b"outer")
    with again(name) as other:
        assert other.get_many(block=False) == order


def test_what_a_handler_raises_while_the_lock_is_taken_goes_on(queue: Handle) -> None:
    """C12: a handler's BlockingIOError does not mean that the lock was not free."""
    mine = BlockingIOError("the handler's own")

    def strike(*_: object) -> None:
        raise mine

    before = signal.signal(signal.SIGUSR2, strike)
    try:
        queue._channel._lock.acquire = lambda: signal.raise_signal(signal.SIGUSR2)
        with pytest.raises(BlockingIOError) as caught:
            queue.put(b"x", timeout=0)
        assert caught.value is mine
    finally:
        signal.signal(signal.SIGUSR2, before)


@with_shmlock
def test_a_call_out_of_a_step_is_refused_where_shmlock_locks(name: str) -> None:
    """C12: a handler that calls the queue cannot wait for the step that it interrupted."""
    with made(name, lock="shmlock") as queue:
        channel = queue._channel
        with pytest.raises(Unsupported, match="signal handler"):
            channel._step(0.1, lambda state: channel.try_put(b"x", 0))
        assert queue.empty()


def test_a_wait_on_a_queue_that_is_gone_is_not_counted(queue: Handle, name: str) -> None:
    """C14: and fails for nobody; the call that waited says what it is."""
    ipcq.unlink(name, "pyshm")
    queue._channel.count_wait(False)
    with pytest.raises(QueueGone):
        queue.qsize()


# shmlock


@pytest.mark.parametrize("lock", ["flock", "", None])
def test_a_lock_that_there_is_not_is_refused(name: str, lock: str | None) -> None:
    """C25: InvalidArgument, and nothing is made."""
    with pytest.raises(InvalidArgument):
        made(name, lock=lock)
    assert not ipcq.exists(name, "pyshm")


@with_shmlock
def test_another_lock_than_the_queues_is_a_mismatch(name: str) -> None:
    """C18: the choice is kept with the queue."""
    with made(name, lock="shmlock"):
        with pytest.raises(QueueMismatch, match="lock is 'shmlock', asked for 'file'"):
            again(name, lock="file")
        again(name, lock="shmlock").close()
        again(name).close()


def test_shmlock_that_is_not_installed_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: Unsupported names the extra, for making a queue and for meeting one."""
    monkeypatch.setattr(_lock, "installed", lambda: False)
    with pytest.raises(Unsupported, match=r"pip install 'ipcq-queue\[shmlock\]'"):
        made(name, lock="shmlock")
    _lock._shmlock.cache_clear()
    descriptor = _segment.make(
        Header(name, Attributes(mode=0o600, max_messages=1, max_message_size=1), "shmlock", b"8" * 8)
    )
    os.close(descriptor)
    with pytest.raises(Unsupported, match=r"pip install 'ipcq-queue\[shmlock\]'"):
        again(name)


@with_shmlock
def test_shmlock_is_for_one_user(name: str) -> None:
    """Its blocks are, so nobody else could clear one away."""
    with pytest.raises(Unsupported, match="lock='file'"):
        made(name, lock="shmlock", mode=0o666, other_users=True)


@with_shmlock
def test_a_block_that_comes_back_is_told(name: str) -> None:
    """Who has the name of the lock for something else keeps it, and the queue says so."""
    with made(name, lock="shmlock") as queue:
        lock = queue._channel._lock
        lock._try = lambda: False
        with pytest.raises(MessageQueueError, match="cannot create the lock"):
            queue.put(b"x")


@with_shmlock
def test_a_block_removed_from_outside_hurts_nobody(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock on the file is what excludes; the block is made anew."""
    with made(name, lock="shmlock") as queue:
        step = _channel.PyshmChannel._put

        def put(channel: _channel.PyshmChannel, state: State, data: bytes, priority: int) -> bool:
            _lock._unlink(channel._lock._name)
            _lock._unlink(channel._lock._name)
            return step(channel, state, data, priority)

        monkeypatch.setattr(_channel.PyshmChannel, "_put", put)
        queue.put(b"x")
        queue.put(b"y")
        assert drained(queue) == [b"x", b"y"]


@with_shmlock
def test_a_handler_may_raise_while_the_block_is_made_anew(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: its exception is what comes out, and the next step makes the block."""

    def raise_mine() -> None:
        raise KeyError("mine")

    with made(name, lock="shmlock") as queue:
        lock = queue._channel._lock
        lock.forget()
        lock.forget()
        with monkeypatch.context() as context, pytest.raises(KeyError, match="mine"):
            context.setattr(lock, "_fresh", raise_mine)
            queue.put(b"x")
        queue.put(b"y")
        assert drained(queue) == [b"y"]


@with_shmlock
def test_what_a_handler_raised_is_not_shmlocks_error() -> None:
    """C12: shmlock puts errors of its own in the place of others'."""
    mine = KeyError("mine")
    with pytest.raises(KeyError) as caught, _lock._undisturbed():
        raise OSError("shmlock's") from mine
    assert caught.value is mine


# Forks


@pytest.mark.parametrize("lifetime", ["persistent", "last-close"])
@both_locks
def test_a_channel_after_a_fork_is_a_file_of_its_own(name: str, lock: str, lifetime: str) -> None:
    """C20, clause 17: opened anew under the same number, so that the parent's lock is not the child's."""
    with made(name, lock=lock, lifetime=lifetime) as queue:
        channel = queue._channel
        kept = os.dup(channel._descriptor)
        lock_of_parent = FileLock(kept)
        lock_of_parent.acquire()
        assert channel.after_fork()
        with pytest.raises(BlockingIOError):
            channel._lock.acquire()
        assert not channel.try_put(b"x", 0)
        lock_of_parent.release()
        os.close(kept)
        queue.put(b"x")
        assert drained(queue) == [b"x"]


def test_a_step_that_a_fork_interrupted_does_nothing_in_the_child(queue: Handle) -> None:
    """C20: the parent's goes on; the child's has no lock, and fails."""
    channel = queue._channel

    def fork_inside(state: State) -> bool:
        assert not channel.after_fork()
        return channel._put(state, b"x", 0)

    with pytest.raises(MessageQueueError):
        channel._step(0.1, fork_inside)
    assert queue.empty()


def test_a_child_that_may_not_open_the_file_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 17: and nothing is left open."""
    queue = made(name)

    def refuse(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "no")

    with monkeypatch.context() as context:
        context.setattr(os, "open", refuse)
        assert not queue._channel.after_fork()
    queue._held.clear()
    queue.close()
