"""The order of a pyshm queue with leases: its heaps, its blocks, and what is due when."""

import time

import pytest

import ipcq
from backends import pyshm
from backends.pyshm import Handle, create, linux

pytestmark = linux
name, leasing = pyshm.name, pyshm.leasing


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


def test_leased_messages_count_where_both_limits_are_given(name: str) -> None:
    """Clause 23: there are more blocks than messages then."""
    with create(name, leases=True, max_messages=2, max_message_size=64, buffer_size=4096) as queue:
        queue.put_many([b"1", b"2"])
        queue._channel.try_lease_many(1, 2, None)
        assert queue.full()
        assert not queue._channel.try_put(b"3", 0)
