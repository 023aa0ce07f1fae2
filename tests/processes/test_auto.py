"""DESIGN 5: processes that can use different backends never end up on two queues of one name."""

import random
import time
import warnings
from collections.abc import Sequence

import pytest

import ipcq
from ipcq._opening import registry
from ipcq.backend import Availability
from ipcq.testing.processes import Peers, hear, say
from processes.programs import SMALL
from processes.sizes import size

RACERS = 50
ROUNDS = size(50, 1000)

#: Seconds between announcing the start and the start: enough for all racers to have heard.
LEAD_SECONDS = 0.02


def can_use_only(names: list[str]) -> None:
    """Make the other backends unusable in this process, though still visible."""
    for plugin in registry.plugins():
        if plugin.backend is not None and plugin.name not in names:
            plugin.backend.probe = lambda: Availability.no("it is hidden from this process")


def race(able: list[str]) -> None:
    """Open and unlink the names that the test gives, at the instants that it gives, and report the results."""
    can_use_only(able)
    # Racers that can use only backends without persistence get this warning.
    warnings.simplefilter("ignore", ipcq.PersistenceWarning)
    queue: ipcq.Queue[object] | None = None
    say("ready")
    while order := hear():
        verb, name, instant = order
        if queue is not None:
            queue.close()
            queue = None
        time.sleep(max(0.0, instant - time.monotonic()))
        try:
            if verb == "open":
                queue = ipcq.open(name, **SMALL)
                say(["opened", queue.backend, ""])
            elif verb == "unlink":
                ipcq.unlink(name)
                say(["unlinked", None, ""])
            else:
                say(["idle", None, ""])
        except ipcq.MessageQueueError as error:
            say([type(error).__name__, error.backend, str(error)])


def subsets(names: Sequence[str], dice: random.Random) -> list[list[str]]:
    """Return the backends that each racer can use: first each backend alone, then any."""
    alone = [[name] for name in names]
    return alone + [dice.sample(names, dice.randint(1, len(names))) for _ in range(RACERS - len(alone))]


@pytest.mark.storm
@pytest.mark.timeout(300)
def test_processes_that_can_use_different_backends_never_split_a_name(name: str) -> None:
    """DESIGN 5, rules 1 to 3: in 50 rounds of 50 racers no name is on two backends, and every refusal is explained."""
    names = [info.name for info in ipcq.backends() if info.usable and info.rank is not None]
    met = dict.fromkeys(names, 0)
    refused = 0
    with Peers(patience=280) as peers:
        racers = [peers.fork(race, able) for able in subsets(names, peers.random)]

        def everyone(verbs: Sequence[str], name: str) -> list[list[str]]:
            start = time.monotonic() + LEAD_SECONDS
            for racer, verb in zip(racers, verbs, strict=True):
                racer.say([verb, name, start])
            return [racer.hear() for racer in racers]

        assert [racer.hear() for racer in racers] == ["ready"] * RACERS
        for number in range(ROUNDS):
            contested = f"{name}-{number}"
            for verbs in (["open"] * RACERS, peers.random.choices(["open", "unlink"], k=RACERS)):
                answers = everyone(verbs, contested)
                there = [each for each in names if ipcq.exists(contested, each)]
                assert len(there) <= 1, (contested, there, answers)
                refused += check_answers(answers, verbs)
                if "unlink" not in verbs:
                    assert {backend for answer, backend, _ in answers if answer == "opened"} == set(there)
                    met[there[0]] += 1
            if there:
                ipcq.unlink(contested, there[0])
            everyone(["idle"] * RACERS, contested)
        for racer in racers:
            racer.say(None)
            racer.done()
    print(f"{ROUNDS} rounds of {RACERS} racers met on {met}; {refused} could not use what existed and were told so")
    assert sum(met.values()) == ROUNDS


def check_answers(answers: Sequence[Sequence[str]], verbs: Sequence[str]) -> int:
    """Check that each answer is one that its call may get, and count the racers that could not use the queue."""
    refused = 0
    for (answer, _, text), verb in zip(answers, verbs, strict=True):
        if answer == "BackendUnavailable":
            assert verb == "open" and "exists on this backend" in text and "hidden" in text, text
            refused += 1
        else:
            assert answer in {"open": ("opened",), "unlink": ("unlinked", "QueueNotFound")}[verb], (answer, text)
    return refused
