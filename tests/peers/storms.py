"""The storm can fail: pointed at queues that are known not to survive a kill, it says so. Run by ``nox -s peers``."""

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from ipcq.testing.processes import Peers, fresh_name, own_seed
from ipcq.testing.storm import Report, Storm, stress
from ipcq.testing.workers import consume, finish, produce
from peers import adapters

ROUNDS = 10
KILLS = 60

#: Seconds without progress that count as a hang here. None of these queues takes one to recover.
PATIENCE = 3.0


def storms(title: str, opener: Callable[..., adapters.Adapter], named: bool, place: Path) -> list[Report]:
    """Let storms come over new queues, one after the other, and say what came of them."""
    seed = own_seed()
    reports = []
    for number in range(ROUNDS):
        name = fresh_name("ipcq-peer")
        arguments = [str(place / f"shut-down-{number}"), *([name] if named else [])]
        storm = Storm(
            opener=opener,
            arguments=arguments,
            kills=KILLS,
            producers=3,
            consumers=3,
            size=200,
            seed=seed + number,
            patience=PATIENCE,
        )
        reports.append(storm.run())
        left = [each for each in os.listdir("/dev/shm") if name in each]
        for each in left:
            os.unlink(f"/dev/shm/{each}")
    broken = [report for report in reports if not report.ok]
    faults = Counter(re.sub(r"[\d.]+", "N", fault) for report in broken for fault in report.faults)
    hung = sum(bool(report.trouble) for report in reports)
    halts = [int(found[1]) for report in reports if (found := re.search(r"since kill (\d+)", report.trouble))]
    print(f"{title}: {len(broken)} of {len(reports)} storms broke it, {hung} for good, after {sorted(halts)} kills")
    print(f"{title}: {dict(faults)}")
    return reports


PEERS = pytest.mark.parametrize(
    ("opener", "named"),
    [
        (adapters.open_multiprocessing, False),
        (adapters.open_faster_fifo, False),
        (adapters.open_shmlock, True),
        (adapters.open_shmqueue, True),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)


@PEERS
def test_without_a_kill_nothing_hangs_in(opener: Callable[..., adapters.Adapter], named: bool, tmp_path: Path) -> None:
    """It is the kills that break them, and not their adapters: what was put is taken, once, and everybody ends."""
    name = fresh_name("ipcq-peer")
    arguments = [str(tmp_path / "shut-down"), *([name] if named else [])]
    with Peers() as peers:
        consumers = [
            peers.fork(consume, opener, arguments, number, peers.ledger("consumer", number)) for number in range(3)
        ]
        producers = [
            peers.fork(produce, opener, arguments, number, peers.ledger("producer", number), count=300)
            for number in range(3)
        ]
        for producer in producers:
            producer.done()
        peers.fork(finish, opener, arguments).done()
        for consumer in consumers:
            consumer.done()
        verdict = peers.judge()
        print(f"{opener.__name__.removeprefix('open_')}: {verdict}")
    assert verdict.received == 900 and not (verdict.lost or verdict.duplicated or verdict.torn), verdict


@pytest.mark.timeout(0)
@PEERS
def test_the_storm_reports_the_known_failures_of(
    opener: Callable[..., adapters.Adapter], named: bool, tmp_path: Path
) -> None:
    """Each of them comes to a halt, or loses or doubles what no dead consumer had."""
    reports = storms(opener.__name__.removeprefix("open_"), opener, named, tmp_path)
    stuck = [report for report in reports if report.stacks]
    if stuck:
        print(stuck[0].trouble, stuck[0].stacks[:4000], sep="\n")
    assert not all(report.ok for report in reports)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("backend", ["shm", "mqueue", "pyshm", "socketpair"])
def test_the_same_storm_finds_nothing_on(backend: str) -> None:
    """As many kills of as many processes, with the same patience."""
    seed = own_seed()
    options = {"max_messages": adapters.CAPACITY, "max_message_size": 512}
    reports = [
        stress(
            backend, kills=KILLS, producers=3, consumers=3, size=200, seed=seed + number, patience=PATIENCE, **options
        )
        for number in range(ROUNDS)
    ]
    print(f"{backend}: {sum(not report.ok for report in reports)} of {ROUNDS} storms broke it")
    assert all(report.ok for report in reports), [str(report) for report in reports]
