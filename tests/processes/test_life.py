"""C16: a crash in create, attach, unlink or close leaves the name usable, and one of many creators wins."""

import random
import time
from contextlib import suppress

import pytest

import ipcq
from ipcq.testing.processes import Peers, bound, say
from processes.programs import SMALL, open_at

KILLS = 200
RACERS = 16
RACES = 60
SOON = 10.0
"""Ten times the second of the clause."""

#: What a name that comes and goes may give, and nothing else.
EXPECTED = (ipcq.QueueNotFound, ipcq.QueueExists, ipcq.QueueGone, ipcq.QueueFull, ipcq.QueueEmpty)


def live(name: str, backend: str, seed: int) -> None:
    """Create, attach, use, close and unlink one name at random, for ever."""
    dice = random.Random(seed)
    say("ready")
    while True:
        with suppress(*EXPECTED):
            if dice.random() < 0.3:
                ipcq.unlink(name, backend)
            with ipcq.open(name, backend, exclusive=dice.random() < 0.3, **SMALL) as queue:
                if dice.random() < 0.5:
                    queue.put_nowait("item")
                if dice.random() < 0.3:
                    queue.unlink()


def attach(name: str, backend: str) -> None:
    """Attach to one name again and again, for ever."""
    say("ready")
    while True:
        with suppress(*EXPECTED), ipcq.open(name, backend, create=False, max_messages=4) as queue:
            queue.get_nowait()


@pytest.mark.storm
def test_processes_killed_while_they_open_close_and_unlink_leave_the_name_usable(
    name: str, backend: str, peers: Peers
) -> None:
    """C16: 200 kills at random instants of create, attach, unlink and close hurt neither the others nor the name."""
    others = [peers.fork(attach, name, backend) for _ in range(3)]
    alive = [peers.fork(live, name, backend, number) for number in range(4)]
    for peer in (*others, *alive):
        peer.hear()
    slowest = 0.0
    for number in range(KILLS):
        time.sleep(peers.random.uniform(0, 0.004))
        place = peers.random.randrange(len(alive))
        victim = alive[place]
        assert victim.kill() == -9, victim.complaint()
        began = time.monotonic()
        ipcq.open(name, backend, open_timeout=SOON, max_messages=4, max_message_size=512).close()
        slowest = max(slowest, time.monotonic() - began)
        alive[place] = peers.fork(live, name, backend, 1000 + number)
        alive[place].hear()
    for peer in (*others, *alive):
        assert peer.kill() == -9, peer.complaint()
    with ipcq.open(name, backend, **SMALL) as queue:
        queue.clear()
        queue.put("whole")
        assert queue.get() == "whole"
    print(
        f"{backend}: {KILLS} kills, slowest open {slowest * 1000:.1f} ms; failure rate below {bound(KILLS):.2g} (95 %)"
    )


def test_one_of_sixteen_simultaneous_creators_wins(name: str, backend: str, peers: Peers) -> None:
    """C16: of 16 processes that create a name at the same instant one succeeds, and the others are told QueueExists."""
    racers = [peers.fork(open_at, backend, True) for _ in range(RACERS)]
    for number in range(RACES):
        start = time.monotonic() + 0.01
        for racer in racers:
            racer.say([f"{name}-{number}", start])
        answers = [racer.hear() for racer in racers]
        ipcq.unlink(f"{name}-{number}", backend)
        assert sorted(answers) == ["QueueExists"] * (RACERS - 1) + ["opened"]
        winner = racers[answers.index("opened")]
        winner.say("close")
        winner.hear()


def test_sixteen_processes_that_open_a_new_name_at_once_meet_on_one_queue(
    name: str, backend: str, peers: Peers
) -> None:
    """C16: every process that opens a new name gets the one queue that the first of them made."""
    racers = [peers.fork(open_at, backend, False) for _ in range(RACERS)]
    for number in range(RACES):
        start = time.monotonic() + 0.01
        for racer in racers:
            racer.say([f"{name}-{number}", start])
        answers = [racer.hear() for racer in racers]
        ipcq.unlink(f"{name}-{number}", backend)
        assert answers == ["opened"] * RACERS
        for racer in racers:
            racer.say("close")
            racer.hear()
