"""What the processes of a storm run: producers and consumers that enter all they do into ledgers, and forkers of both.

They know the queue by an *opener* alone, a function that returns a handle when it is called with the arguments that
come with it, in each process anew. A handle is an `ipcq.Queue`, or something that has of it `put` and `get` with
`timeout`, `shutdown` and `close`, and `put_many` and `get_many` where a storm moves batches. Where a queue cannot be
shut down, they end when a file appears; they then wait in slices of time, and look for the file after each.
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
from ipcq.testing.oracle import Ledger, Tag
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
)

#: Seconds within which a survivor has to go on: ten times what the contract says.
PATIENCE: Final = 10.0

#: Most messages of a batch.
BATCH: Final = 8

#: Seconds between two checks whether a storm is over, if its queue cannot be shut down.
LOOK: Final = 0.2

#: Forks of one worker, at most; each child puts under a number of its own.
FORKS: Final = 1000

#: What a name that comes and goes may give, and nothing else.
COMES_AND_GOES: Final = (ipcq.QueueNotFound, ipcq.QueueExists, ipcq.QueueGone, ipcq.QueueFull, ipcq.QueueEmpty)


def attached(name: str, backend: str) -> "ipcq.Queue[object]":
    """Open a queue that exists: the opener of a storm over a queue of ipcq."""
    return ipcq.open(name, backend, create=False)


class Worker:
    """A producer or a consumer at work.

    Args:
        handle: The queue.
        ledger: The path of its ledger.
        number: What tells it from every other worker.
        size: Size of the largest message, in bytes.
        batch: Most messages to move at a time; 1 for `put` and `get`.
        patience: Seconds that a call waits.
        look: Get without waiting now and then, and enter where nothing was found.
        over: Path of the file that stands for the shutdown of a queue that cannot be shut down.
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
        }
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
        """Return a worker of the same kind under another number."""
        return Worker(handle, f"{self.ledger.removesuffix('.ledger')}.{number}.ledger", number, **self._options)

    def produce(self) -> None:
        """Put the next message or batch."""
        count = self._dice.randint(1, self._batch)
        tags = [Tag(self.number, self.count + place) for place in range(count)]
        self.count += count
        messages = [tag.message(self._dice.choice(self._sizes)) for tag in tags]
        # Every other batch is in a hurry, so that some are stored in part.
        hurry = self._batch > 1 and self._dice.random() < 0.5
        self._book.intend(*tags)
        try:
            if self._batch == 1:
                stored = 1
                self._patiently(self.handle.put, messages[0])
            elif hurry:
                stored = self.handle.put_many(messages, timeout=0.001)
            else:
                stored = self._patiently(self.handle.put_many, messages)
        except BaseException as error:
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

    def _patiently(self, call: Callable[..., Any], *arguments: object) -> Any:
        if not self._over:
            return call(*arguments, timeout=self._patience)
        until = time.monotonic() + self._patience
        while True:
            try:
                return call(*arguments, timeout=LOOK)
            except (standard.Empty, standard.Full):
                if os.path.exists(self._over):
                    raise ipcq.QueueShutDown from None
                if time.monotonic() >= until:
                    raise

    def end(self) -> None:
        """Enter that nothing more follows."""
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
    """Be a producer, for ever or for so many messages; where the path `alive` is given, one that forks."""
    _work(Worker.produce, partial(opener, *arguments), number, ledger, alive, count, options)


def consume(
    opener: Callable[..., Any],
    arguments: Sequence[Any],
    number: int,
    ledger: str,
    alive: str = "",
    **options: Any,
) -> None:
    """Be a consumer until the queue is shut down; where the path `alive` is given, one that forks."""
    _work(Worker.consume, partial(opener, *arguments), number, ledger, alive, math.inf, options)


def finish(opener: Callable[..., Any], arguments: Sequence[Any], over: str = "") -> None:
    """Shut the queue down, and say how often it was put in order after a death, where it knows."""
    with closing(opener(*arguments)) as handle:
        recoveries = handle.stats().recoveries if isinstance(handle, ipcq.Queue) else None
        if over:
            os.close(os.open(over, os.O_CREAT, 0o600))
        else:
            handle.shutdown()
    say(recoveries)


def sweep(opener: Callable[..., Any], arguments: Sequence[Any], number: int, ledger: str, **options: Any) -> None:
    """Take what is left in a queue that cannot be shut down and that nobody uses any more."""
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
    """Work in two threads of one handle, and fork from one of them while the other may be inside a call.

    A child inherits the handle, works on for a few turns, and ends or is killed; that nobody is left is told by the
    lock on the file `alive`, which it inherits as well.
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
                # From Python 3.12 on: that forking with threads works all the same is what is tried.
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
    """Work on with what was inherited, for a few turns, and end or be killed."""
    code = 1
    try:
        dice = random.Random(number)
        if dice.random() < 0.5:
            signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.0001, 0.005))  # whose signal kills as SIGKILL does
        handle = parent.handle
        with suppress(ipcq.QueueClosed):
            handle.qsize()
        if handle.closed:  # a backend whose handles are the parent's alone
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
    """Unlink the queue of a storm that was killed itself."""
    with suppress(ipcq.MessageQueueError):
        ipcq.unlink(name, backend)


# --- names that come and go ---------------------------------------------------------------------------------------


def live(
    name: str, backend: str, number: int, limits: dict[str, Any]
) -> None:  # pragma: no cover - in processes that are killed
    """Create, attach, use, close and unlink one name at random, for ever."""
    dice = random.Random(number)
    say("ready")
    while True:
        with suppress(*COMES_AND_GOES):
            if dice.random() < 0.3:
                ipcq.unlink(name, backend)
            with ipcq.open(name, backend, exclusive=dice.random() < 0.3, **limits) as queue:
                if dice.random() < 0.5:
                    queue.put_nowait("item")
                if dice.random() < 0.3:
                    queue.unlink()


def visit(name: str, backend: str) -> None:  # pragma: no cover - in processes that are killed
    """Attach to one name again and again, for ever."""
    say("ready")
    while True:
        with suppress(*COMES_AND_GOES), attached(name, backend) as queue:
            queue.get_nowait()
