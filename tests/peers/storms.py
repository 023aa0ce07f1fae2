"""Storms on queues of other libraries: which survive a kill, and which do not. Run by ``nox -s peers``."""

import math
import os
import queue
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from ipcq.testing.processes import Peers, bound, fresh_name, own_seed
from ipcq.testing.storm import Report, Storm, stress
from ipcq.testing.workers import consume, finish, produce
from peers import adapters

#: Number of storms, unless ``--kills`` gives a number of kills.
ROUNDS = 10
#: Kills per storm.
KILLS = 60

#: Seconds without progress that count as a hang. Each of these queues recovers in less than one.
PATIENCE = 3.0


@dataclass(frozen=True)
class Peer:
    """A queue of another library."""

    title: str
    opener: Callable[..., adapters.Adapter]
    named: bool = True
    kept: bool = False
    """Whether the test keeps a handle: the queue vanishes with its last one, or one process has to create it."""
    crowd: int = 3
    """Maximum number of producers, and of consumers."""
    size: int = 200
    """Size of the largest message, in bytes."""

    def arguments(self, directory: Path, number: int) -> list[str]:
        """Return the arguments of its opener for a new queue."""
        return [str(directory / f"shut-down-{number}"), *([fresh_name("ipcq-peer")] if self.named else [])]

    @contextmanager
    def keep(self, arguments: list[str]) -> Iterator[None]:
        """Keep the queue open, if it needs that."""
        with closing(self.opener(*arguments)) if self.kept else nullcontext() as handle:
            if handle is not None:
                handle.keep()
            yield


#: Queues that a few kills break.
BROKEN = [
    Peer("multiprocessing.Queue", adapters.open_multiprocessing, named=False),
    Peer("faster-fifo", adapters.open_faster_fifo, named=False),
    Peer("shmlock", adapters.open_shmlock),
    Peer("shmqueue", adapters.open_shmqueue),
]
#: Queues that survive most storms.
SURVIVING = [
    Peer("cloudtoid-interprocess", adapters.open_cloudtoid, kept=True),
    Peer("subetha-ipc", adapters.open_subetha, kept=True, crowd=1, size=60),
]


def storms(peer: Peer, directory: Path, kills: int | None) -> list[Report]:
    """Run storms on new queues, one after the other, and print and return the results."""
    seed = own_seed()
    reports = []
    for number in range(ROUNDS if kills is None else math.ceil(kills / KILLS)):
        arguments = peer.arguments(directory, number)
        storm = Storm(
            opener=peer.opener,
            arguments=arguments,
            kills=KILLS,
            producers=peer.crowd,
            consumers=peer.crowd,
            size=peer.size,
            seed=seed + number,
            patience=PATIENCE,
        )
        with peer.keep(arguments):
            reports.append(storm.run())
            if peer.kept and reports[-1].trouble:
                print(f"{peer.title}: halted; a new handle says {afterwards(peer, arguments)}")
        for each in os.listdir("/dev/shm"):
            if arguments[-1] in each:
                os.unlink(f"/dev/shm/{each}")
    broken = [report for report in reports if not report.ok]
    faults = Counter(re.sub(r"[\d.]+", "N", fault) for report in broken for fault in report.faults)
    hung = sum(bool(report.trouble) for report in reports)
    halts = [int(found[1]) for report in reports if (found := re.search(r"since kill (\d+)", report.trouble))]
    total = sum(reports[1:], reports[0])
    found = total.verdict
    print(
        f"{peer.title}: {len(broken)} of {len(reports)} storms broke it, {hung} for good, after {sorted(halts)} kills"
    )
    print(f"{peer.title}: {dict(faults)}")
    print(
        f"{peer.title}: {total.kills} kills, {total.inside} seen inside; {found.accepted} accepted, {len(found.lost)} "
        f"lost of at most {total.losable}, {len(found.duplicated)} doubled, {len(found.torn)} torn, "
        f"{len(found.reordered)} reordered, {len(found.invented)} invented, {found.missed} missed; longest stall "
        f"{found.stall:.2f} s; bound {bound(total.kills):.4f}"
    )
    return reports


def afterwards(peer: Peer, arguments: list[str]) -> list[str]:
    """Get and put after all processes of a storm are gone, and return the outcomes."""
    told = []
    with closing(peer.opener(*arguments)) as handle:
        for call in (lambda: handle.take(PATIENCE), lambda: handle.put(b"whole", PATIENCE)):
            try:
                call()
            except (queue.Empty, queue.Full) as error:
                told.append(type(error).__name__)
            else:
                told.append("done")
    return told


@pytest.mark.parametrize("peer", [*BROKEN, *SURVIVING], ids=lambda peer: peer.title)
def test_without_a_kill_nothing_hangs_in(peer: Peer, tmp_path: Path) -> None:
    """The kills break these queues, not the adapters: each message is taken once, and all processes end."""
    arguments = peer.arguments(tmp_path, 0)
    with peer.keep(arguments), Peers() as peers:
        consumers = [
            peers.fork(consume, peer.opener, arguments, number, peers.ledger("consumer", number))
            for number in range(peer.crowd)
        ]
        producers = [
            peers.fork(
                produce,
                peer.opener,
                arguments,
                number,
                peers.ledger("producer", number),
                count=900 // peer.crowd,
                size=peer.size,
            )
            for number in range(peer.crowd)
        ]
        for producer in producers:
            producer.done()
        peers.fork(finish, peer.opener, arguments).done()
        for consumer in consumers:
            consumer.done()
        verdict = peers.judge()
        print(f"{peer.title}: {verdict}")
    assert verdict.received == 900 and not (verdict.lost or verdict.duplicated or verdict.torn), verdict


@pytest.mark.timeout(0)
@pytest.mark.parametrize("peer", BROKEN, ids=lambda peer: peer.title)
def test_the_storm_reports_the_known_failures_of(peer: Peer, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """Each hangs, or loses or duplicates messages that no killed consumer had."""
    reports = storms(peer, tmp_path, pytestconfig.getoption("--kills"))
    stuck = [report for report in reports if report.stacks]
    if stuck:
        print(stuck[0].trouble, stuck[0].stacks[:4000], sep="\n")
    assert not all(report.ok for report in reports)


@pytest.mark.timeout(0)
@pytest.mark.parametrize("peer", SURVIVING, ids=lambda peer: peer.title)
def test_messages_that_survive_a_storm_are_whole_and_not_duplicated_on(
    peer: Peer, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Hangs and gets that miss a message are only counted: they are too rare to be asserted either way."""
    reports = storms(peer, tmp_path, pytestconfig.getoption("--kills"))
    wrong = re.compile("duplicated|invented|torn|reordered|lost")
    assert not [fault for report in reports for fault in report.faults if wrong.search(fault)]


@pytest.mark.timeout(0)
@pytest.mark.parametrize("backend", ["shm", "mqueue", "pyshm", "socketpair"])
def test_the_same_storm_finds_no_fault_on(backend: str) -> None:
    """It kills as many processes as often, with the same limit for a hang."""
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
