"""C11: a stopped process delays no other beyond its timeout."""

import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

import ipcq
from ipcq._opening.name_lock import name_lock
from ipcq.testing.oracle import Ledger, Tag
from ipcq.testing.processes import Peer, Peers, hear, say
from ipcq.testing.workers import attached, consume, produce
from processes.programs import SMALL, hammer
from processes.sizes import size
from processes.stopping import stop_inside

ROUNDS = size(150, 3000)
INSIDE = size(10, 200)
TIMEOUT_SECONDS = 0.05
LATE_SECONDS = 1.0
"""Seconds: ten times the 100 ms of the promise."""


def hold_lock(name: str) -> None:
    """Hold a name lock until told to stop."""
    with name_lock(name, float("inf")):
        say("inside")
        hear()


@pytest.mark.storm
def test_calls_end_on_schedule_while_peers_are_stopped_at_random_instants(
    name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C11: beside stopped producers and consumers every call ends in time, and after SIGCONT no message is missing."""
    at = [name, backend]
    patience = {"patience": 100.0}  # their calls, which last as long as they are stopped, are not under test
    others: list[Peer] = [
        *(peers.fork(produce, attached, at, each, peers.ledger("producer", each), **patience) for each in range(2)),
        *(peers.fork(consume, attached, at, each, peers.ledger("consumer", each), **patience) for each in range(2)),
    ]
    for peer in others:
        peer.hear()
    gave, took = Ledger(peers.ledger("producer", 9)), Ledger(peers.ledger("consumer", 9))
    latest = 0.0
    for number in range(ROUNDS):
        time.sleep(peers.random.uniform(0, 0.002))
        with ExitStack() as stopped:
            for peer in peers.random.sample(others, peers.random.randint(1, len(others))):
                peer.stop()
                stopped.callback(peer.resume)
            tag = Tag(9, number)
            gave.intend(tag)
            began = time.monotonic()
            try:
                queue.put(tag.message(), timeout=TIMEOUT_SECONDS)
                gave.accepted(tag)
            except ipcq.QueueFull as error:
                gave.refused(error, tag)
            latest = max(latest, time.monotonic() - began - TIMEOUT_SECONDS)
            since, began = time.monotonic_ns(), time.monotonic()
            try:
                took.took(since, Tag.of(queue.get(timeout=TIMEOUT_SECONDS)))
            except ipcq.QueueEmpty:
                pass
            latest = max(latest, time.monotonic() - began - TIMEOUT_SECONDS)
    gave.close()
    took.close()
    for peer in others[:2]:
        peer.kill()
    queue.shutdown()
    for peer in others[2:]:
        peer.done()
    verdict = peers.judge()
    print(f"{backend}: {ROUNDS} rounds, latest call {latest * 1000:.1f} ms after its timeout; {verdict}")
    assert latest <= LATE_SECONDS
    assert verdict.sound and not verdict.lost, verdict


def test_calls_end_on_schedule_while_a_peer_is_stopped_inside(lockable: str, name: str, peers: Peers) -> None:
    """C11: while a stopped process holds the queue's lock, every call ends in time."""
    latest, refused = 0.0, 0
    calls: list[Callable[[ipcq.Queue[object]], object]] = [
        lambda queue: queue.put("beside", timeout=TIMEOUT_SECONDS),
        lambda queue: queue.get(timeout=TIMEOUT_SECONDS),
        lambda queue: queue.put_many(["beside", "too"], timeout=TIMEOUT_SECONDS),
        lambda queue: queue.get_many(timeout=TIMEOUT_SECONDS),
    ]
    with ipcq.open(name, lockable, exclusive=True, **SMALL) as queue:
        holder = peers.fork(hammer, name, lockable)
        holder.hear()
        for _ in range(INSIDE):
            stop_inside(holder, peers.random)
            for call in calls:
                began = time.monotonic()
                try:
                    call(queue)
                except ipcq.TimedOutError:
                    refused += 1
                latest = max(latest, time.monotonic() - began - TIMEOUT_SECONDS)
            holder.resume()
        holder.kill()
        queue.clear()
        queue.put("whole", timeout=LATE_SECONDS)
        assert queue.get(timeout=LATE_SECONDS) == "whole"
    print(
        f"{lockable}: {INSIDE} stops inside, {refused} calls refused, latest {latest * 1000:.1f} ms after its timeout"
    )
    assert latest <= LATE_SECONDS
    assert refused


def test_a_stopped_holder_of_the_name_lock_delays_an_open_until_its_open_timeout(
    name: str, backend: str, peers: Peers
) -> None:
    """C11: `open` waits for a stopped holder of the lock until `open_timeout`, and works once the holder is dead."""
    holder = peers.fork(hold_lock, name)
    holder.hear()
    holder.stop()
    began = time.monotonic()
    with pytest.raises(ipcq.TimedOutError):
        ipcq.open(name, backend, open_timeout=0.3, **SMALL)
    assert 0.3 <= time.monotonic() - began <= 0.3 + LATE_SECONDS
    holder.kill()
    ipcq.open(name, backend, open_timeout=0.3, **SMALL).close()


def test_attaching_does_not_wait_for_the_name_lock(name: str, backend: str, queue: object, peers: Peers) -> None:
    """C11: an existing queue can be attached to while a stopped process holds the name lock."""
    holder = peers.fork(hold_lock, name)
    holder.hear()
    holder.stop()
    ipcq.open(name, backend, open_timeout=0.0, max_messages=4).close()
