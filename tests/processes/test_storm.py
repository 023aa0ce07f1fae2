"""C2 and C15: SIGKILL at any instant, to producers and consumers, while the others go on."""

import os
import time
from typing import Any

import pytest

import ipcq
from ipcq.testing.processes import Peer, Peers, bound
from processes.needs import usable
from processes.programs import SIZES, SMALL, consume, produce

KILLS = 2000
EACH = 4


#: Kills in each of the storms over one backend's ways; `IPCQ_STORM_KILLS=20000 pytest -m storm ...` makes them longer.
EACH_WAY = int(os.environ.get("IPCQ_STORM_KILLS", "300"))
#: Of these, some take longer to copy than to take a lock again, so that shm copies them without.
LARGE = (*SIZES, 33_000, 60_000)


def survive(
    name: str,
    backend: str,
    queue: "ipcq.Queue[object]",
    kills: int,
    *,
    each: int = EACH,
    sizes: tuple[int, ...] = SIZES,
    batch: int = 1,
) -> None:
    """Kill producers and consumers of a queue at random instants, and judge what arrived."""
    with Peers(patience=120) as peers:
        started = 0

        def start(role: str) -> Peer:
            nonlocal started
            started += 1
            if role == "producer":
                return peers.fork(
                    produce, name, backend, started, peers.ledger(role, started), sizes_of=sizes, batch=batch
                )
            return peers.fork(consume, name, backend, peers.ledger(role, started), batch=batch)

        alive = [(role, start(role)) for role in ("producer", "consumer") for _ in range(each)]
        for _, peer in alive:
            peer.hear()
        began = time.monotonic()
        killed = {"producer": 0, "consumer": 0}
        for _ in range(kills):
            time.sleep(peers.random.uniform(0, 0.002))
            place = peers.random.randrange(len(alive))
            role, victim = alive[place]
            code = victim.kill()
            assert code == -9, f"{victim} had ended by itself: {victim.complaint()}"
            killed[role] += 1
            alive[place] = role, start(role)
        seconds = time.monotonic() - began
        for role, peer in alive:
            if role == "producer":
                assert peer.kill() == -9, peer.complaint()
                killed[role] += 1
        queue.shutdown()
        for role, peer in alive:
            if role == "consumer":
                peer.done()
        verdict = peers.judge()
        at_work = sum(path.stat().st_size > 0 for role in killed for path in peers.ledgers(role))
        print(f"{backend}: {sum(killed.values())} kills in {seconds:.1f} s ({killed}), {at_work} at work; {verdict}")
        print(f"{backend}: rate of any such failure below {bound(kills):.2g} per kill (95 %)")
        assert verdict.sound, verdict
        assert len(verdict.lost) <= killed["consumer"] * batch, verdict
        assert verdict.received > kills, verdict


@pytest.mark.storm
@pytest.mark.timeout(300)  # millions of messages are judged where they are fast
def test_survivors_of_a_storm_of_kills_go_on_and_nothing_comes_twice(
    name: str, backend: str, queue: "ipcq.Queue[object]"
) -> None:
    """C2, C15: by 2,000 kills no message is doubled, torn or reordered, and one is lost per killed consumer at most."""
    survive(name, backend, queue, KILLS)


@pytest.mark.storm
@pytest.mark.timeout(150)
@pytest.mark.parametrize("options", [{"lock": "shmlock"}, {"priorities": True}], ids=lambda options: str(*options))
def test_survivors_of_a_storm_go_on_whatever_the_queue_was_made_with(options: dict[str, object], name: str) -> None:
    """C2, C15: the same under the other lock and the other order of pyshm, by 500 kills."""
    if "lock" in options:
        pytest.importorskip("shmlock", reason="lock='shmlock' cannot be used here without shmlock")
    with ipcq.open(name, usable("pyshm"), exclusive=True, **SMALL, **options) as queue:
        survive(name, "pyshm", queue, 500)
        if "lock" in options:
            assert queue.stats().recoveries


WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "messages of all sizes": ({}, {"sizes": LARGE}),
    "batches": ({}, {"batch": 4}),
    "priorities": ({"priorities": True}, {}),
    "priorities and all sizes": ({"priorities": True}, {"sizes": LARGE}),
    "priorities and batches": ({"priorities": True}, {"batch": 4}),
}


@pytest.mark.storm
@pytest.mark.timeout(150 + EACH_WAY // 10)
@pytest.mark.parametrize("way", WAYS)
def test_survivors_of_a_storm_over_the_ring_go_on(way: str, name: str) -> None:
    """C2, C9, C15: three producers and three consumers of shm; each that is killed loses one message, or one batch."""
    options, manner = WAYS[way]
    limits = {"max_messages": 8, "max_message_size": 70_000}
    with ipcq.open(name, usable("shm"), exclusive=True, **limits, **options) as queue:
        survive(name, "shm", queue, EACH_WAY, each=3, **manner)
