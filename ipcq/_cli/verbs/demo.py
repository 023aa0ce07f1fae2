"""``ipcq demo``: unrelated processes, one queue, and a check that nothing gets lost.

The demo starts workers that know nothing of each other but the queue's name, lets them run, shuts the queue down so
that the consumers drain it and end, and compares what went in with what came out. Where the backend cannot shut a queue
down, it puts a mark for each consumer behind the last object. Whatever happens, nothing is left
behind: the demo removes the queue and ends the workers on every way out, and where it is killed itself the workers see
their stdin end and do it (see `_worker`).
"""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic
from typing import Any

import click

import ipcq
from ipcq._cli._creation import short_lived
from ipcq._cli._exits import Failure
from ipcq._cli._meter import Meter
from ipcq._cli._options import backend_option, json_option, quiet_option, seconds_option
from ipcq._cli._output import say, say_json
from ipcq._cli._signals import stopped_by_signals
from ipcq._cli._verdict import Verdict, judge
from ipcq._cli._worker import END, OVERHEAD
from ipcq.errors import QueueFull, QueueNotFound, Unsupported

#: Seconds without one object moved after which the run counts as stuck.
STUCK = 30.0

#: How long a worker may take to end once it is told to, in seconds.
PARTING = 10.0

SECONDS = 3.0


@click.command("demo")
@click.option(
    "--producers", type=click.IntRange(1), metavar="N", default=2, show_default=True, help="Processes that put."
)
@click.option(
    "--consumers", type=click.IntRange(1), metavar="N", default=2, show_default=True, help="Processes that get."
)
@click.option(
    "--size",
    type=click.IntRange(0),
    metavar="BYTES",
    default=64,
    show_default=True,
    help="Payload of an object, in bytes.",
)
@seconds_option("--seconds", "How long producers put.  [default: 3, unless --messages is given]")
@click.option("--messages", type=click.IntRange(1), metavar="N", help="How many objects to put in all.")
@backend_option("Where to create the queue.")
@json_option("Print the result as one JSON object, and no progress.")
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
    """Move objects through a queue between processes, and check that none gets lost.

    Producers and consumers are unrelated processes that know the queue by its name. Objects are dicts with a number,
    text and bytes; each has to come out exactly once, intact, and in the order in which its producer put it. Exits with
    1 if one did not, or if a process died. The queue is a new one, and is removed in any case.
    """
    if seconds is None:
        seconds = SECONDS if messages is None else float("inf")
    demo = Demo(backend, size, Meter(silent=as_json or quiet))
    with stopped_by_signals():
        verdict = demo.run(_shares(messages, producers), consumers, seconds, announce=not (as_json or quiet))
    rate = verdict.received / demo.elapsed if demo.elapsed else 0.0
    if as_json:
        say_json(
            {
                "ok": verdict.ok,
                "verdict": verdict.sentence(),
                "backend": demo.backend,
                "queue": demo.name,
                "producers": producers,
                "consumers": consumers,
                "size": size,
                "seconds": round(demo.elapsed, 6),
                "rate": round(rate, 1),
                "sent": verdict.sent,
                "received": verdict.received,
                "lost": verdict.lost,
                "repeated": verdict.repeated,
                "reordered": verdict.reordered,
                "damaged": verdict.damaged,
                "troubles": verdict.troubles,
            }
        )
    else:
        say(f"moved    {verdict.received:,} objects in {demo.elapsed:.2f} s, {rate:,.0f} per second")
        say(f"backend  {demo.backend}")
        say(f"verdict  {verdict.sentence()}")
    if not verdict.ok:
        raise Failure  # the verdict has said it


def _shares(messages: int | None, producers: int) -> list[int | None]:
    if messages is None:
        return [None] * producers
    return [messages // producers + (index < messages % producers) for index in range(producers)]


class Trouble(Exception):
    """Something that ends a run early, in words for the verdict."""


class Worker:
    """One process of the run, and what it said so far."""

    def __init__(self, role: str, index: int, *arguments: object) -> None:
        self.count = 0
        self.ready = False
        self.report: dict[str, Any] | None = None
        # -P keeps files of the working directory from being taken for modules. Its own process group keeps the
        # terminal's Ctrl-C from it: the demo has it, and ends the workers.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ipcq", "demo-worker", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            process_group=0,
        )
        self.name = f"{role} {index} (pid {self.process.pid})"
        self._rest = b""

    def fileno(self) -> int:
        """Return the descriptor on which it speaks."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def listen(self) -> None:
        """Take in what it says.

        Raises:
            Trouble: It is dead.
        """
        said = os.read(self.fileno(), 1 << 16)
        if not said:
            raise Trouble(f"{self.name} {self.part()}")
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            news = json.loads(line)
            self.ready = self.ready or "ready" in news
            self.count = news.get("count", self.count)
            self.report = news.get("report")

    def tell(self) -> None:
        """Say the word for which it waits."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(b".")
        except BrokenPipeError:
            pass  # it died, which is noticed where it is listened to

    def part(self) -> str:
        """Wait until it has ended, and say how."""
        try:
            _, complaint = self.process.communicate(timeout=PARTING)
        except subprocess.TimeoutExpired:
            return f"did not end within {PARTING:.0f} s"
        code = self.process.returncode
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
        return f"ended with exit code {code}{': ' if last else ''}{last}"

    def end(self) -> None:
        """End it, if it has not ended, and give back its pipes."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


class Demo:
    """One run, from the queue's creation to its removal."""

    def __init__(self, backend: str, size: int, meter: Meter) -> None:
        self.name = f"/ipcq-demo-{os.getpid()}-{os.urandom(4).hex()}"
        self.backend = backend
        self.elapsed = 0.0
        self._size = size
        self._meter = meter
        self._producers: list[Worker] = []
        self._consumers: list[Worker] = []

    def run(self, shares: list[int | None], consumers: int, seconds: float, *, announce: bool) -> Verdict:
        """Do it, clean up, and return the verdict."""
        with ExitStack() as stack:
            # In the stack before the queue exists: an interruption at any point then finds it there.
            stack.callback(self._remove)
            stack.enter_context(short_lived())
            queue = stack.enter_context(
                ipcq.open(self.name, self.backend, exclusive=True, max_message_size=self._size + OVERHEAD)
            )
            self.backend = queue.backend
            if queue.capabilities.scope < ipcq.Scope.HOST:
                raise Unsupported(
                    "its queues live inside one process, and the demo has several: choose another backend",
                    backend=self.backend,
                )
            if announce:
                say(f"queue    {self.name} on {self.backend}, {len(shares)} producers, {consumers} consumers")
            for index, share in enumerate(shares):
                limit = () if share is None else ("--messages", share)
                task = ("--produce", index, "--seconds", seconds, *limit)
                self._hire(stack, self._producers, "producer", index, *task)
            for index in range(consumers):
                self._hire(stack, self._consumers, "consumer", index, "--consume", len(shares))
            stack.enter_context(self._meter.open())
            try:
                return self._supervise(queue)
            except Trouble as trouble:
                verdict = Verdict(self._sent(), self._received())
                verdict.troubles.append(str(trouble))
                return verdict

    def _hire(self, stack: ExitStack, crew: list[Worker], role: str, index: int, *task: object) -> None:
        worker = Worker(role, index, self.name, self.backend, self._size, *task)
        stack.callback(worker.end)
        crew.append(worker)

    def _supervise(self, queue: ipcq.Queue[Any]) -> Verdict:
        crew = [*self._producers, *self._consumers]
        self._until(lambda: all(worker.ready for worker in crew), queue)
        started = monotonic()
        self._meter.start()
        for worker in crew:
            worker.tell()
        self._until(lambda: all(worker.report is not None for worker in self._producers), queue)
        self._end(queue)
        self._until(lambda: all(worker.report is not None for worker in crew), queue)
        reports = [worker.report for worker in self._consumers if worker.report is not None]
        # On Linux all processes read one monotonic clock.
        self.elapsed = max(report["last"] for report in reports) - started
        queue.unlink()
        verdict = judge([worker.count for worker in self._producers], reports, self._received())
        for worker in crew:
            worker.tell()
        for worker in crew:
            parting = worker.part()
            if worker.process.returncode != 0:
                verdict.troubles.append(f"{worker.name} {parting}")
        return verdict

    def _end(self, queue: ipcq.Queue[Any]) -> None:
        """Let the consumers end once they have drained the queue."""
        if queue.capabilities.shutdown:
            queue.shutdown()
            return
        marks = [END] * len(self._consumers)

        def all_put() -> bool:
            try:
                while marks:
                    queue.put_nowait(marks[-1])
                    marks.pop()
            except QueueFull:
                pass
            return not marks

        self._until(all_put, queue)

    def _until(self, reached: Callable[[], bool], queue: ipcq.Queue[Any]) -> None:
        """Listen to all workers until a point is reached.

        Raises:
            Trouble: A worker died, or nothing moves.
        """
        crew = [*self._producers, *self._consumers]
        moved, since = -1, monotonic()
        while not reached():
            readable, _, _ = select.select(crew, [], [], 0.1)
            for worker in readable:
                worker.listen()
            if moved != self._sent() + self._received():
                moved, since = self._sent() + self._received(), monotonic()
            elif monotonic() - since > STUCK:
                raise Trouble(f"nothing moved for {STUCK:.0f} s")
            if moved:
                self._meter.show(self._sent(), self._received(), queue.qsize())

    def _sent(self) -> int:
        return sum(worker.count for worker in self._producers)

    def _received(self) -> int:
        return sum(worker.count for worker in self._consumers)

    def _remove(self) -> None:
        try:
            ipcq.unlink(self.name)
        except QueueNotFound:
            pass  # as it should be, at the end of a good run
