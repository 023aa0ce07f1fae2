"""One sample: the workers are started apart, heard, and ended whatever happens."""

import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any, Self

from ipcq._bench.contestant import Declined, Failed, Plan, Sample
from ipcq._bench.payloads import Wrong
from ipcq._bench.worker import Job, Report, main
from ipcq._bench.workload import Kind, Workload

SPAWN = multiprocessing.get_context("spawn")

#: Seconds that a worker may be silent beyond the time that its work takes.
PATIENCE = 20.0


def run(plan: Plan, workload: Workload, seconds: float) -> Sample:
    """Let a contestant do a workload once.

    Args:
        plan: The contestant.
        workload: What it has to do.
        seconds: How long producers put, or messages go to and fro, where the workload leaves the choice.

    Raises:
        Declined: The contestant cannot do this.
        Failed: A worker died, stalled or found that messages are missing.
    """
    seconds = workload.lasts or seconds
    with ExitStack() as stack:
        try:
            addresses = tuple(stack.enter_context(plan.queues(workload)))
        except (Declined, Failed):
            raise
        except Exception as error:
            # A peer that is installed and does not work here is no reason for not measuring the others.
            raise Failed(f"it cannot make its queues: {type(error).__name__}: {error}") from error
        crew = stack.enter_context(Crew(plan, workload, addresses, seconds))
        crew.go()
        return round_trip(crew) if workload.kind is Kind.TRIP else one_way(workload, plan, crew)


def round_trip(crew: "Crew") -> Sample:
    """Hear both sides of a ping-pong."""
    asked, served = crew.hear([*crew.producers, *crew.consumers])
    crew.dismiss([*crew.producers, *crew.consumers])
    median, tail = asked["values"]
    count = asked["received"]
    return Sample(median, count, (asked["cpu"] + served["cpu"]) / count * 1e6, tail)


def one_way(workload: Workload, plan: Plan, crew: "Crew") -> Sample:
    """Hear the producers, let them say that this was all, and hear the consumers."""
    puts = crew.hear(crew.producers)
    crew.patient(0)
    marks = [1] * len(puts)
    if workload.consumers > 1:
        # All others have to be done before the one who says so.
        marks = [workload.consumers, *[0] * (len(puts) - 1)]
    for worker, count in reversed(list(zip(crew.producers, marks, strict=True))):
        worker.say(count)
        if not count:
            crew.dismiss([worker])
    gets = crew.hear(crew.consumers)
    crew.dismiss([*crew.consumers, *(worker for worker, count in zip(crew.producers, marks, strict=True) if count)])
    sent, received = [report["sent"] for report in puts], sum(report["received"] for report in gets)
    if workload.kind is not Kind.STREAM:
        if [received] != sent:
            raise Failed(f"{sent[0]} messages were put, and {received} came")
        median, tail = gets[0]["values"]
        return Sample(median, received, None, tail)
    try:
        plan.payloads(workload, 0).judge(sent, [report["seen"] for report in gets])
    except Wrong as wrong:
        raise Failed(str(wrong)) from None
    counted = received - sum(report["first"] for report in gets)
    if counted <= 0:
        raise Failed(f"{received} messages are too few to measure: give it more seconds")
    lasted = max(report["end"] for report in gets) - min(report["begin"] for report in gets if report["begin"])
    return Sample(counted / lasted, received, sum(report["cpu"] for report in [*puts, *gets]) / received * 1e6)


class Worker:
    """A worker as it is seen from outside."""

    def __init__(self, job: Job) -> None:
        self.role = job.role
        self.connection, theirs = SPAWN.Pipe()
        with theirs:
            # A daemon in multiprocessing's sense: it is ended at the latest when this process ends.
            self.process: SpawnProcess = SPAWN.Process(target=main, args=(job, theirs), daemon=True)
            try:
                with signals_put_off():
                    self.process.start()
            except BaseException:
                self.connection.close()
                raise

    def take(self) -> Report:
        """Take what it said.

        Raises:
            Failed: It ended instead, or says that it failed.
        """
        try:
            # What it said before it died counts.
            report: Report | None = self.connection.recv() if self.connection.poll() else None
        except (EOFError, ConnectionResetError):
            report = None
        if report is None:
            self.process.join()
            raise Failed(f"the {self.role} {self._death()}")
        if "error" in report:
            raise Failed(f"the {self.role} failed: {report['error']}")
        return report

    def say(self, word: object) -> None:
        """Say something to it."""
        try:
            self.connection.send(word)
        except BrokenPipeError:
            pass  # it died, which is noticed where it is listened to

    def part(self, until: float) -> None:
        """Wait for its end.

        Raises:
            Failed: It does not end, or ends badly.
        """
        self.process.join(max(0.0, until - time.monotonic()))
        if self.process.exitcode is None:
            raise Failed(f"the {self.role} does not end")
        if self.process.exitcode:
            raise Failed(f"the {self.role} {self._death()}")

    def end(self) -> None:
        """End it, if it has not ended."""
        self.connection.close()
        self.process.kill()
        self.process.join()
        self.process.close()

    def _death(self) -> str:
        code = self.process.exitcode or 0
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


@contextmanager
def signals_put_off() -> Iterator[None]:
    """Put off what signals do while a worker is started, or it would meet an end in the middle of its beginning.

    The worker inherits that Ctrl-C is blocked: it stays with whoever starts the worker, and ends it.
    """
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    # The first worker would start it, and that lets signals in again.
    resource_tracker.ensure_running()
    came: list[int] = []
    # Not by a mask alone: another thread of this process may be the one that takes a signal.
    mine = [each for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if callable(signal.getsignal(each))]
    before = {each: signal.signal(each, lambda number, _: came.append(number)) for each in mine}
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        for each, handler in before.items():
            signal.signal(each, handler)
        for number in came:
            signal.raise_signal(number)


class Crew:
    """The workers of one sample. In a ``with`` statement they are there, and at its end they are gone."""

    def __init__(self, plan: Plan, workload: Workload, addresses: tuple[Any, ...], seconds: float) -> None:
        self.consumers: list[Worker] = []
        self.producers: list[Worker] = []
        self._heard: dict[Worker, Report] = {}
        self._dismissed: set[Worker] = set()
        self._until = 0.0
        self._seconds = seconds
        self._roles = [*[None] * workload.consumers, *range(workload.producers)]
        self._job: Callable[[int | None], Job] = lambda producer: Job(plan, workload, addresses, producer, seconds)

    def __enter__(self) -> Self:
        try:
            for producer in self._roles:
                crew = self.consumers if producer is None else self.producers
                crew.append(Worker(self._job(producer)))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for worker in [*self.consumers, *self.producers]:
            worker.end()

    def patient(self, seconds: float) -> None:
        """Be patient from now on for so many seconds more than usual."""
        self._until = time.monotonic() + PATIENCE + seconds

    def go(self) -> None:
        """Start the work when all are ready."""
        everybody = [*self.consumers, *self.producers]
        self.patient(0)
        self.hear(everybody)
        for worker in everybody:
            worker.say("go")
        self.patient(self._seconds)

    def hear(self, speakers: Sequence[Worker]) -> list[Report]:
        """Wait until each of these has said something, and return it.

        Raises:
            Failed: Any worker died or failed, or one of these is silent.
        """
        while silent := [each for each in speakers if each not in self._heard]:
            # The others are heard as well: one that has died keeps these waiting.
            for worker in self._waiting(silent[0]):
                self._heard[worker] = worker.take()
        return [self._heard.pop(each) for each in speakers]

    def dismiss(self, workers: Sequence[Worker]) -> None:
        """Say the last word to workers that have reported, and wait for their end.

        Raises:
            Failed: One does not end, or ends badly.
        """
        self._dismissed.update(workers)
        for worker in workers:
            worker.say("bye")
        for worker in workers:
            worker.part(self._until)

    def _waiting(self, silent: Worker) -> list[Worker]:
        """Wait until somebody has something to say."""
        known = self._dismissed | self._heard.keys()
        unheard = [each for each in [*self.consumers, *self.producers] if each not in known]
        said = wait(
            [handle for each in unheard for handle in (each.connection, each.process.sentinel)],
            max(0.0, self._until - time.monotonic()),
        )
        if not said:
            raise Failed(f"the {silent.role} stalled: nothing came from it for {PATIENCE + self._seconds:.0f} s")
        return [each for each in unheard if each.connection in said or each.process.sentinel in said]
