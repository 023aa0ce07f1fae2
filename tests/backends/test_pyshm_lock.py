"""The lock of a pyshm queue: stopped holders, shmlock, and forks."""

import errno
import os
import re
import signal
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

import ipcq
from backends import pyshm
from backends.overtaking import CAPACITY, INNER, VERBS, Overtaking, check_everywhere
from backends.pyshm import Handle, attach, both_locks, create, drain, with_shmlock
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
    """Hold the lock as a stopped process would; return a function that releases it."""
    descriptor = os.open(_place.path_of(name), os.O_RDWR)
    lock = FileLock(descriptor)
    lock.acquire()
    with pytest.raises(BlockingIOError):
        queue._channel._lock.acquire()
    yield lock.release
    os.close(descriptor)


def test_a_queue_whose_lock_a_stopped_process_holds_looks_full_and_empty(queue: Handle, held: object) -> None:
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


def test_a_batch_without_the_lock_is_empty(queue: Handle, held: Callable[[], None]) -> None:
    """C9: at least one item, then further ones, unless a process stops while it holds the lock."""
    channel = queue._channel
    assert channel.try_get_many(3) == []
    held()
    queue.put(b"x")
    assert channel.try_get_many(3) == [(b"x", 0)]


@pytest.mark.parametrize("use", ["peek", "clear", "shutdown"])
def test_calls_without_a_timeout_report_that_the_lock_is_held(
    queue: Handle, held: object, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C11: after a second, with the way out."""
    monkeypatch.setattr(_channel, "LONG_PATIENCE", 0.05)
    with pytest.raises(TimedOutError, match=f"process {os.getpid()} .* holds its lock"):
        getattr(queue, use)()


def test_a_held_lock_with_an_unknown_holder_is_reported_with_its_file(
    queue: Handle, held: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C37: as on systems that do not show the holder of a lock."""
    monkeypatch.setattr(_channel, "LONG_PATIENCE", 0.05)
    monkeypatch.setattr(queue._channel, "holder", lambda getting: None)
    with pytest.raises(TimedOutError, match=re.escape(_place.path_of(queue.name))):
        queue.clear()


def test_waits_that_could_not_be_counted_are_counted_later(queue: Handle, held: Callable[[], None]) -> None:
    """C25: the next step that gets the lock counts them."""
    with pytest.raises(QueueEmpty):
        queue.get(timeout=0.1)
    assert queue.stats().waits == 0
    held()
    queue.put(b"x")
    figures = queue.stats()
    assert (figures.waits, figures.timeouts) == (1, 1)


def test_reads_that_overlap_with_commits_fall_back_to_the_lock(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of messages is right even if each read without the lock meets a commit."""
    queue.put(b"x")
    reads = count()
    newest = queue._channel._newest
    monkeypatch.setattr(queue._channel, "_newest", lambda raw: newest(raw) if next(reads) >= 3 else None)
    assert queue.qsize() == 1


def test_looking_needs_no_lock(queue: Handle, held: object) -> None:
    """C11: the state's checksum shows whether it is whole."""
    assert (queue.qsize(), queue.empty(), queue.full(), queue.stats().puts) == (0, True, False, 0)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", VERBS)
@pytest.mark.parametrize("priorities", [False, True])
def test_a_call_in_the_middle_of_another_completes_and_loses_nothing(
    name: str, priorities: bool, outer: str, inner: str
) -> None:
    """C12: at any point where a handler or a finaliser can interrupt a step of its own thread."""
    with create(name, priorities=priorities, max_messages=CAPACITY) as queue:
        check_everywhere(queue, outer, inner)


@pytest.mark.parametrize("error", [struct.error("torn"), CorruptQueue()])
def test_inconsistent_data_in_an_overtaken_step_is_no_error(
    queue: Handle, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """C12: the data changed between its reads, so it starts again."""

    def fits(*_: object) -> bool:
        monkeypatch.undo()
        queue.put(b"inner")
        raise error

    monkeypatch.setattr(queue._channel._order, "fits", fits)
    queue.put(b"outer")
    assert queue.get_many() == [b"inner", b"outer"]


def test_a_peek_that_is_overtaken_starts_again(name: str) -> None:
    """C12: another message may be where the rest of the first one was."""
    one, other = bytes(10_000), b"x" * 10_000
    with create(name, max_messages=2, max_message_size=11_000) as queue:
        for point in count():
            queue.put(one)
            overtaking = Overtaking(point, lambda: queue.get_many() and queue.put_many([other, other]))
            assert overtaking.during(queue.peek) in (one, other)
            queue.clear()
            if not overtaking.reached:
                break


def test_an_exception_of_a_handler_that_has_put_propagates(queue: Handle) -> None:
    """C12: it is not mistaken for an error of the interrupted step, whatever its class."""

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
    """C12: as a signal handler would; the lock is a function in C, in which a profiler cannot stop."""
    lock = queue._channel._lock
    original = getattr(lock, call)

    def strike() -> None:
        original()
        setattr(lock, call, original)
        queue.put(b"inner")

    setattr(lock, call, strike)
    queue.put(b"outer")
    with attach(name) as other:
        assert other.get_many(block=False) == order


def test_an_exception_of_a_signal_handler_during_locking_passes(queue: Handle) -> None:
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
def test_a_call_from_within_a_step_is_refused_with_shmlock(name: str) -> None:
    """C12: a handler that calls the queue cannot wait for the step that it interrupted."""
    with create(name, lock="shmlock") as queue:
        channel = queue._channel
        with pytest.raises(Unsupported, match="signal handler"):
            channel._step(0.1, lambda state: channel.try_put(b"x", 0))
        assert queue.empty()


def test_a_wait_on_a_queue_that_is_gone_is_not_counted(queue: Handle, name: str) -> None:
    """C14: counting raises nothing; the call that waited raises the error."""
    ipcq.unlink(name, "pyshm")
    queue._channel.count_wait(False)
    with pytest.raises(QueueGone):
        queue.qsize()


# shmlock


@pytest.mark.parametrize("lock", ["flock", "", None])
def test_an_unknown_lock_is_refused(name: str, lock: str | None) -> None:
    """C25: InvalidArgument, and no queue is created."""
    with pytest.raises(InvalidArgument):
        create(name, lock=lock)
    assert not ipcq.exists(name, "pyshm")


@with_shmlock
def test_another_lock_than_the_queues_is_a_mismatch(name: str) -> None:
    """C18: the choice is stored with the queue."""
    with create(name, lock="shmlock"):
        with pytest.raises(QueueMismatch, match="lock is 'shmlock', asked for 'file'"):
            attach(name, lock="file")
        attach(name, lock="shmlock").close()
        attach(name).close()


def test_a_missing_shmlock_is_unsupported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: Unsupported names the extra, for creating a queue and for attaching to one."""
    monkeypatch.setattr(_lock, "installed", lambda: False)
    with pytest.raises(Unsupported, match=r"pip install 'ipcq-queue\[shmlock\]'"):
        create(name, lock="shmlock")
    _lock._shmlock.cache_clear()
    descriptor = _segment.make(
        Header(name, Attributes(mode=0o600, max_messages=1, max_message_size=1), "shmlock", b"8" * 8)
    )
    os.close(descriptor)
    with pytest.raises(Unsupported, match=r"pip install 'ipcq-queue\[shmlock\]'"):
        attach(name)


@with_shmlock
def test_shmlock_is_for_one_user(name: str) -> None:
    """Its blocks belong to one user, so no other user could remove one."""
    with pytest.raises(Unsupported, match="lock='file'"):
        create(name, lock="shmlock", mode=0o666, other_users=True)


@with_shmlock
def test_a_block_that_comes_back_is_an_error(name: str) -> None:
    """A foreign block of the same name stays, and the error names it."""
    with create(name, lock="shmlock") as queue:
        lock = queue._channel._lock
        lock._try = lambda: False
        with pytest.raises(MessageQueueError, match="cannot create the lock"):
            queue.put(b"x")


@with_shmlock
def test_a_block_removed_by_others_does_no_harm(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock on the file excludes other processes; the block is created again."""
    with create(name, lock="shmlock") as queue:
        step = _channel.PyshmChannel._put

        def put(channel: _channel.PyshmChannel, state: State, data: bytes, priority: int) -> bool:
            _lock._unlink(channel._lock._name)
            _lock._unlink(channel._lock._name)
            return step(channel, state, data, priority)

        monkeypatch.setattr(_channel.PyshmChannel, "_put", put)
        queue.put(b"x")
        queue.put(b"y")
        assert drain(queue) == [b"x", b"y"]


@with_shmlock
def test_a_block_that_another_users_file_names_is_not_removed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file could name any block of this user."""
    attributes = Attributes(mode=0o600, max_messages=1, max_message_size=1)
    block = Path("/dev/shm", _lock._BLOCKS + (b"8" * 8).hex())
    block.touch()
    try:
        with create(name) as queue, monkeypatch.context() as context:
            context.setattr(os, "geteuid", lambda: 12345)
            _lock.clear_away(Header(name, attributes, "shmlock", b"8" * 8), queue._channel._descriptor)
        assert block.exists()
    finally:
        block.unlink()


@with_shmlock
def test_a_handler_may_raise_while_the_block_is_created_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: the caller gets the handler's exception, and the next step creates the block."""

    def raise_mine() -> None:
        raise KeyError("mine")

    with create(name, lock="shmlock") as queue:
        lock = queue._channel._lock
        lock.forget()
        lock.forget()
        with monkeypatch.context() as context, pytest.raises(KeyError, match="mine"):
            context.setattr(lock, "_fresh", raise_mine)
            queue.put(b"x")
        queue.put(b"y")
        assert drain(queue) == [b"y"]


@with_shmlock
def test_an_exception_of_a_handler_is_not_replaced_by_shmlocks() -> None:
    """C12: shmlock replaces exceptions by its own."""
    mine = KeyError("mine")
    with pytest.raises(KeyError) as caught, _lock._undisturbed():
        raise OSError("shmlock's") from mine
    assert caught.value is mine


# Forks


@pytest.mark.parametrize("lifetime", ["persistent", "last-close"])
@both_locks
def test_a_channel_reopens_its_file_after_a_fork(name: str, lock: str, lifetime: str) -> None:
    """C20, clause 17: opened again under the same number, so that the child does not share the parent's lock."""
    with create(name, lock=lock, lifetime=lifetime) as queue:
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
        assert drain(queue) == [b"x"]


def test_a_step_that_a_fork_interrupted_does_nothing_in_the_child(queue: Handle) -> None:
    """C20: the parent's step continues; the child's has no lock and fails."""
    channel = queue._channel

    def fork_inside(state: State) -> bool:
        assert not channel.after_fork()
        return channel._put(state, b"x", 0)

    with pytest.raises(MessageQueueError):
        channel._step(0.1, fork_inside)
    assert queue.empty()


def test_a_child_that_may_not_open_the_file_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 17: and nothing is left open."""
    queue = create(name)

    def refuse(*arguments: object) -> int:
        raise PermissionError(errno.EACCES, "no")

    with monkeypatch.context() as context:
        context.setattr(os, "open", refuse)
        assert not queue._channel.after_fork()
    queue._unclosed.clear()
    queue.close()
