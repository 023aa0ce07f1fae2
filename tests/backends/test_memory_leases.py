"""What only the in-process backend has in leases: exceptions at every point, re-entrance, and its indexes.

Also what no call of a handle can do to a channel.
"""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import ipcq
from backends.overtaking import Overtaking
from backends.test_memory_queue import Interruption, ignore_unraisable
from ipcq.backend import LONGEST, Counts, LeaseChannel, Leased, Request, Verdict
from ipcq.errors import QueueGone
from ipcq_memory import LeaseMemoryChannel, MemoryBackend
from ipcq_memory._leases import LeaseQueue

Handle = ipcq.Queue[Any]

NAME = "/memory-leases"


@pytest.fixture
def queue() -> Iterator[Handle]:
    """Return a handle to a new queue with leases, for five messages of 16 bytes."""
    with ipcq.open(
        NAME, "memory", exclusive=True, max_messages=5, max_message_size=16, serializer="raw", max_deliveries=2
    ) as queue:
        try:
            yield queue
        finally:
            queue.unlink()


def channel_of(queue: Handle) -> LeaseMemoryChannel:
    channel = queue._channel
    assert isinstance(channel, LeaseMemoryChannel)
    return channel


def behind(queue: Handle) -> LeaseQueue:
    return channel_of(queue)._queue


# A channel, called without the core, which checks first


def leased(channel: LeaseChannel, serial: int = 1, hold: float | None = None) -> Leased:
    lease = channel.try_lease(serial, hold)
    assert lease is not None
    return lease


@pytest.mark.parametrize("settle", ["settle", "extend", "find_lost"])
def test_another_channel_has_nothing_to_say(queue: Handle, settle: str) -> None:
    """Clause 27: a token counts only on the channel that leased the message."""
    mine, other = channel_of(queue), MemoryBackend().attach(NAME, Request())
    assert isinstance(other, LeaseMemoryChannel)
    queue.put(b"job")
    token = leased(mine).token
    call = {
        "settle": lambda: other.settle([token], Verdict.ACK, 0.0, b""),
        "extend": lambda: other.extend([token], 1.0),
        "find_lost": lambda: other.find_lost([token]),
    }[settle]
    assert (call(), mine.find_lost([token])) == ([token], [])
    other.close()


def test_a_token_counts_once_in_a_batch(queue: Handle) -> None:
    """Clause 27: the second is lost."""
    queue.put(b"job")
    channel = channel_of(queue)
    token = leased(channel).token
    assert channel.settle([token, token, 17], Verdict.RELEASE, 0.0, b"") == [token, 17]
    assert queue.qsize() == 1


def test_only_the_serial_numbers_asked_for_are_recalled(queue: Handle) -> None:
    """Clause 25: from the first, that many."""
    queue.put_many([b"1", b"2", b"3"])
    channel = channel_of(queue)
    tokens = [leased(channel, serial).token for serial in (10, 11, 12)]
    channel.recall(11, 1)
    channel.recall(13, 100)
    assert channel.find_lost(tokens) == [tokens[1]]


def test_a_batch_has_consecutive_serial_numbers(queue: Handle) -> None:
    """Clause 25: so that all of it can be recalled."""
    queue.put_many([b"1", b"2", b"3"])
    channel = channel_of(queue)
    assert len(channel.try_lease_many(10, 3, None)) == 3
    channel.recall(11, 2)
    assert channel.counts() == Counts(ready=2, leased=1, delayed=0, dead=0)


def test_a_backend_without_batches_leases_one_by_one(queue: Handle) -> None:
    """Clause 24: the protocol has a correct default."""
    queue.put_many([b"1", b"2", b"3"])
    channel = channel_of(queue)
    assert [each.data for each in LeaseChannel.try_lease_many(channel, 10, 2, None)] == [b"1", b"2"]
    assert [each.data for each in LeaseChannel.try_lease_many(channel, 20, 2, None)] == [b"3"]


@pytest.mark.parametrize("before", [0, 1])
def test_a_batch_that_fails_keeps_what_it_has(queue: Handle, before: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 24: an error is raised only if nothing was leased."""
    channel = channel_of(queue)
    there = [Leased(b"1", 0, 1, 1, 0)] * before

    def lease_or_fail(serial: int, hold: float | None) -> Leased:
        if there:
            return there.pop()
        raise QueueGone

    monkeypatch.setattr(channel, "try_lease", lease_or_fail)
    if before:
        assert len(LeaseChannel.try_lease_many(channel, 1, 2, None)) == 1
    else:
        with pytest.raises(QueueGone):
            LeaseChannel.try_lease_many(channel, 1, 2, None)


def test_tend_tells_when_it_has_to_be_called_again(queue: Handle) -> None:
    """Clause 29: at the next end of a hold or a delay."""
    channel = channel_of(queue)
    queue.put(b"job")
    assert channel.tend() is None
    lease = leased(channel)
    assert channel.tend() == LONGEST
    channel.extend([lease.token], 100.0)
    assert 99 < (channel.tend() or 0) <= 100


def test_leases_that_are_out_are_listed(queue: Handle) -> None:
    """For doctor: with their process, the longest held first."""
    channel = channel_of(queue)
    queue.put_many([b"1", b"2"])
    leased(channel, 1)
    leased(channel, 2)
    first, second = channel.held(5)
    assert (first.pid, first.deliveries, first.seconds >= second.seconds >= 0) == (os.getpid(), 1, True)
    assert len(channel.held(1)) == 1


def test_closing_returns_leases_even_without_memory(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 31: then the next call on the queue returns them."""
    other = ipcq.open(NAME, "memory", serializer="raw")
    queue.put(b"job")
    job = other.lease()
    shared = behind(queue)

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(shared, "commit", fail)
    other.close()
    monkeypatch.undo()
    assert (queue.get(timeout=0), job.lost) == (b"job", True)


def test_indexes_do_not_grow_with_what_is_gone(queue: Handle) -> None:
    """C17: entries for messages that were released, extended or acknowledged are removed."""
    shared = behind(queue)
    for _ in range(500):
        queue.put(b"job")
        queue.lease(hold=1000).release()
        job = queue.lease(hold=1000)
        job.extend(2000)
        job.ack()
    assert len(shared._messages) + len(shared._order) + len(shared._ends) < 200


def test_a_batch_looks_at_no_more_messages_than_it_leases(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leases them in order, each once, although those that came back have two entries."""
    shared = behind(queue)
    queue.put_many([b"0", b"1", b"2", b"3", b"4"])
    for job in queue.lease_many(2):
        job.release()
    with monkeypatch.context() as patch:
        patch.delattr(type(shared), "messages")
        first, second = queue.lease_many(3), queue.lease_many(9)
    assert [job.item for job in first] == [b"0", b"1", b"2"]
    assert [job.item for job in second] == [b"3", b"4"]
    queue.ack_many(first + second)


# Exceptions at every point, and calls of a handler at every point


def settle(queue: Handle, how: str) -> None:
    getattr(queue.lease(timeout=0), how)()


VERBS: dict[str, Callable[[Handle], object]] = {
    "put": lambda queue: queue.put(b"outer", timeout=0),
    "put later": lambda queue: queue.put(b"outer", timeout=0, delay=0.001),
    "get": lambda queue: queue.get(timeout=0),
    "get_many": lambda queue: queue.get_many(timeout=0),
    "lease": lambda queue: queue.lease(timeout=0).ack(),
    "release": lambda queue: settle(queue, "release"),
    "fail": lambda queue: settle(queue, "fail"),
    "reject": lambda queue: settle(queue, "reject"),
    "hold ends": lambda queue: (queue.lease(timeout=0, hold=1e-9), queue.qsize()),
    "lease_many": lambda queue: queue.ack_many(queue.lease_many(2, timeout=0)),
    "take a dead letter": lambda queue: queue.dead().get(timeout=0),
    "requeue": lambda queue: queue.dead().requeue(),
    "clear": lambda queue: queue.clear(),
    "stats": lambda queue: queue.stats(),
}

INNER = ("put", "get", "lease", "release", "requeue")

#: The verbs that take nothing out of the queue for good.
KEEPING = ("release", "fail", "hold ends", "reject", "requeue", "stats")


def prepare(queue: Handle) -> None:
    """Make a queue with one message that is dead and two that are ready."""
    queue.clear()
    queue.dead().clear()
    queue.put_many([b"dead", b"first", b"second"])
    queue.lease(timeout=0).reject()


def states(queue: Handle) -> Counts:
    """Return the counts, and check that they agree with the messages."""
    shared = behind(queue)
    counts = channel_of(queue).counts()
    messages = [each for each in shared._messages.values() if each is not None]
    found = Counter(int(each.state) for each in messages)
    assert counts == Counts(*(found[state] for state in range(4)))
    assert (shared._places, shared._bytes) == (len(messages), sum(each.charge for each in messages))
    assert shared.puts == shared.gets + len(messages)
    return counts


@ignore_unraisable
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("verb", VERBS)
def test_an_exception_at_any_point_keeps_the_figures_right(queue: Handle, verb: str) -> None:
    """C5, clause 25: no message stays leased, and none is counted twice."""
    point, reached = 0, True
    while reached:
        prepare(queue)
        interruption = Interruption(point)
        interruption.during(lambda: VERBS[verb](queue))
        counts = states(queue)
        assert counts.leased == 0, point
        if verb in KEEPING:
            assert sum(counts) == 3, point
        reached, point = interruption.reached, point + 1


@ignore_unraisable
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("verb", VERBS)
def test_a_call_in_the_middle_of_another_keeps_the_figures_right(queue: Handle, verb: str, inner: str) -> None:
    """C12: as signal handlers and finalisers make them."""
    point, reached = 0, True
    while reached:
        prepare(queue)

        def overtake() -> None:
            with suppress(ipcq.TimedOutError):
                VERBS[inner](queue)

        overtaking = Overtaking(point, overtake)
        with suppress(ipcq.TimedOutError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            overtaking.during(lambda: VERBS[verb](queue))
        counts = states(queue)
        assert (counts.leased, behind(queue)._places <= 5) == (0, True), point
        if verb in KEEPING and inner in KEEPING:
            assert sum(counts) == 3, point
        reached, point = overtaking.reached, point + 1


@ignore_unraisable
def test_a_call_while_the_indexes_are_rebuilt_loses_no_message(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: what it has added is found."""
    monkeypatch.setattr("ipcq_memory._leases._SPARE_ENTRIES", -100)
    point, reached = 0, True
    while reached:
        queue.clear()
        queue.put(b"outer")
        overtaking = Overtaking(point, lambda: queue.put(b"inner", timeout=0))
        with suppress(ipcq.QueueEmpty):
            overtaking.during(lambda: queue.get(timeout=0))
        ready = states(queue).ready
        assert ready == 0 or len(queue.get_many(timeout=0)) == ready, point
        reached, point = overtaking.reached, point + 1


def test_a_commit_without_memory_changes_nothing(queue: Handle) -> None:
    """C36: the figures agree with the messages."""

    class Short(dict[Any, Any]):
        def update(self, *_: Any, **__: Any) -> None:
            raise MemoryError

    queue.put(b"job")
    shared = behind(queue)
    messages, shared._messages = shared._messages, Short(shared._messages)
    with pytest.raises(MemoryError):
        queue.put(b"more")
    shared._messages = messages
    assert states(queue) == Counts(ready=1, leased=0, delayed=0, dead=0)
