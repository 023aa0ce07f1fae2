"""C13: who is woken and then dies or stops takes nobody's wake-up with it."""

import signal
import time
from collections.abc import Callable

import pytest

import ipcq
from ipcq.testing.processes import Peer, Peers, until
from processes.programs import wait_in
from processes.sizes import size

ROUNDS = size(40, 1500)
SOON = 2.5
"""Ten times the 250 ms of the promise."""

#: Backends that get, or put, under a lock: who is stopped inside, which no other process can help, keeps it until he
#: goes on. Dead ones keep nothing. Of socketpair it is the lock by which putters keep to max_messages.
GETS_LOCKED = ("pyshm", "shm")
PUTS_LOCKED = ("pyshm", "shm", "socketpair")


def _go_on(victim: Peer, blow: str, done: Callable[[], object]) -> bool:
    """Let a stopped victim go on where nobody else can, and tell whether that was so."""
    if blow == "kill" or done():
        return False
    victim.resume()
    until(done)
    return True


@pytest.mark.parametrize("blow", ["kill", "stop"])
def test_an_item_is_taken_by_the_survivor_when_the_woken_consumer_is_gone(
    blow: str, name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C13: two consumers wait, an item comes, one of them is struck at once: the item is not left lying."""
    left = held = 0
    for _ in range(ROUNDS):
        pair = [peers.fork(wait_in, "get", name, backend) for _ in range(2)]
        for peer in pair:
            peer.hear()
            until(peer.asleep)
        victim = peers.random.choice(pair)
        queue.put("item")
        _ = victim.kill() if blow == "kill" else victim.send(signal.SIGSTOP)
        # Either the victim took it, or the survivor has to.
        deadline = time.monotonic() + SOON
        while queue.qsize() and time.monotonic() < deadline:
            time.sleep(0.001)
        held += _go_on(victim, blow, lambda: not queue.qsize())
        left += queue.qsize()
        for peer in pair:
            peer.kill()
    print(f"{backend}: {ROUNDS} rounds, {left} items left lying, {held} held by who was stopped inside")
    assert not left
    assert not held or backend in GETS_LOCKED


@pytest.mark.parametrize("blow", ["kill", "stop"])
def test_space_is_used_by_the_survivor_when_the_woken_producer_is_gone(
    blow: str, name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C13: two producers wait, space comes free, one of them is struck at once: the space is not left unused."""
    left = held = 0
    queue.put_many(["old"] * 4)
    for _ in range(ROUNDS):
        pair = [peers.fork(wait_in, "put", name, backend, "new") for _ in range(2)]
        for peer in pair:
            peer.hear()
            until(peer.asleep)
        victim = peers.random.choice(pair)
        queue.get_nowait()
        _ = victim.kill() if blow == "kill" else victim.send(signal.SIGSTOP)
        deadline = time.monotonic() + SOON
        while not queue.full() and time.monotonic() < deadline:
            time.sleep(0.001)
        held += _go_on(victim, blow, queue.full)
        left += not queue.full()
        for peer in pair:
            peer.kill()
        while not queue.full():
            queue.put_nowait("old")
    print(f"{backend}: {ROUNDS} rounds, space left unused {left} times, {held} held by who was stopped inside")
    assert not left
    assert not held or backend in PUTS_LOCKED
