"""One sample: starts the workers in separate processes, collects their reports, and always ends them."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self

from ipcq._bench.contestant import Declined, Failed, Plan, Sample
from ipcq._bench.worker import Job, Report, main
from ipcq._bench.workload import Kind, Workload
from ipcq.testing.processes import Hang, Peer, PeerDied, Peers, listen
from ipcq.testing.tally import judge_tallies

#: Seconds that a worker may be silent, in addition to the duration of its work.
PATIENCE = 20.0


def run(plan: Plan, workload: Workload, seconds: float) -> Sample:
    """Run a workload once.

    Args:
        plan: The contestant.
        workload: The workload.
        seconds: Duration of the sample, unless the workload has a fixed one.

    Raises:
        Declined: The contestant does not support the workload.
        Failed: A worker died, stalled or found messages missing.
    """
    seconds = workload.lasts or seconds
    with ExitStack() as stack:
        try:
            addresses = tuple(stack.enter_context(plan.queues(workload)))
        except (Declined, Failed):
            raise
        except Exception as error:
            # A peer that is installed but broken must not prevent measuring the others.
            raise Failed(f"it cannot create its queues: {type(error).__name__}: {error}") from error
        crew = stack.enter_context(Crew(plan, workload, addresses, seconds))
        crew.go()
        return round_trip(crew) if workload.kind is Kind.TRIP else one_way(workload, crew)


def round_trip(crew: "Crew") -> Sample:
    """Collect the reports of both sides of a ping-pong."""
    asked, served = crew.hear([*crew.producers, *crew.consumers])
    crew.dismiss([*crew.producers, *crew.consumers])
    median, tail = asked["values"]
    count = asked["received"]
    return Sample(median, count, (asked["cpu"] + served["cpu"]) / count * 1e6, tail)


def one_way(workload: Workload, crew: "Crew") -> Sample:
    """Collect the reports of the producers, make them put end markers, and collect those of the consumers."""
    puts = crew.hear(crew.producers)
    crew.patient(0)
    marks = [1] * len(puts)
    if workload.consumers > 1:
        # The producer that puts the end markers must be the last one to finish.
        marks = [workload.consumers, *[0] * (len(puts) - 1)]
    for worker, count in reversed(list(zip(crew.producers, marks, strict=True))):
        crew.say(worker, count)
        if not count:
            crew.dismiss([worker])
    gets = crew.hear(crew.consumers)
    crew.dismiss([*crew.consumers, *(worker for worker, count in zip(crew.producers, marks, strict=True) if count)])
    sent, received = [report["sent"] for report in puts], sum(report["received"] for report in gets)
    if faults := judge_tallies(sent, [report["seen"] for report in gets]).faults:
        raise Failed("; ".join(faults))
    if workload.kind is not Kind.STREAM:
        median, tail = gets[0]["values"]
        return Sample(median, received, None, tail)
    counted = received - sum(report["first"] for report in gets)
    if counted <= 0:
        raise Failed(f"{received} messages are too few to measure: use longer samples")
    lasted = max(report["end"] for report in gets) - min(report["begin"] for report in gets if report["begin"])
    return Sample(counted / lasted, received, sum(report["cpu"] for report in [*puts, *gets]) / received * 1e6)


class Crew:
    """The workers of one sample. A context manager that starts them, and ends them on exit."""

    def __init__(self, plan: Plan, workload: Workload, addresses: tuple[Any, ...], seconds: float) -> None:
        self.consumers: list[Peer] = []
        self.producers: list[Peer] = []
        self._jobs = [
            Job(plan, workload, addresses, producer, seconds)
            for producer in (*[None] * workload.consumers, *range(workload.producers))
        ]
        self._seconds = seconds
        self._until = 0.0
        self._roles: dict[Peer, str] = {}
        self._heard: dict[Peer, Report] = {}
        self._dismissed: set[Peer] = set()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # The crew has its own timeout, because it listens to all workers at once.
            peers = stack.enter_context(Peers(patience=None, seed=0))
            for job in self._jobs:
                peer = peers.inherit(main, job)
                self._roles[peer] = job.role
                (self.consumers if job.producer is None else self.producers).append(peer)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def patient(self, seconds: float) -> None:
        """Restart the timeout, with so many seconds more than `PATIENCE`."""
        self._until = time.monotonic() + PATIENCE + seconds

    def go(self) -> None:
        """Start the work once all workers are ready."""
        self.patient(0)
        self.hear([*self._roles])
        for worker in self._roles:
            self.say(worker, "go")
        self.patient(self._seconds)

    def say(self, worker: Peer, word: object) -> None:
        """Send something to a worker."""
        try:
            worker.say(word)
        except PeerDied:
            pass  # detected by the next `listen`

    def hear(self, speakers: Sequence[Peer]) -> list[Report]:
        """Wait for a report from each of these workers, and return the reports.

        Raises:
            Failed: A worker died or failed, or one of these was silent for too long.
        """
        while silent := [each for each in speakers if each not in self._heard]:
            # Listen to the other workers as well: if one dies, these may wait for it.
            unheard = [each for each in self._roles if each not in self._dismissed | self._heard.keys()]
            try:
                said = listen(unheard, self._until - time.monotonic())
            except PeerDied as death:
                raise self._failed(death.peer) from death
            if not said:
                silence = f"no report for {PATIENCE + self._seconds:.0f} s"
                raise Failed(f"the {self._roles[silent[0]]} stalled: {silence}")
            for worker, report in said:
                if "error" in report:
                    raise Failed(f"the {self._roles[worker]} failed: {report['error']}")
                self._heard[worker] = report
        return [self._heard.pop(each) for each in speakers]

    def dismiss(self, workers: Sequence[Peer]) -> None:
        """Tell workers that have reported to exit, and wait for that.

        Raises:
            Failed: One does not exit, or exits with an error.
        """
        self._dismissed.update(workers)
        for worker in workers:
            self.say(worker, "bye")
        for worker in workers:
            try:
                worker.done(max(0.0, self._until - time.monotonic()))
            except PeerDied:
                raise self._failed(worker) from None
            except Hang:
                raise Failed(f"the {self._roles[worker]} does not exit") from None

    def _failed(self, worker: Peer) -> Failed:
        return Failed(f"the {self._roles[worker]} {worker.death()}")
