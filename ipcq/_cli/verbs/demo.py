"""``ipcq demo``: move objects between unrelated processes, and check that none is lost.

The demo starts workers that share nothing but the name of the queue, and lets them run. Then it shuts the queue down,
so that the consumers drain it and end, and compares what was put with what was received. On a backend without shutdown,
it puts an end marker for each consumer after the last object. The demo always removes the queue and ends the workers.
If it is killed itself, the process that forked the workers does so (see `ipcq.testing.processes`).
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic
from typing import Any

import click

import ipcq
from ipcq._cli._creation import allow_short_lived
from ipcq._cli._demo_outcome import Outcome
from ipcq._cli._demo_progress import DemoProgress
from ipcq._cli._demo_worker import END_MARKER, OVERHEAD_BYTES, consume, produce
from ipcq._cli._exits import Failure
from ipcq._cli._options import backend_option, json_option, quiet_option, seconds_option
from ipcq._cli._output import print_json, print_line
from ipcq._cli._signals import stopped_by_signals
from ipcq.errors import QueueFull, QueueNotFound, Unsupported
from ipcq.testing.oracle import Verdict
from ipcq.testing.processes import Hang, Peer, PeerDied, Peers, listen
from ipcq.testing.tally import judge_tallies
from ipcq.testing.workers import remove

#: After this time without progress, the run counts as hung.
HANG_SECONDS = 30.0

#: The longest time that a worker may take to exit.
EXIT_SECONDS = 10.0

DEFAULT_SECONDS = 3.0


@click.command("demo")
@click.option(
    "--producers", type=click.IntRange(1), metavar="N", default=2, show_default=True, help="Number of producers."
)
@click.option(
    "--consumers", type=click.IntRange(1), metavar="N", default=2, show_default=True, help="Number of consumers."
)
@click.option(
    "--size",
    type=click.IntRange(0),
    metavar="BYTES",
    default=64,
    show_default=True,
    help="Payload size of an object.",
)
@seconds_option("--seconds", "Put for SECONDS.  [default: 3, unless --messages is given]")
@click.option("--messages", type=click.IntRange(1), metavar="N", help="Put N objects in all.")
@backend_option("Create the queue on this backend.")
@json_option("Print the result as one JSON object, without progress.")
@quiet_option
def command(
    producers: int,
    consumers: int,
    size: int,
    seconds: float | None,
    messages: int | None,
    backend: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Move objects between processes through a queue, and check that none is lost.

    Producers and consumers are unrelated processes that share only the name of the queue. Objects are dicts with a
    number, text and bytes. Each must arrive exactly once, intact, and in the order of its producer. Exits with 1 if one
    does not, or if a process dies. Uses a new queue, and always removes it.
    """
    if seconds is None:
        seconds = DEFAULT_SECONDS if messages is None else float("inf")
    demo = Demo(backend, size, DemoProgress(silent=as_json or quiet))
    with stopped_by_signals():
        outcome = demo.run(_shares(messages, producers), consumers, seconds, announce=not (as_json or quiet))
    verdict = outcome.verdict
    rate = verdict.received / demo.elapsed if demo.elapsed else 0.0
    if as_json:
        print_json(
            {
                "ok": outcome.ok,
                "verdict": outcome.sentence(),
                "backend": demo.backend,
                "queue": demo.name,
                "producers": producers,
                "consumers": consumers,
                "size": size,
                "seconds": round(demo.elapsed, 6),
                "rate": round(rate, 1),
                "sent": verdict.accepted,
                "received": verdict.received,
                "lost": len(verdict.lost),
                "repeated": len(verdict.duplicated),
                "reordered": len(verdict.reordered),
                "damaged": outcome.damaged,
                "troubles": outcome.errors,
            }
        )
    else:
        print_line(f"moved    {verdict.received:,} objects in {demo.elapsed:.2f} s, {rate:,.0f} per second")
        print_line(f"backend  {demo.backend}")
        print_line(f"verdict  {outcome.sentence()}")
        if outcome.stacks:
            print_line(outcome.stacks)
    if not outcome.ok:
        raise Failure  # the verdict has been printed


def _shares(messages: int | None, producers: int) -> list[int | None]:
    if messages is None:
        return [None] * producers
    return [messages // producers + (index < messages % producers) for index in range(producers)]


@dataclass(eq=False)
class Worker:
    """One process of the run, and what it has reported."""

    name: str
    peer: Peer
    count: int = 0
    ready: bool = False
    report: dict[str, Any] | None = None

    def record(self, report: dict[str, Any]) -> None:
        """Record a report."""
        self.ready = self.ready or "ready" in report
        self.count = report.get("count", self.count)
        self.report = report.get("report")

    def release(self) -> None:
        """Send the signal for which it waits."""
        try:
            self.peer.say("go on")
        except PeerDied:
            pass  # detected by the next `listen`

    def await_exit(self) -> str:
        """Wait for the exit. Return what went wrong, or an empty string."""
        try:
            code = self.peer.wait(EXIT_SECONDS)
        except Hang:
            return f"{self.name} did not exit within {EXIT_SECONDS:.0f} s"
        return f"{self.name} {self.peer.death()}" if code else ""


class Demo:
    """One run, from creating the queue to removing it."""

    def __init__(self, backend: str, size: int, progress: DemoProgress) -> None:
        self.name = f"/ipcq-demo-{os.getpid()}-{os.urandom(4).hex()}"
        self.backend = backend
        self.elapsed = 0.0
        self._size = size
        self._progress = progress
        self._producers: list[Worker] = []
        self._consumers: list[Worker] = []

    def run(self, shares: list[int | None], consumers: int, seconds: float, *, announce: bool) -> Outcome:
        """Run, clean up, and return the result."""
        with ExitStack() as stack:
            # Registered before the queue exists, so that an interruption at any point removes the queue.
            stack.callback(self._remove)
            stack.enter_context(allow_short_lived())
            queue = stack.enter_context(
                ipcq.open(self.name, self.backend, exclusive=True, max_message_size=self._size + OVERHEAD_BYTES)
            )
            self.backend = queue.backend
            if queue.capabilities.scope < ipcq.Scope.HOST:
                raise Unsupported(
                    "its queues live inside one process, but the demo needs several: choose another backend",
                    backend=self.backend,
                )
            if announce:
                print_line(f"queue    {self.name} on {self.backend}, {len(shares)} producers, {consumers} consumers")
            at = self.name, self.backend
            # If the demo is killed, the peers remove the queue.
            peers = stack.enter_context(Peers(patience=None, seed=0, farewell=(remove, at)))
            stack.enter_context(self._progress.open())
            try:
                for index, share in enumerate(shares):
                    peer = peers.fork(produce, *at, self._size, index, seconds, share)
                    self._producers.append(Worker(f"producer {index} (pid {peer.pid})", peer))
                for index in range(consumers):
                    peer = peers.fork(consume, *at, self._size)
                    self._consumers.append(Worker(f"consumer {index} (pid {peer.pid})", peer))
                return self._supervise(queue)
            except PeerDied as death:
                return self._failed_outcome(f"{self._name_of(death.peer)} {death.peer.death()}")
            except Hang as hang:
                return self._failed_outcome(str(hang).partition("\n")[0], peers.stacks())

    def _failed_outcome(self, problem: str, stacks: str = "") -> Outcome:
        return Outcome(Verdict(self._sent(), 0, 0, self._received()), [problem], stacks)

    def _name_of(self, peer: Peer) -> str:
        names = {worker.peer: worker.name for worker in [*self._producers, *self._consumers]}
        return names.get(peer, f"the process that starts them (pid {peer.pid})")

    def _supervise(self, queue: ipcq.Queue[Any]) -> Outcome:
        workers = [*self._producers, *self._consumers]
        self._listen_until(lambda: all(worker.ready for worker in workers), queue)
        started = monotonic()
        self._progress.start()
        for worker in workers:
            worker.release()
        self._listen_until(lambda: all(worker.report is not None for worker in self._producers), queue)
        self._end(queue)
        self._listen_until(lambda: all(worker.report is not None for worker in workers), queue)
        reports = [worker.report for worker in self._consumers if worker.report is not None]
        # On Linux, all processes share one monotonic clock.
        self.elapsed = max(report["last"] for report in reports) - started
        queue.unlink()
        counts = [worker.count for worker in self._producers]
        verdict = judge_tallies(counts, [report["seen"] for report in reports])
        for worker in workers:
            worker.release()
        return Outcome(verdict, [problem for worker in workers if (problem := worker.await_exit())])

    def _end(self, queue: ipcq.Queue[Any]) -> None:
        """Make the consumers end after they have drained the queue."""
        if queue.capabilities.shutdown:
            queue.shutdown()
            return
        markers = [END_MARKER] * len(self._consumers)

        def all_put() -> bool:
            try:
                while markers:
                    queue.put_nowait(markers[-1])
                    markers.pop()
            except QueueFull:
                pass
            return not markers

        self._listen_until(all_put, queue)

    def _listen_until(self, is_reached: Callable[[], bool], queue: ipcq.Queue[Any]) -> None:
        """Read reports of all workers until a condition holds.

        Raises:
            PeerDied: A worker died.
            Hang: There was no progress for `HANG_SECONDS` seconds.
        """
        workers = {worker.peer: worker for worker in [*self._producers, *self._consumers]}
        counted, since = -1, monotonic()
        while not is_reached():
            for peer, report in listen(list(workers), 0.1):
                workers[peer].record(report)
            if counted != self._sent() + self._received():
                counted, since = self._sent() + self._received(), monotonic()
            elif monotonic() - since > HANG_SECONDS:
                raise Hang(f"no progress for {HANG_SECONDS:.0f} s")
            if counted:
                self._progress.show(self._sent(), self._received(), queue.qsize())

    def _sent(self) -> int:
        return sum(worker.count for worker in self._producers)

    def _received(self) -> int:
        return sum(worker.count for worker in self._consumers)

    def _remove(self) -> None:
        try:
            ipcq.unlink(self.name)
        except QueueNotFound:
            pass  # already unlinked by a complete run
