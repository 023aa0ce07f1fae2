"""The programs of a storm's processes: producers and consumers that record their calls in ledgers, and may fork.

Each process opens the queue with an *opener*, a function that returns a handle for the arguments that come with it. A
handle is an `ipcq.Queue`, or an object with its methods `put` and `get` with `timeout`, `shutdown` and `close`, and for
storms with batches `put_many` and `get_many`; storms with leases need an `ipcq.Queue`. If a queue cannot be shut down,
the processes end when a file appears, for which they check between short waits.
"""

import math
import os
import queue as standard
import random
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any, Final

import ipcq
from ipcq.testing._answers import until_answered
from ipcq.testing.oracle import Delivery, Ledger, Tag
from ipcq.testing.processes import say

__all__ = (
    "BATCH",
    "PATIENCE",
    "Worker",
    "attached",
    "consume",
    "finish",
    "live",
    "produce",
    "remove",
    "sweep",
    "visit",
    "work",
)

#: Seconds within which a survivor must make progress: ten times the contract's limit.
PATIENCE: Final = 10.0

#: The largest batch, in messages.
BATCH: Final = 8

#: Seconds between two checks whether a storm is over, if its queue cannot be shut down.
LOOK: Final = 0.2

#: The longest delay of a message, in seconds.
DELAY: Final = 0.02

#: The longest time for which a worker holds a lease without an end, in seconds.
JOB: Final = 0.005

#: The largest number of forks of one worker; each child has its own producer number.
FORKS: Final = 1000

#: The only errors that calls may raise while other processes create and unlink the name.
NAME_ERRORS: Final = (ipcq.QueueNotFound, ipcq.QueueExists, ipcq.QueueGone, ipcq.QueueFull, ipcq.QueueEmpty)


def attached(name: str, backend: str) -> "ipcq.Queue[object]":
    """Attach to an existing queue: the opener of storms over a queue of ipcq."""
    return until_answered(lambda seconds: ipcq.open(name, backend, create=False, open_timeout=seconds), PATIENCE)


class Worker:
    """A producer or a consumer.

    Args:
        handle: The queue.
        ledger: The path of its ledger.
        number: The worker's unique number.
        size: Size of the largest message, in bytes.
        batch: The largest number of messages per call; 1 uses `put` and `get`.
        patience: Timeout of a call, in seconds.
        look: Call some gets without waiting, and record the empty ones.
        over: Path of the file whose appearance replaces the shutdown of a queue that cannot be shut down.
        hold: Seconds until a lease ends; None: with its process.
        delays: Put and give back some messages with a delay.
    """

    def __init__(
        self,
        handle: Any,
        ledger: str,
        number: int,
        *,
        size: int = 500,
        batch: int = 1,
        patience: float = PATIENCE,
        look: bool = False,
        over: str = "",
        hold: float | None = None,
        delays: bool = False,
    ) -> None:
        self.handle = handle
        self.ledger = ledger
        self.number = number
        self._options: dict[str, Any] = {
            "size": size,
            "batch": batch,
            "patience": patience,
            "look": look,
            "over": over,
            "hold": hold,
            "delays": delays,
        }
        self._hold = hold
        self._delays = delays
        self._sizes = (0, 0, 0, size // 8, size)
        self._batch = batch
        self._patience = patience
        self._look = look
        self._over = over
        self._book = Ledger(ledger)
        self._dice = random.Random(number)
        self._turns = 0
        self.count = 0

    def another(self, handle: Any, number: int) -> "Worker":
        """Return a worker of the same kind with another number."""
        return Worker(handle, f"{self.ledger.removesuffix('.ledger')}.{number}.ledger", number, **self._options)

    def produce(self) -> None:
        """Put the next message or batch."""
        count = self._dice.randint(1, self._batch)
        tags = [Tag(self.number, self.count + place) for place in range(count)]
        self.count += count
        messages = [tag.message(self._dice.choice(self._sizes)) for tag in tags]
        # Every other batch has a short timeout, so that some are stored in part.
        hurry = self._batch > 1 and self._dice.random() < 0.5
        delay = self._delay()
        self._book.intend(*tags, delay=delay)
        try:
            if self._batch == 1:
                stored = 1
                self._patiently(self.handle.put, messages[0], **({"delay": delay} if delay else {}))
            elif hurry:
                # A server on a busy machine needs more time for an answer.
                is_far = self.handle.capabilities.scope >= ipcq.Scope.NETWORK
                stored = self.handle.put_many(messages, timeout=0.5 if is_far else 0.001)
            else:
                stored = self._patiently(self.handle.put_many, messages)
        except BaseException as error:
            if hurry and isinstance(error, ipcq.ConnectionLost) and error.outcome == "unknown":
                return
            self._book.refused(error, *tags)
            if hurry and isinstance(error, ipcq.QueueFull):
                return
            raise
        self._book.accepted(*tags[:stored])
        if stored < count:
            self._book.refused(standard.Full(), *tags[stored:])

    def consume(self) -> None:
        """Take the next message or batch."""
        self._turns += 1
        look = self._look and self._turns % 4 == 0
        since = time.monotonic_ns()
        try:
            if self._batch > 1:
                messages = self._patiently(self.handle.get_many, self._batch)
            elif look:
                messages = [self.handle.get(timeout=0)]
            else:
                messages = [self._patiently(self.handle.get)]
        except standard.Empty:
            if not look:
                raise
            self._book.empty(since)
            return
        tags = []
        for message in messages:
            try:
                tags.append(Tag.of(message))
            except ValueError:
                self._book.torn(message)
        self._book.took(since, *tags)

    def work(self) -> None:
        """Lease the next message or some messages, and settle them."""
        self._turns += 1
        if self._turns % 4 == 0:
            jobs = self._patiently(self.handle.lease_many, BATCH, hold=self._hold)
        else:
            jobs = [self._patiently(self.handle.lease, hold=self._hold)]
        deliveries = []
        for job in jobs:
            try:
                deliveries.append(Delivery(Tag.of(job.item), job.deliveries))
            except ValueError:
                self._book.torn(job.item)
        self._book.leased(*deliveries)
        if self._dice.random() < 0.5:  # so that kills meet holders, and some settle too late if leases have an end
            time.sleep(self._dice.uniform(0, 2 * self._hold if self._hold is not None else JOB))
        try:
            if len(deliveries) != 1 or self._dice.random() < 0.7:
                self._book.acking(*deliveries)
                self._settle(self.handle.ack_many, jobs)
                self._book.acked(*deliveries)
            else:
                self._give_back(jobs[0], deliveries[0])
        except ipcq.LeaseLost:
            if self._hold is None:
                raise
            self._book.acked(*[each for job, each in zip(jobs, deliveries, strict=False) if not job.lost])
            self._book.too_late(*[each for job, each in zip(jobs, deliveries, strict=False) if job.lost])

    def _give_back(self, job: Any, delivery: Delivery) -> None:
        since, delay = time.monotonic_ns(), self._delay()
        if self._dice.random() < 0.5:
            self._settle(job.release, delay)
        else:
            self._settle(job.fail, "storm", delay)
        self._book.released(delivery, since, delay)

    def _settle(self, call: Callable[..., object], *arguments: object) -> None:
        until = time.monotonic() + self._patience
        while True:
            try:
                call(*arguments)
            except ipcq.TimedOutError:  # the process that holds the lock has got no processor
                if time.monotonic() >= until:
                    raise
            else:
                return

    def _delay(self) -> float:
        return self._dice.uniform(0, DELAY) if self._delays and self._dice.random() < 0.5 else 0.0

    def _patiently(self, call: Callable[..., Any], *arguments: object, **named: object) -> Any:
        if not self._over:
            return call(*arguments, timeout=self._patience, **named)
        until = time.monotonic() + self._patience
        while True:
            try:
                return call(*arguments, timeout=LOOK, **named)
            except (standard.Empty, standard.Full):
                if os.path.exists(self._over):
                    raise ipcq.QueueShutDown from None
                if time.monotonic() >= until:
                    raise

    def end(self) -> None:
        """Record that nothing more follows."""
        self._book.end()


Reach = Callable[[], Any]
Step = Callable[[Worker], None]


def produce(
    opener: Callable[..., Any],
    arguments: Sequence[Any],
    number: int,
    ledger: str,
    alive: str = "",
    count: float = math.inf,
    **options: Any,
) -> None:
    """Run a producer, for `count` messages; it forks if the path `alive` is given."""
    _work(Worker.produce, partial(opener, *arguments), number, ledger, alive, count, options)


def consume(
    opener: Callable[..., Any],
    arguments: Sequence[Any],
    number: int,
    ledger: str,
    alive: str = "",
    **options: Any,
) -> None:
    """Run a consumer until the queue is shut down; it forks if the path `alive` is given."""
    _work(Worker.consume, partial(opener, *arguments), number, ledger, alive, math.inf, options)


def work(
    opener: Callable[..., Any],
    arguments: Sequence[Any],
    number: int,
    ledger: str,
    alive: str = "",
    **options: Any,
) -> None:
    """Run a consumer that leases, until the queue has ended; it forks if the path `alive` is given."""
    _work(Worker.work, partial(opener, *arguments), number, ledger, alive, math.inf, options)


def finish(opener: Callable[..., Any], arguments: Sequence[Any], over: str = "") -> None:
    """Shut the queue down, and send its count of recoveries, or None."""
    with closing(opener(*arguments)) as handle:
        recoveries = handle.stats().recoveries if isinstance(handle, ipcq.Queue) else None
        if over:
            os.close(os.open(over, os.O_CREAT, 0o600))
        else:
            handle.shutdown()
    say(recoveries)


def sweep(opener: Callable[..., Any], arguments: Sequence[Any], number: int, ledger: str, **options: Any) -> None:
    """Take the remaining messages of a queue that cannot be shut down and that no other process uses."""
    with closing(opener(*arguments)) as handle:
        worker = Worker(handle, ledger, number, **{**options, "patience": 0.0, "look": False, "over": ""})
        with suppress(standard.Empty):
            while True:
                worker.consume()
        worker.end()


def _work(
    step: Step, reach: Reach, number: int, ledger: str, alive: str, count: float, options: dict[str, Any]
) -> None:
    with closing(reach()) as handle:
        worker = Worker(handle, ledger, number, **options)
        say("ready")
        with suppress(ipcq.QueueShutDown):
            if alive:  # pragma: no cover - see _work_and_fork
                _work_and_fork(worker, step, reach, alive)
            while worker.count < count:
                step(worker)
        worker.end()
    say("done")


# --- forks --------------------------------------------------------------------------------------------------------


def _work_and_fork(
    worker: Worker, step: Step, reach: Reach, alive: str
) -> None:  # pragma: no cover - in processes that are killed
    """Work in two threads with one handle, and fork from one of them while the other may be inside a call.

    A child inherits the handle, works for a few turns, and ends or is killed. It also inherits a lock on the file
    `alive`, which shows whether any process is left.
    """
    import fcntl  # which only POSIX has

    held = os.open(alive, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # which reaps the children
    dice = random.Random(worker.number)
    beside = worker.another(worker.handle, worker.number * FORKS)
    thread = threading.Thread(target=_beside, args=(beside, step))
    thread.start()
    try:
        for child in range(1, FORKS):
            for _ in range(dice.randint(1, 20)):
                step(worker)
            with warnings.catch_warnings():
                # Python 3.12 and later warn of a fork in a process with threads, which is what this tests.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if not pid:
                _be_child(worker, step, reach, worker.number * FORKS + child)
    finally:
        thread.join()
        os.close(held)


def _beside(worker: Worker, step: Step) -> None:  # pragma: no cover - in processes that are killed
    try:
        with suppress(ipcq.QueueShutDown):
            while True:
                step(worker)
        worker.end()
    except BaseException:
        # A thread's failure is the process's.
        traceback.print_exc()
        os._exit(1)


def _be_child(
    parent: Worker, step: Step, reach: Reach, number: int
) -> None:  # pragma: no cover - in processes that are killed
    """Work with the inherited handle for a few turns, and end or be killed."""
    code = 1
    try:
        dice = random.Random(number)
        if dice.random() < 0.5:
            signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.0001, 0.005))  # SIGALRM ends the process
        handle = parent.handle
        with suppress(ipcq.QueueClosed):
            handle.qsize()
        if handle.closed:  # on backends whose handles belong to the parent only
            handle = reach()
        worker = parent.another(handle, number)
        with suppress(ipcq.QueueShutDown):
            for _ in range(dice.randint(1, 10)):
                step(worker)
        worker.end()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def remove(name: str, backend: str) -> None:
    """Unlink the queue of a storm whose own process was killed."""
    with suppress(ipcq.MessageQueueError):
        ipcq.unlink(name, backend)


# --- names that come and go ---------------------------------------------------------------------------------------


def live(
    name: str, backend: str, number: int, limits: dict[str, Any]
) -> None:  # pragma: no cover - in processes that are killed
    """Create, attach, use, close and unlink one name at random, until killed."""
    dice = random.Random(number)
    say("ready")
    while True:
        with suppress(*NAME_ERRORS):
            if dice.random() < 0.3:
                ipcq.unlink(name, backend)
            with ipcq.open(name, backend, exclusive=dice.random() < 0.3, **limits) as queue:
                if dice.random() < 0.5:
                    queue.put_nowait("item")
                if dice.random() < 0.3:
                    queue.unlink()


def visit(name: str, backend: str) -> None:  # pragma: no cover - in processes that are killed
    """Attach to one name repeatedly, until killed."""
    say("ready")
    while True:
        with suppress(*NAME_ERRORS), attached(name, backend) as queue:
            queue.get_nowait()
