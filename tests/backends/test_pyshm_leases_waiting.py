"""Waiting for a pyshm queue with leases: who is woken, and calls that find its lock held."""

import time
from collections.abc import Callable
from typing import Any

import pytest

import ipcq
from backends import pyshm
from backends.pyshm import Handle, attach, linux
from ipcq.errors import QueueEmpty
from ipcq_pyshm._bells import ALL, MESSAGES, SPACE

pytestmark = linux
name, leasing = pyshm.name, pyshm.leasing


def test_waits_are_counted(leasing: Handle) -> None:
    """C25: as on a queue without leases."""
    with pytest.raises(QueueEmpty):
        leasing.lease(timeout=0.2)
    leasing._channel._waits = 1
    assert (leasing.stats().waits, leasing.stats().timeouts) == (2, 1)


def test_a_wait_that_reads_torn_states_begins_all_the_same(leasing: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 13: it may end early."""
    leasing.put(b"1")
    newest, torn = leasing._channel._newest, iter([True])
    monkeypatch.setattr(leasing._channel, "_newest", lambda raw: None if next(torn, False) else newest(raw))
    leasing._channel.wait_readable(time.monotonic(), time.monotonic() + 20)
    assert leasing.get(timeout=0) == b"1"


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
