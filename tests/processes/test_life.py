"""C16: one of many creators wins, and all processes that open a new name meet on one queue.

Crashes meanwhile are in test_storm.py.
"""

import time

import ipcq
from ipcq.testing.processes import Peers
from processes.programs import open_at
from processes.sizes import size

RACERS = 16
RACES = size(30, 1000)


def test_one_of_sixteen_simultaneous_creators_wins(name: str, backend: str, peers: Peers) -> None:
    """C16: of 16 processes that create a name at the same instant one succeeds, and the others raise QueueExists."""
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
    """C16: every process that opens a new name gets the one queue that the first of them created."""
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
