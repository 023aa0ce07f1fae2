"""What is particular to pyshm about leases: owners, large batches, calls within calls, and the layout's version."""

import os
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

import ipcq
from backends import pyshm
from backends.overtaking import Overtaking
from backends.pyshm import Handle, attach, create, forge_state, linux, read_file, read_state, write_file
from ipcq.errors import (
    CorruptQueue,
    LimitExceeded,
    MessageQueueError,
    QueueEmpty,
    VersionMismatch,
)
from ipcq_pyshm import _lease_channel, _owners, _place, _segment, _staged
from ipcq_pyshm._bells import ALL, MESSAGES, SPACE
from ipcq_pyshm._layout import (
    _FRONT,
    _HEADER,
    _OLD_HEADER,
    INDEX_AT,
    LOOKED_AT,
    MOST_OWNERS,
    OWNER,
    OWNERS_AT,
    REASON_AT,
    STATES_AT,
    LeaseState,
)

pytestmark = linux
name = pyshm.name


@pytest.fixture
def leasing(name: str) -> Iterator[Handle]:
    """Return a handle to a new queue with leases for 4 messages of 64 bytes."""
    with create(name, leases=True) as queue:
        yield queue


def run(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of Python."""
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


LEASE_AND_DIE = """
import os, signal, sys, ipcq
jobs = ipcq.open(sys.argv[1], "pyshm", create=False, serializer="raw").lease_many(int(sys.argv[2]))
os.kill(os.getpid(), signal.SIGKILL)
"""

# Owners


def test_a_killed_holder_leaves_the_table_with_its_leases(leasing: Handle, name: str) -> None:
    """Clause 30: its slot is free again when its messages are back."""
    leasing.put(b"job")
    run(LEASE_AND_DIE, name, "1")
    with leasing.lease(timeout=20) as job:
        assert job.deliveries == 2
    numbers = leasing._channel._owners.numbers()
    assert [number for number in numbers if number] == [leasing._channel._owners._number]


def test_a_holder_that_a_signal_handler_has_entered_is_entered_once(leasing: Handle) -> None:
    """The handler leases after this call has looked whether it has a slot."""
    owners = leasing._channel._owners
    slot, owners.slot = owners.enter(), -1
    assert (owners.enter(), owners.numbers().count(owners._number)) == (slot, 1)


def test_a_closed_holder_leaves_the_table(leasing: Handle, name: str) -> None:
    """Clause 31: at its close."""
    leasing.put(b"job")
    with attach(name) as other:
        other.lease(timeout=0).ack()
        assert any(leasing._channel._owners.numbers())
    assert not any(leasing._channel._owners.numbers())


def test_a_full_table_makes_room_by_removing_the_dead(leasing: Handle, name: str) -> None:
    """C3: although nothing is leased, and so nobody looks for them."""
    leasing.put(b"job")
    write_file(name, OWNERS_AT, b"".join(OWNER.pack(number) for number in range(1, MOST_OWNERS + 1)))
    leasing.lease(timeout=0).ack()
    assert sum(map(bool, leasing._channel._owners.numbers())) == 1


def test_too_many_living_holders_are_refused(leasing: Handle, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C25: LimitExceeded says how many, and nothing is leased."""
    leasing.put(b"job")
    write_file(name, OWNERS_AT, b"".join(OWNER.pack(number) for number in range(1, MOST_OWNERS + 1)))
    monkeypatch.setattr(_owners._file, "is_byte_locked", lambda *_: True)
    with pytest.raises(LimitExceeded, match=f"handles with leases.*{MOST_OWNERS}"):
        leasing.lease(timeout=0)
    assert leasing.qsize() == 1


def test_a_torn_number_is_that_of_a_dead_owner(leasing: Handle, name: str) -> None:
    """C15, C28: as any number that nobody can lock."""
    leasing.put_many([b"job", b"other"])
    write_file(name, OWNERS_AT, OWNER.pack((1 << 64) - 1))
    write_file(name, OWNERS_AT + OWNER.size, OWNER.pack(5))
    job = leasing.lease(timeout=0)
    write_file(name, LOOKED_AT, bytes(8))
    leasing._channel._owners.next_look = 0
    leasing.qsize()
    assert sum(map(bool, leasing._channel._owners.numbers())) == 1
    job.ack()


def test_a_channel_that_is_in_the_table_is_not_entered_again(leasing: Handle) -> None:
    """C12: a call of a signal handler may have entered it in the middle of the same step."""
    leasing.put(b"job")
    leasing.lease(timeout=0).ack()
    owners = leasing._channel._owners
    slot, owners.slot = owners.slot, -1
    assert owners.enter() == slot


def test_a_death_is_looked_for_by_one_process_at_a_time(leasing: Handle, name: str) -> None:
    """Clause 30: a look by another process counts."""
    leasing.put(b"job")
    job = leasing.lease(timeout=0)
    now = time.monotonic_ns()
    owners = leasing._channel._owners
    owners.looked(now)
    assert owners.find_dead(now + 1) == set()
    assert owners.next_look == now + _owners.LOOK_NANOSECONDS
    job.ack()


@pytest.mark.parametrize("crowded", [100, 900])
def test_many_leases_of_a_dead_holder_return_in_several_steps(
    name: str, crowded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 30: so that others get the lock in between; all of them return."""
    with create(name, leases=True, max_messages=1000) as queue:
        queue.put_many([b"%d" % number for number in range(1000)])
        run(LEASE_AND_DIE, name, "1000")
        monkeypatch.setattr(_staged, "_CROWDED", crowded)
        time.sleep(2 * _owners.LOOK_NANOSECONDS / 1e9)
        leased = queue._channel.try_lease_many(1, 1000, None)
        assert [each.data for each in leased] == [b"%d" % number for number in range(1000)]
        assert queue.stats().returned == 1000


def test_a_waiting_process_notices_a_death(leasing: Handle, name: str) -> None:
    """C3: the aim is a tenth of a second; here ten times that."""
    leasing.put(b"job")
    with subprocess.Popen(
        [sys.executable, "-c", LEASE_AND_DIE.replace("os.kill", "print(flush=True); input(); os.kill"), name, "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdout.readline()
        assert leasing.stats().leased == 1
        holder.kill()
        holder.wait()
        began = time.monotonic()
        leasing.lease(timeout=20).ack()
        assert time.monotonic() - began < 1


def test_the_holders_are_known(leasing: Handle, name: str) -> None:
    """For doctor and stat: the process, since when, and how often the message has been delivered."""
    leasing.put_many([b"1", b"2"])
    mine = leasing.lease(timeout=0)
    with subprocess.Popen(
        [sys.executable, "-c", LEASE_AND_DIE.replace("os.kill", "print(flush=True); input(); os.kill"), name, "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdout.readline()
        held = leasing._channel.held(5)
        assert [(each.pid, each.deliveries) for each in held] == [(os.getpid(), 1), (holder.pid, 1)]
        assert 20 > held[0].seconds > held[1].seconds >= 0
        leasing.put(b"3")
        also = leasing.lease(timeout=0)
        assert [each.pid for each in leasing._channel.held(5)] == [os.getpid(), holder.pid, os.getpid()]
        also.ack()
        assert len(leasing._channel.held(1)) == 1
        holder.kill()
    mine.ack()


def test_the_holder_in_another_handle_of_this_process_is_unknown(leasing: Handle, name: str) -> None:
    """The kernel does not tell whose lock it is, and the other open files of this process are not searched."""
    leasing.put(b"1")
    with attach(name) as other:
        job = other.lease(timeout=0)
        assert [each.pid for each in leasing._channel.held(5)] == [None]
        job.ack()


def test_a_channel_without_leases_recalls_nothing(leasing: Handle) -> None:
    """Clause 25: and needs no lock for that."""
    leasing._channel._step = None
    leasing._channel.recall(1, 1)


# Large batches


def test_a_batch_larger_than_the_redo_record_is_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C9: it takes several commits under one lock."""
    monkeypatch.setattr(_staged, "_CROWDED", 20)
    with create(name, leases=True, max_messages=200) as queue:
        items = [b"%d" % number for number in range(200)]
        queue.put_many(items)
        jobs = queue.lease_many(200)
        queue._channel.settle([job._token for job in jobs[::2]], ipcq.backend.Verdict.REJECT, 0.0, b"bad")
        assert queue.dead().requeue() == 100
        assert queue.get_many() == items[::2]
        queue._channel.extend([job._token for job in jobs[1::2]], 1000.0)
        queue._channel.recall(1, 1 << 62)
        assert queue.get_many() == items[1::2]
        assert not queue._channel._look().flags


def test_others_see_no_part_of_a_batch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C9: who reads without the lock finds that a batch is under way, and waits for the lock."""
    monkeypatch.setattr(_staged, "_CROWDED", 20)
    with create(name, leases=True, max_messages=200) as queue, attach(name) as other:
        queue.put_many([b"x"] * 200)
        seen: list[int] = []
        go_on = queue._channel._go_on

        def look(state: LeaseState) -> None:
            seen.append(other._channel._look().flags)
            go_on(state)

        monkeypatch.setattr(other._channel, "_run", lambda *_: _lease_channel.NOT_NOW)
        monkeypatch.setattr(queue._channel, "_go_on", look)
        tokens = [each.token for each in queue._channel.try_lease_many(1, 200, None)]
        queue._channel.settle(tokens[::2], ipcq.backend.Verdict.REJECT, 0.0, b"bad")
        assert set(seen) == {2}
        monkeypatch.undo()
        assert other._channel._look().flags == 0


def test_a_batch_that_was_killed_in_the_middle_is_over(leasing: Handle, name: str) -> None:
    """C15: the next process that looks says so."""
    forge_state(name, flags=2)
    assert leasing.qsize() == 0
    assert read_state(name).flags == 0


@pytest.mark.parametrize("crowded", [100, 900])
def test_what_is_due_at_once_returns_in_several_steps(name: str, crowded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 29: all of it, before the operation that found it."""
    with create(name, leases=True, max_messages=600) as queue:
        queue.put_many([b"%d" % number for number in range(600)])
        monkeypatch.setattr(_staged, "_CROWDED", crowded)
        tokens = [each.token for each in queue._channel.try_lease_many(1, 600, 0.001)]
        time.sleep(0.002)
        assert queue._channel.find_lost(tokens) == tokens
        assert queue.qsize() == 600
        for number in range(600):
            assert queue.get(timeout=0) == b"%d" % number


def test_a_get_first_returns_all_that_is_due(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 29: in several steps, too."""
    with create(name, leases=True, max_messages=600) as queue:
        queue.put_many([b"item"] * 600)
        monkeypatch.setattr(_staged, "_CROWDED", 100)
        queue._channel.try_lease_many(1, 600, 0.001)
        time.sleep(0.002)
        assert queue.get(timeout=0) == b"item"
        assert queue.qsize() == 599


# The heaps


def check_heaps(queue: Handle) -> None:
    """Check that each heap is one, and that leased messages know where their entries are."""
    order, state = queue._channel._order, queue._channel._look()
    for heap in (order._ready, order._delayed, order._leased, order._dead):
        entries = heap.all(state)
        assert all(entries[(index - 1) // 2][0] <= key for index, (key, _) in enumerate(entries) if index)
    for index, (_, value) in enumerate(order._leased.all(state)):
        assert order._front(value & 0xFFFFFFFF).place == index


@pytest.mark.parametrize("seed", range(3))
def test_leases_with_ends_in_any_order_stay_a_heap(name: str, seed: int) -> None:
    """Clauses 27, 29: whatever is leased, extended, settled or returned in between, alone or in a batch."""
    import random

    dice = random.Random(seed)
    with create(name, leases=True, max_messages=40, priorities=bool(seed)) as queue:
        channel = queue._channel
        tokens: list[int] = []
        for serial in range(1, 600):
            while not queue.full():
                queue.put(b"x", timeout=0, priority=dice.randrange(3) if seed else 0)
            step = dice.randrange(7)
            some = dice.sample(tokens, min(len(tokens), dice.randint(1, 3)))
            if step < 3:
                hold = dice.choice([None, dice.uniform(10, 1000)])
                tokens += [each.token for each in channel.try_lease_many(serial * 8, dice.randint(1, 5), hold)]
            elif step < 5:
                verdict = dice.choice(list(ipcq.backend.Verdict))
                delay = dice.choice([0.0, dice.uniform(10, 1000)])
                assert channel.settle(some, verdict, delay, b"no") == []
                tokens = [token for token in tokens if token not in some]
                channel.requeue(dice.choice([1, 40]))
            elif step < 6:
                assert channel.extend(some, dice.uniform(10, 1000)) == []
            else:
                assert channel.find_lost(tokens) == []
            if not channel.counts().ready and not channel.counts().leased:
                queue.clear()
            check_heaps(queue)
            assert sum(channel.counts()) == 40 - (0 if queue.full() else 40 - sum(channel.counts()))
        assert tokens


def test_the_next_tending_is_known(leasing: Handle) -> None:
    """Clause 30: nothing, the end of a delay, the next look for the dead, or the end of a hold."""
    channel = leasing._channel
    assert channel.tend() is None
    leasing.put(b"x", timeout=0, delay=100)
    assert 99 < channel.tend() <= 100
    leasing.put(b"y")
    leased = channel.try_lease(1, None)
    assert channel.tend() == 0.04
    channel.extend([leased.token], 0.02)
    assert 0 <= channel.tend() <= 0.02


def test_a_lease_without_an_end_needs_no_next_end(leasing: Handle) -> None:
    """It looks for the dead all the same."""
    leasing.put(b"x")
    leasing._channel.try_lease(1, None)
    assert leasing._channel.tend() == 0.04


def test_a_message_that_became_due_waits_for_those_put_before_it(leasing: Handle) -> None:
    """Clause 24: it is not fresh, and they are."""
    leasing.put(b"1")
    leasing.put(b"2", delay=0.001)
    time.sleep(0.002)
    leasing.put(b"3")
    assert leasing.get_many() == [b"1", b"2", b"3"]


def test_a_message_of_many_blocks_can_be_leased(name: str) -> None:
    """It is read in several pieces."""
    with create(name, leases=True, max_messages=None, max_message_size=9000, buffer_size=30000) as queue:
        queue.put_many([b"1", b"2" * 9000])
        queue.lease(timeout=0).ack()
        queue.put(b"3" * 9000)
        assert [each.data for each in queue._channel.try_lease_many(1, 5, None)] == [b"2" * 9000, b"3" * 9000]


def test_waits_are_counted(leasing: Handle) -> None:
    """C25: as on a queue without leases."""
    with pytest.raises(QueueEmpty):
        leasing.lease(timeout=0.01)
    leasing._channel._waits = 1
    assert (leasing.stats().waits, leasing.stats().timeouts) == (2, 1)


def test_a_wait_that_reads_torn_states_begins_all_the_same(leasing: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 13: it may end early."""
    leasing.put(b"1")
    newest, torn = leasing._channel._newest, iter([True])
    monkeypatch.setattr(leasing._channel, "_newest", lambda raw: None if next(torn, False) else newest(raw))
    leasing._channel.wait_readable(time.monotonic(), time.monotonic() + 20)
    assert leasing.get(timeout=0) == b"1"


# Limits and bells


def test_leased_messages_count_where_both_limits_are_given(name: str) -> None:
    """Clause 23: there are more blocks than messages then."""
    with create(name, leases=True, max_messages=2, max_message_size=64, buffer_size=4096) as queue:
        queue.put_many([b"1", b"2"])
        queue._channel.try_lease_many(1, 2, None)
        assert queue.full()
        assert not queue._channel.try_put(b"3", 0)


SETTLED: dict[str, tuple[Callable[[Any, int], object], list[tuple[int, int]]]] = {
    "release": (lambda channel, token: channel.settle([token], 1, 0.0, b""), [(MESSAGES, 1)]),
    "acknowledge": (lambda channel, token: channel.settle([token], 0, 0.0, b""), [(SPACE, 1)]),
    "reject": (lambda channel, token: channel.settle([token], 3, 0.0, b""), []),
    "release for soon": (lambda channel, token: channel.settle([token], 1, 0.01, b""), [(MESSAGES, ALL)]),
    "release for later": (lambda channel, token: channel.settle([token], 1, 100.0, b""), []),
    "shorten": (lambda channel, token: channel.extend([token], 0.01), [(MESSAGES, ALL)]),
    "extend": (lambda channel, token: channel.extend([token], 100.0), []),
    "put for soon": (lambda channel, _: channel.try_put_delayed(b"x", 0, 0.01), [(MESSAGES, ALL)]),
    "put for later": (lambda channel, _: channel.try_put_delayed(b"x", 0, 100.0), []),
    "put for now": (lambda channel, _: channel.try_put_delayed(b"x", 0, 0.0), [(MESSAGES, 1)]),
    "recall": (lambda channel, token: channel.recall(token >> 32, 1), [(MESSAGES, 1)]),
}


@pytest.mark.parametrize("act", SETTLED)
def test_a_change_wakes_those_whom_it_concerns(leasing: Handle, act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 34, C13: consumers for what is ready or due before they wake by themselves, producers for space."""
    call, right = SETTLED[act]
    leasing.put(b"job")
    leased = leasing._channel.try_lease(1, None)
    rings: list[tuple[int, int]] = []
    monkeypatch.setattr(leasing._channel, "_ring", lambda bell, count: rings.append((bell, count)))
    call(leasing._channel, leased.token)
    assert rings == right


def test_the_last_acknowledgement_of_a_queue_that_is_shut_down_wakes_all(
    leasing: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 33: it is the end."""
    leasing.put(b"job")
    leased = leasing._channel.try_lease(1, None)
    leasing.shutdown()
    rings: list[tuple[int, int]] = []
    monkeypatch.setattr(leasing._channel, "_ring", lambda bell, count: rings.append((bell, count)))
    leasing._channel.settle([leased.token], 0, 0.0, b"")
    assert rings == [(MESSAGES, ALL), (SPACE, ALL)]


# Calls within calls


def lease_and(end: str) -> Callable[[Handle], list[Any]]:
    """Return a call that leases a message and ends the lease; it returns what has left the queue."""

    def call(queue: Handle) -> list[Any]:
        job = queue.lease(timeout=0)
        getattr(job, end)()
        return [job.item] if end == "ack" else []

    return call


def lease_many(queue: Handle) -> list[Any]:
    """Lease and acknowledge what is there."""
    jobs = queue.lease_many(3, block=False)
    queue.ack_many(jobs)
    return [job.item for job in jobs]


def requeue(queue: Handle) -> list[Any]:
    """Make a message a dead letter and ready again."""
    queue.lease(timeout=0).reject()
    queue.dead().requeue()
    return []


VERBS: dict[str, Callable[[Handle], list[Any]]] = {
    "lease": lease_and("ack"),
    "release": lease_and("release"),
    "fail": lease_and("fail"),
    "lease_many": lease_many,
    "get": lambda queue: [queue.get(timeout=0)],
    "get_many": lambda queue: queue.get_many(block=False),
    "requeue": requeue,
}


@pytest.mark.parametrize("inner", ["lease", "get", "release"])
@pytest.mark.parametrize("outer", ["lease", "lease_many", "release", "fail", "get", "get_many", "requeue"])
def test_a_call_in_the_middle_of_another_completes_and_loses_nothing(name: str, outer: str, inner: str) -> None:
    """C12: at any point where a handler or a finaliser can interrupt a step of its own thread."""
    with create(name, leases=True, max_messages=5) as queue:
        for point in count():
            items = [b"1", b"2", b"3"]
            queue.put_many(items)
            taken: list[Any] = []

            def overtake(taken: list[Any] = taken) -> None:
                with suppress(QueueEmpty):
                    taken += VERBS[inner](queue)

            overtaking = Overtaking(point, overtake)
            with suppress(QueueEmpty):
                taken += overtaking.during(lambda: VERBS[outer](queue))  # type: ignore[arg-type]  # they are lists
            with suppress(QueueEmpty):
                taken += queue.get_many(block=False)
            assert Counter(taken) == Counter(items), (outer, inner, point)
            assert queue._channel.counts() == (0, 0, 0, 0)
            if not overtaking.reached:
                break


def test_looks_that_are_overtaken_start_again(leasing: Handle) -> None:
    """C12: they return one state of the queue."""
    leasing.put_many([b"1", b"2"])
    leasing.lease(timeout=0).reject("one")
    job = leasing.lease(timeout=0)
    looks: dict[Callable[[], object], object] = {
        lambda: [each.deliveries for each in leasing._channel.held(2)]: [1],
        lambda: [each.data for each in leasing._channel.peek_dead(0, 2)]: [b"1"],
        lambda: leasing._channel.find_lost([job._token]): [],
        leasing._channel.peek: None,
    }
    for look, right in looks.items():
        for point in count():
            overtaking = Overtaking(point, lambda: leasing.put(b"3") or leasing.get())
            assert overtaking.during(look) == right
            if not overtaking.reached:
                break
    job.ack()


# Memory


def fail(*_: object) -> Any:
    """Simulate a call that runs out of memory."""
    raise MemoryError


@pytest.mark.parametrize("verb", ["lease", "take"])
def test_a_batch_has_as_many_messages_as_memory_allowed(
    leasing: Handle, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C36: the other messages stay ready."""
    leasing.put_many([b"1", b"2", b"3"])
    channel = leasing._channel
    call, left = getattr(channel._order, verb), iter([True, True, False])
    monkeypatch.setattr(channel._order, verb, lambda *given: call(*given) if next(left, True) else fail())
    taken = channel.try_lease_many(1, 3, None) if verb == "lease" else channel.try_get_many(3)
    assert [each[0] for each in taken] == [b"1"]
    assert leasing.get_many() == [b"2", b"3"]


def test_a_batch_without_memory_raises(leasing: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: and leases nothing."""
    leasing.put_many([b"1", b"2"])
    with monkeypatch.context() as scarce:
        scarce.setattr(leasing._channel, "_commit", fail)
        with pytest.raises(MemoryError):
            leasing._channel.try_lease_many(1, 2, None)
    assert leasing.get_many() == [b"1", b"2"]


@pytest.mark.parametrize("crowded", [0, 900])
def test_a_step_succeeds_though_its_moves_are_not_written_yet(
    leasing: Handle, crowded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C36: the next step writes them."""
    monkeypatch.setattr(_staged, "_CROWDED", crowded)
    leasing.put_many([b"1", b"2", b"3"])
    apply, left = leasing._channel._order.apply, iter([False])
    monkeypatch.setattr(leasing._channel._order, "apply", lambda *given: apply(*given) if next(left, True) else fail())
    tokens = [each.token for each in leasing._channel.try_lease_many(1, 3, None)]
    assert leasing._channel.settle(tokens[:2], ipcq.backend.Verdict.REJECT, 0.0, b"no") == []
    assert leasing._channel.counts() == (0, 1, 0, 2)
    assert [each.data for each in leasing._channel.peek_dead(0, 3)] == [b"1", b"2"]
    assert leasing._channel.settle(tokens[2:], ipcq.backend.Verdict.ACK, 0.0, b"") == []


def test_a_close_without_memory_leaves_its_leases_to_the_kernel(
    leasing: Handle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 31: they return as those of a dead process."""
    leasing.put(b"job")
    with attach(name) as other:
        other._channel.try_lease(1, None)
        monkeypatch.setattr(other._channel, "_leave", fail)
    with leasing.lease(timeout=20) as job:
        assert job.deliveries == 2


def test_a_batch_that_fails_after_a_commit_has_what_was_committed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C9, C36: the rest stays ready."""
    monkeypatch.setattr(_staged, "_CROWDED", 2)
    with create(name, leases=True, max_messages=20, priorities=True) as queue:
        queue.put_many([b"%d" % number for number in range(20)])
        lease, left = queue._channel._order.lease, iter([True] * 5)
        monkeypatch.setattr(
            queue._channel._order, "lease", lambda *given: lease(*given) if next(left, False) else fail()
        )
        taken = queue._channel.try_lease_many(1, 20, None)
        assert 0 < len(taken) <= 5
        assert queue._channel.counts()[:2] == (20 - len(taken), len(taken))


def test_a_batch_that_is_overtaken_after_a_commit_goes_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: what was committed is not taken again."""
    monkeypatch.setattr(_staged, "_CROWDED", 2)
    with create(name, leases=True, max_messages=20, priorities=True) as queue:
        queue.put_many([b"%d" % number for number in range(20)])
        go_on, left = queue._channel._go_on, iter([True])

        def overtake(state: LeaseState) -> None:
            if next(left, False):
                queue._channel.peek()
            go_on(state)

        monkeypatch.setattr(queue._channel, "_go_on", overtake)
        taken = queue._channel.try_lease_many(1, 20, None)
        assert [each.data for each in taken] == [b"%d" % number for number in range(20)]


# The lock is held


@pytest.fixture
def held(leasing: Handle, name: str) -> Iterator[None]:
    """Hold the lock of the queue."""
    with attach(name) as other:
        other._channel._lock.acquire()
        yield
        other._channel._lock.release()


def test_calls_that_find_the_lock_held_do_nothing(leasing: Handle, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C15: they return "not now", or raise TimedOutError, and figures are those of the last commit."""
    leasing.put(b"job")
    job = leasing.lease(timeout=0)
    leasing.put(b"other")
    channel = leasing._channel
    monkeypatch.setattr("ipcq_pyshm._channel.LONG_PATIENCE", 0.05)
    with attach(name) as other:
        other._channel._lock.acquire()
        channel._owners.next_look = 0
        assert (channel.try_lease(1, None), channel.try_lease_many(1, 2, None)) == (None, [])
        assert (channel.try_get(), channel.try_get_many(2), channel.try_get_dead()) == (None, [], None)
        assert not channel.try_put_delayed(b"x", 0, 1.0)
        assert channel.counts() == (1, 1, 0, 0)
        with pytest.raises(ipcq.TimedOutError):
            job.ack()
        other._channel._lock.release()
    job.ack()
    assert leasing.get() == b"other"


# Hostile files

USES: dict[str, Callable[[Handle], object]] = {
    **pyshm.USES,
    "lease": lambda queue: [queue._channel.try_lease(9, None), queue._channel.try_lease_many(10, 2, 1000.0)],
    "put later": lambda queue: queue.put(b"x" * 60, timeout=0, delay=0.0001),
    "settle": lambda queue: [queue._channel.settle(tokens(queue), verdict, 0.0, b"reason") for verdict in range(4)],
    "extend": lambda queue: queue._channel.extend(tokens(queue), 0.0001),
    "find_lost": lambda queue: queue._channel.find_lost(tokens(queue)),
    "recall": lambda queue: queue._channel.recall(1, 1 << 62),
    "held": lambda queue: queue._channel.held(5),
    "dead": lambda queue: queue.dead().peek_all(),
    "get dead": lambda queue: queue.dead().get(timeout=0),
    "requeue": lambda queue: queue.dead().requeue(),
    "clear dead": lambda queue: queue.dead().clear(),
}


def tokens(queue: Handle) -> list[int]:
    """Return tokens that may be those of leases."""
    return [serial << 32 | block for serial in (1, 1 << 16) for block in (0, 1, 2, 3, 4, (1 << 32) - 1)]


def prepare(queue: Handle) -> list[ipcq.Lease[Any]]:
    """Make a message of each state."""
    queue.put_many([b"a" * 40, b"b", b"c" * 64])
    queue.lease(timeout=0).reject("bad")
    jobs = queue.lease_many(1)
    queue.put(b"d", delay=1000)
    return jobs


@pytest.mark.parametrize("use", USES)
def test_every_number_of_the_state_may_be_hostile(leasing: Handle, name: str, use: str) -> None:
    """C28: with a valid checksum, each use returns or raises an error of ours, and the file keeps its size."""
    jobs = prepare(leasing)
    whole = read_file(name)
    for number in (*LeaseState.__slots__, "flags", "count", "bytes", "free", "spare", "redo", "puts", "gets"):
        for word in (0, 1, 3, 64, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 62) - 1, 1 << 62):
            with suppress(struct.error):
                forge_state(name, **{number: word})
            with suppress(MessageQueueError):
                USES[use](leasing)
            assert os.path.getsize(_place.path_of(name)) == len(whole)
            write_file(name, 0, whole)
    leasing.ack_many(jobs)


@pytest.mark.parametrize("seed", range(4))
def test_bytes_may_be_hostile_anywhere(leasing: Handle, name: str, seed: int) -> None:
    """C28: only errors of ours, no message above the limit, no file that grows."""
    import random

    chance = random.Random(seed)
    jobs = prepare(leasing)
    whole = read_file(name)
    geometry = leasing._channel._order._geometry
    places = [*range(STATES_AT, STATES_AT + 300), *range(OWNERS_AT, OWNERS_AT + 32)]
    places += range(geometry.links_at, len(whole))
    for _ in range(500):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 6)):
            data[chance.choice(places)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        write_file(name, 0, bytes(data))
        leasing._channel._owners.next_look = 0
        with suppress(MessageQueueError):
            result = USES[chance.choice(list(USES))](leasing)
            assert not isinstance(result, bytes) or len(result) <= 64
        assert os.path.getsize(_place.path_of(name)) == len(whole)
    write_file(name, 0, whole)
    leasing.ack_many(jobs)


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"x" * 40000,
        struct.pack("<QH", 1024, 1) + b"x",
        struct.pack("<QH", 1 << 40, 1) + b"x",
        struct.pack("<QH", 65000, 9),
    ],
    ids=["without a checksum", "too long", "before the data", "after the end", "cut off"],
)
def test_an_invalid_redo_record_is_corrupt(leasing: Handle, name: str, record: bytes) -> None:
    """C28: its size, its checksum and each of its offsets are checked."""
    write_file(name, 4096, record[:32768])
    forge_state(name, redo=(len(record) or 1) << 32 | crc32(record))
    with pytest.raises(CorruptQueue):
        leasing.get(timeout=0)


def test_a_token_for_the_middle_of_a_message_is_lost(name: str) -> None:
    """C4, C28: the block of its message belongs to another one by now."""
    with create(name, leases=True, max_messages=None, max_message_size=2000, buffer_size=4000) as queue:
        queue.put(b"1")
        queue.put(b"2")
        first, second = queue.lease_many(2)
        channel = queue._channel
        channel.settle([first._token], 0, 0.0, b"")
        channel.settle([second._token], 0, 0.0, b"")
        queue.put(b"\xff" * 2000)
        assert channel.find_lost([first._token, second._token]) == [first._token, second._token]
        assert channel.settle([first._token, second._token], 0, 0.0, b"") == [second._token, first._token]
        first._end = second._end = "acknowledged"


def test_the_index_of_a_lease_may_be_hostile(leasing: Handle, name: str) -> None:
    """C28: a wrong one makes the token a lost one, and the return of the lease an error."""
    leasing.put_many([b"1", b"2"])
    jobs = leasing.lease_many(2)
    order = leasing._channel._order
    write_file(name, order._at(jobs[1]._token & 0xFFFFFFFF) + INDEX_AT, struct.pack("<I", 7))
    assert [job.lost for job in jobs] == [False, True]
    with pytest.raises(CorruptQueue):
        leasing._channel.recall(jobs[1]._token >> 32, 1)
    leasing.ack_many(jobs[:1])
    jobs[1]._end = "lost"


def test_the_length_of_a_reason_may_be_hostile(leasing: Handle, name: str) -> None:
    """C28: it is checked."""
    leasing.put(b"1")
    leasing.lease(timeout=0).reject("bad")
    write_file(name, leasing._channel._order._at(0) + REASON_AT, b"\xff")
    with pytest.raises(CorruptQueue):
        leasing.dead().peek()


# Versions


def make_old(name: str) -> None:
    """Rewrite the header of a queue without leases as version 1 wrote it."""
    raw = read_file(name)[:STATES_AT]
    fields = _HEADER.unpack_from(raw, _FRONT.size)
    name_at = _FRONT.size + _HEADER.size
    rest = _OLD_HEADER.pack(*fields[:8]) + raw[name_at : name_at + fields[6]]
    rest = rest.ljust(STATES_AT - _FRONT.size, b"\0")
    write_file(name, 0, _FRONT.pack(b"ipcqpysh", 1, crc32(rest)) + rest)


@pytest.mark.parametrize("priorities", [False, True])
def test_a_queue_of_the_old_version_is_refused_with_the_way_out(name: str, priorities: bool) -> None:
    """C18: the error names the commands that move its messages."""
    create(name, priorities=priorities).close()
    make_old(name)
    with pytest.raises(VersionMismatch, match=r"version 1, but .* version 2: .*ipcq drain.*ipcq rm.*ipcq load"):
        attach(name)


@pytest.mark.parametrize("priorities", [False, True])
def test_drain_takes_the_messages_of_a_queue_of_the_old_version(name: str, tmp_path: Path, priorities: bool) -> None:
    """C18: also a batch that a killed process left half written, as the layout is the same."""
    with create(name, priorities=priorities) as queue:
        queue.put_many([b"1", b"2"])
    make_old(name)
    command = [sys.executable, "-m", "ipcq", "drain", name, str(tmp_path / "old")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "ipcq: 2 messages taken\n")


def test_a_queue_of_the_old_version_is_listed_and_can_be_removed(name: str) -> None:
    """C18: ls shows it, and rm frees its name."""
    create(name).close()
    make_old(name)
    assert name in [found.name for found in ipcq.queues()]
    ipcq.unlink(name, "pyshm")
    assert not ipcq.exists(name, "pyshm")


def test_unknown_features_are_a_version_mismatch(leasing: Handle, name: str) -> None:
    """C18: those of a later ipcq, such as messages in files of their own."""
    raw = bytearray(read_file(name)[:STATES_AT])
    raw[_FRONT.size + 36] |= 2
    write_file(name, 0, _FRONT.pack(b"ipcqpysh", 2, crc32(raw[_FRONT.size :])) + raw[_FRONT.size :])
    with pytest.raises(VersionMismatch, match="features that this ipcq does not know"):
        attach(name)


def test_another_time_namespace_is_a_version_mismatch(
    leasing: Handle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C18: its monotonic clock differs, so holds and delays would end at other times."""
    monkeypatch.setattr(_segment, "time_namespace", lambda: 1)
    with pytest.raises(VersionMismatch, match="time namespace"):
        attach(name)


def test_a_system_without_time_namespaces_has_one_clock(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Linux 5.6."""

    def missing(path: str) -> os.stat_result:
        raise FileNotFoundError(path)

    monkeypatch.setattr(_segment.os, "stat", missing)
    assert _segment.time_namespace() == 0
