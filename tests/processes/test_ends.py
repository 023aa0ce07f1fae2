"""C14: shutdown and unlink reach waiters in other processes."""

import time

import pytest

import ipcq
from ipcq.testing.processes import Peers, until
from processes.programs import SMALL, wait_in
from processes.sizes import size

ROUNDS = size(8, 250)
SOON_SECONDS = 10.0
"""Seconds: ten times the second of the promise."""


@pytest.mark.parametrize("verb", ["get", "put"])
def test_shutdown_wakes_waiters_in_other_processes(verb: str, name: str, backend: str, peers: Peers) -> None:
    """C14: after `shutdown`, waiting gets and puts of other processes raise QueueShutDown within a second."""
    latest = 0.0
    for _ in range(ROUNDS):
        with ipcq.open(name, backend, exclusive=True, **SMALL) as queue:
            if verb == "put":
                queue.put_many([0, 1, 2, 3])
            waiters = [peers.fork(wait_in, verb, name, backend) for _ in range(2)]
            for waiter in waiters:
                waiter.hear()
                until(waiter.asleep)
            began = time.monotonic()
            queue.shutdown()
            for waiter in waiters:
                kind, what, instant = waiter.hear(SOON_SECONDS)
                assert (kind, what) == ("raised", "QueueShutDown")
                latest = max(latest, instant - began)
                waiter.done()
            queue.unlink()
    print(f"{backend} {verb}: latest waiter after {latest * 1000:.0f} ms")
    assert latest <= SOON_SECONDS


@pytest.mark.parametrize("verb", ["get", "put"])
def test_unlink_wakes_waiters_in_other_processes_and_leaves_a_new_queue_alone(
    verb: str, name: str, backend: str, peers: Peers
) -> None:
    """C14: waiters of an unlinked queue raise QueueGone though the name is in use again; the new queue is untouched."""
    latest = 0.0
    rounds = quick = 0
    # On a busy machine a round may be too slow to show anything.
    while rounds < ROUNDS or not quick:
        rounds += 1
        queue = ipcq.open(name, backend, exclusive=True, **SMALL)
        if verb == "put":
            queue.put_many([0, 1, 2, 3])
        waiters = [peers.fork(wait_in, verb, name, backend, "stray") for _ in range(2)]
        for waiter in waiters:
            waiter.hear()
            until(waiter.asleep)
        began = time.monotonic()
        ipcq.unlink(name, backend)
        with ipcq.open(name, backend, exclusive=True, **SMALL) as new:
            quick += time.monotonic() - began < 0.05  # before the waiters poll
            new.put("only this")
            for waiter in waiters:
                kind, what, instant = waiter.hear(SOON_SECONDS)
                assert (kind, what) == ("raised", "QueueGone")
                latest = max(latest, instant - began)
                waiter.done()
            assert new.get_many() == ["only this"]
            new.unlink()
        queue.close()
    print(f"{backend} {verb}: latest waiter after {latest * 1000:.0f} ms")
    assert latest <= SOON_SECONDS


def test_other_processes_can_drain_a_queue_that_was_shut_down(
    name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C14: other processes take the remaining messages after `shutdown`, and then raise QueueShutDown."""
    queue.put_many([0, 1, 2, 3])
    queue.shutdown()
    drained = [peers.fork(wait_in, "get", name, backend) for _ in range(5)]
    outcomes = []
    for peer in drained:
        peer.hear()
        _, what, _ = peer.hear(SOON_SECONDS)
        outcomes.append(what)
    assert sorted(map(str, outcomes)) == ["0", "1", "2", "3", "QueueShutDown"]
