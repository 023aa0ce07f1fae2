"""Batches of a pyshm queue with leases that take several commits."""

import time

import pytest

import ipcq
from backends import pyshm
from backends.pyshm import Handle, attach, create, forge_state, linux, read_state
from ipcq_pyshm import _lease_channel, _staged
from ipcq_pyshm._layout import LeaseState

pytestmark = linux
name, leasing = pyshm.name, pyshm.leasing


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
