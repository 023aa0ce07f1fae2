"""The storm: producers and consumers of one queue that are killed at random, and a verdict over what they did.

The processes know nothing of one another but how to open the queue. Who is struck when is decided by a seed. What they
did is judged from outside, by the ledgers that survive them (`ipcq.testing.oracle`). Who is killed is replaced at once,
and the storm goes on until there were as many kills as were asked for; then the producers are killed, the queue is shut
down, and the consumers have to drain it and end. If nobody gets on for `patience` seconds, that is a hang: the report
then has the stacks of every process, Python's and, where the kernel shows it, the kernel's.

What a queue may lose is what killed consumers had taken: one message, or one batch, for each ledger without an end.

Every other strike is *aimed*: the victim is stopped and looked at, several times, and killed where it stands once it
holds a lock that the kernel gives back at death, a robust futex or a file's (`ipcq.testing.locks`). `Report.inside`
counts the kills of processes that were seen to hold one, so it is no estimate; who was killed without being looked at
may have held one too. Where the critical section is the kernel's own, as on `mqueue`, there is nothing to hold. Beside
it `Report.recoveries` says what the queue counts itself: on `shm` each death of an owner of one of the ring's locks,
on `pyshm`, which is not told of those, each half of a step that somebody left behind.
"""

import math
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import ipcq
from ipcq.testing.locks import holds_lock
from ipcq.testing.oracle import Verdict
from ipcq.testing.processes import Hang, Peer, PeerDied, Peers, bound, fresh_name, until
from ipcq.testing.workers import BATCH, PATIENCE, attached, consume, finish, live, produce, remove, sweep, visit

__all__ = ("MODES", "Mode", "Report", "Storm", "stress")

Mode = Literal["get", "batches", "stops", "forks", "names"]

#: What a storm can be like, and what is special about it.
MODES: Final[Mapping[Mode, str]] = {
    "get": "single puts and gets",
    "batches": "put_many and get_many",
    "stops": "processes are stopped by SIGSTOP as well, many at a time, before they go on or are killed",
    "forks": "processes have two threads and fork in the middle; their children work on and are killed too",
    "names": "kills during create, attach, unlink and close of one name",
}

#: Kills over one queue. A longer storm is several, because a judge has to remember every message of one.
ROUND: Final = 250

#: Seconds between two strikes, at most.
PAUSE: Final = 0.002

#: How many die at once, one of these: most crashes are somebody's alone, but who recovers may be killed as well.
AT_ONCE: Final = (1, 1, 1, 2, 3, 4)

#: Seconds for which processes are stopped, at most.
STOPPED: Final = 0.01

#: How often an aimed strike looks whether its victim holds a lock.
LOOKS: Final = 10

#: Aimed strikes in vain after which there are no more.
VAIN: Final = 50

#: Seconds for who was started last to get to where it hangs as well, before its stack is asked for.
SETTLED: Final = 1.0

#: Processes beside the victims that attach to a name that comes and goes.
VISITORS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a storm."""

    mode: Mode
    seed: int
    """Replays the storm: who was struck when. What the system made of it is another's to decide."""
    seconds: float
    kills: int
    """Processes killed by SIGKILL, at random instants."""
    stops: int = 0
    """Processes stopped by SIGSTOP, at random instants."""
    inside: int = 0
    """Kills of processes that were seen to hold a lock of the queue when they died."""
    recoveries: int | None = None
    """Times that the queue was put in order after a death, by its own count; None where it counts none."""
    slowest_open: float = 0.0
    """The longest that an open took beside the kills, in seconds; of mode ``"names"``."""
    verdict: Verdict = field(default_factory=lambda: Verdict(0, 0, 0, 0))
    """What the ledgers say; of mode ``"names"``, nothing."""
    losable: int = 0
    """Messages that killed consumers may have had."""
    trouble: str = ""
    """What ended the storm early, in one line."""
    stacks: str = ""
    """Where every process stood then."""

    @property
    def bound(self) -> float:
        """What no failure in so many kills says: the rate of failures is below this, with 95 % confidence."""
        return bound(self.kills)

    @property
    def faults(self) -> list[str]:
        """What was promised and not kept."""
        verdict = self.verdict
        faults = [self.trouble] if self.trouble else []
        if len(verdict.lost) > self.losable and not self.trouble:
            faults.append(f"{len(verdict.lost)} lost, of which killed consumers account for {self.losable} at most")
        return faults + [f"{count} {what}" for what, count in verdict.wrong.items() if count]

    @property
    def ok(self) -> bool:
        """Nothing was wrong."""
        return not self.faults

    def __add__(self, later: "Report") -> "Report":
        """Return what came of both, one after the other."""
        known = [each.recoveries for each in (self, later) if each.recoveries is not None]
        return replace(
            later,
            seed=self.seed,
            seconds=self.seconds + later.seconds,
            kills=self.kills + later.kills,
            stops=self.stops + later.stops,
            inside=self.inside + later.inside,
            recoveries=sum(known) if known else None,
            slowest_open=max(self.slowest_open, later.slowest_open),
            verdict=self.verdict + later.verdict,
            losable=self.losable + later.losable,
        )

    def __str__(self) -> str:
        recoveries = "" if self.recoveries is None else f", {self.recoveries} recoveries"
        stopped = f", {self.stops} stops" if self.stops else ""
        what = (
            f"slowest open {self.slowest_open * 1000:.1f} ms"
            if self.mode == "names"
            else f"longest stall {self.verdict.stall * 1000:.1f} ms; {self.verdict}"
        )
        return (
            f"{self.mode}: {self.kills} kills in {self.seconds:.1f} s, {self.inside} seen inside{recoveries}{stopped}; "
            f"{what}; {'; '.join(self.faults) or 'ok'}; rate of failures below {self.bound:.2g} per kill (95 %)"
        )


def _unseen(kills: int) -> None:
    """Show nothing."""


def _behind(done: int, show: Callable[[int], object]) -> Callable[[int], object]:
    return lambda count: show(done + count)


class _Stalled(Exception):
    """Nobody gets on."""


@dataclass(frozen=True, kw_only=True)
class Storm:
    """A storm over one queue that exists, and that nobody else uses.

    It leaves the queue shut down, if it can be; its creator unlinks it. Mode ``"names"`` is over a name that is free
    before and after.

    Args:
        opener: Returns a handle in each process anew; a function of a module that these can import (`ipcq.testing.
            workers` says what it needs of a handle).
        arguments: What the opener is called with: what JSON can say. For a queue of ipcq its name and its backend.
        mode: What the storm is like, one of `MODES`.
        kills: How many.
        seconds: How long at most; after that, fewer kills have to do.
        producers: Processes that put.
        consumers: Processes that get.
        size: Size of the largest message, in bytes; it has to fit into the queue.
        limits: What a queue of mode ``"names"`` is created with.
        seed: Decides who is struck when.
        patience: Seconds without any progress that count as a hang.
        shutdown: Whether the queue can be shut down; otherwise a file tells the processes that the storm is over.
    """

    arguments: Sequence[Any]
    opener: Callable[..., Any] = attached
    mode: Mode = "get"
    kills: int = 2000
    seconds: float = math.inf
    producers: int = 4
    consumers: int = 4
    size: int = 500
    limits: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    patience: float = PATIENCE
    shutdown: bool = True

    def run(self, show: Callable[[int], object] = _unseen) -> Report:
        """Let it come, and return what came of it.

        Args:
            show: Called with the count of kills so far, again and again.
        """
        # The storm has its own watch over hangs, which may not end a long one.
        farewell = (remove, tuple(self.arguments)) if self.opener is attached else None
        with Peers(patience=None, seed=self.seed, farewell=farewell) as peers:
            return (_Names if self.mode == "names" else _Messages)(self, peers, show).run()


class _Run:
    """One storm under way: the processes at their places, and who is struck."""

    def __init__(self, storm: Storm, peers: Peers, show: Callable[[int], object]) -> None:
        self.storm = storm
        self.peers = peers
        self.kills = 0
        self.stops = 0
        self.inside = 0
        self.alive: list[Peer] = []
        self._aims = 0
        self._show = show
        self._dice = random.Random(storm.seed)
        self._started = 0
        self._began = time.monotonic()
        # When somebody last got on, how far they were then, and after how many kills.
        self._moved: tuple[float, object, int] = (self._began, None, 0)

    def start(self, place: int) -> Peer:
        raise NotImplementedError  # pragma: no cover - abstract

    def progress(self) -> object:
        """Return something that is another one whenever somebody got on."""
        raise NotImplementedError  # pragma: no cover - abstract

    def struck(self) -> None:
        """See what a kill did to the others."""

    def end(self) -> None:
        """End what is left in order."""

    def report(self, **found: Any) -> Report:
        raise NotImplementedError  # pragma: no cover - abstract

    def run(self) -> Report:
        found: dict[str, Any] = {}
        try:
            self.strike()
            self.end()
        except (_Stalled, PeerDied, Hang, ipcq.MessageQueueError) as error:
            # Before a worker gives up, which is patient for twice as long as the storm.
            time.sleep(min(SETTLED, self.storm.patience / 2))
            what, _, more = str(error).partition("\n")
            found = {"trouble": what, "stacks": f"{more}\n{self.peers.stacks()}".strip()}
        return self.report(
            mode=self.storm.mode,
            seed=self.storm.seed,
            seconds=time.monotonic() - self._began,
            kills=self.kills,
            stops=self.stops,
            inside=self.inside,
            **found,
        )

    def strike(self) -> None:
        places = self.storm.producers + self.storm.consumers
        self.alive = [self.start(place) for place in range(places)]
        for peer in self.alive:
            peer.hear(self.storm.patience)
        until_then = self._began + self.storm.seconds
        while self.kills < self.storm.kills and time.monotonic() < until_then:
            time.sleep(self._dice.uniform(0, PAUSE))
            if self.storm.mode == "stops":
                victims = self._dice.sample(range(places), self._dice.randint(1, places // 2))
                self._stop([self.alive[place] for place in victims])
                spared = victims[1:]
                del victims[1:]
            else:
                most = min(places // 2, self.storm.kills - self.kills)
                victims = self._dice.sample(range(places), min(self._dice.choice(AT_ONCE), most))
                spared = []
                if self._dice.random() < 0.5:
                    self._aim(self.alive[victims[0]])
            self.kill(*[self.alive[place] for place in victims])
            for place in spared:
                self.alive[place].resume()
            self.struck()
            for place in victims:
                self.alive[place] = self.start(place)
            self._watch()
            self._show(self.kills)

    def kill(self, *victims: Peer) -> None:
        """Kill some that have to be at work."""
        for victim in victims:
            victim.send(signal.SIGKILL)
        for victim in victims:
            if victim.wait() != -signal.SIGKILL:
                raise PeerDied(f"{victim} ended by itself\n{victim.complaint()}", victim)
        self.kills += len(victims)

    def _stop(self, victims: list[Peer]) -> None:
        for victim in victims:
            victim.stop()
        self.stops += len(victims)
        time.sleep(self._dice.uniform(0, STOPPED))
        self.inside += holds_lock(victims[0].pid)

    def _aim(self, victim: Peer) -> None:
        """Stop a victim where it holds a lock, if it can be met there."""
        self._aims += 1
        if self._aims > VAIN and not self.inside:
            return  # there seems to be no lock
        for _ in range(LOOKS):
            victim.stop()
            if holds_lock(victim.pid):
                self.inside += 1
                return
            victim.resume()
            time.sleep(self._dice.uniform(0, PAUSE / 4))

    def _watch(self) -> None:
        now, progress = time.monotonic(), self.progress()
        if progress != self._moved[1]:
            self._moved = now, progress, self.kills
        elif now - self._moved[0] > self.storm.patience:
            raise _Stalled(f"nobody got on for {now - self._moved[0]:.1f} s, since kill {self._moved[2]}")


class _Messages(_Run):
    """A storm over the messages of one queue."""

    def __init__(self, storm: Storm, peers: Peers, show: Callable[[int], object]) -> None:
        super().__init__(storm, peers, show)
        self._recoveries: int | None = None
        self._options: dict[str, Any] = {
            "size": storm.size,
            "batch": BATCH if storm.mode == "batches" else 1,
            # Longer than the storm watches, which sees more than one process that gives up.
            "patience": 2 * storm.patience,
            "look": storm.mode != "batches",
            "over": "" if storm.shutdown else str(peers.directory / "over"),
        }
        self._lock = ""
        if storm.mode == "forks":
            self._lock = str(peers.directory / "alive")
            os.close(os.open(self._lock, os.O_CREAT, 0o600))
        self._ledgers: dict[int, str] = {}
        self._entered = 0

    def start(self, place: int) -> Peer:
        self._started += 1
        role = "producer" if place < self.storm.producers else "consumer"
        program: Callable[..., object] = produce if role == "producer" else consume
        ledger = self.peers.ledger(role, self._started)
        self._entered += self._size(place)
        self._ledgers[place] = ledger
        return self.peers.fork(
            program,
            self.storm.opener,
            list(self.storm.arguments),
            self._started,
            ledger,
            self._lock,
            **self._options,
        )

    def progress(self) -> object:
        # What consumers entered. Where producers alone cannot get on, these soon cannot either.
        return self._entered + sum(map(self._size, self._ledgers))

    def _size(self, place: int) -> int:
        with suppress(KeyError, FileNotFoundError):
            return os.stat(self._ledgers[place]).st_size if place >= self.storm.producers else 0
        return 0

    def end(self) -> None:
        while self._moved[2] < self.kills:
            time.sleep(PAUSE)
            self._watch()
        for producer in self.alive[: self.storm.producers]:
            self.kill(producer)
        queue = self.storm.opener, list(self.storm.arguments)
        finisher = self.peers.fork(finish, *queue, self._options["over"])
        self._recoveries = finisher.hear(self.storm.patience)
        finisher.done(self.storm.patience)
        for consumer in self.alive[self.storm.producers :]:
            # It gets what is there, and each get may take its time.
            consumer.done(4 * self.storm.patience)
        if self._lock:
            until(self._alone, self.storm.patience, "the end of what was forked")
        if not self.storm.shutdown:
            ledger = self.peers.ledger("consumer", self._started + 1)
            self.peers.fork(sweep, *queue, self._started + 1, ledger, **self._options).done(self.storm.patience)

    def _alone(self) -> bool:
        import fcntl  # which only POSIX has

        with open(self._lock, "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # pragma: no cover - where a child lives on for some milliseconds
                return False
        return True

    def report(self, **found: Any) -> Report:
        verdict = self.peers.judge()
        most = BATCH if self.storm.mode == "batches" else 1
        return Report(recoveries=self._recoveries, verdict=verdict, losable=verdict.cut_off * most, **found)


class _Names(_Run):
    """A storm over one name whose queue comes and goes."""

    def __init__(self, storm: Storm, peers: Peers, show: Callable[[int], object]) -> None:
        super().__init__(storm, peers, show)
        self._slowest = 0.0
        self._visitors: list[Peer] = []

    def start(self, place: int) -> Peer:
        self._started += 1
        name, backend = self.storm.arguments
        return self.peers.fork(live, name, backend, self._started, dict(self.storm.limits))

    def progress(self) -> object:
        return self.kills  # whoever cannot get on is found by the open after each kill

    def strike(self) -> None:
        self._visitors = [self.peers.fork(visit, *self.storm.arguments) for _ in range(VISITORS)]
        for visitor in self._visitors:
            visitor.hear(self.storm.patience)
        super().strike()

    def struck(self) -> None:
        name, backend = self.storm.arguments
        began = time.monotonic()
        ipcq.open(name, backend, open_timeout=self.storm.patience, **self.storm.limits).close()
        self._slowest = max(self._slowest, time.monotonic() - began)

    def end(self) -> None:
        for peer in (*self._visitors, *self.alive):
            self.kill(peer)
        name, backend = self.storm.arguments
        with ipcq.open(name, backend, open_timeout=self.storm.patience, **self.storm.limits) as queue:
            queue.clear()
            queue.put("whole", timeout=self.storm.patience)
            queue.get(timeout=self.storm.patience)
            queue.unlink()

    def report(self, **found: Any) -> Report:
        return Report(slowest_open=self._slowest, **found)


def stress(
    backend: str,
    *,
    mode: Mode = "get",
    kills: int = 2000,
    seconds: float = math.inf,
    seed: int = 0,
    producers: int = 4,
    consumers: int = 4,
    size: int = 500,
    patience: float = PATIENCE,
    show: Callable[[int], object] = _unseen,
    **options: Any,
) -> Report:
    """Let a storm come over new queues of a backend, and leave none of them behind.

    Args:
        backend: Where to create them.
        mode: As for `Storm`.
        kills: In all; there is a new queue after each 250.
        seconds: How long in all, at most.
        seed: As for `Storm`.
        producers: As for `Storm`.
        consumers: As for `Storm`.
        size: As for `Storm`.
        patience: As for `Storm`.
        show: As for `Storm.run`, with the kills in all.
        options: What the queues are created with, as for `ipcq.open`.

    Raises:
        MessageQueueError: The queue could not be created.
    """
    end = time.monotonic() + seconds
    total: Report | None = None
    while total is None or (total.ok and total.kills < kills and time.monotonic() < end):
        done = total.kills if total else 0
        name = fresh_name("/ipcq-stress")
        storm = Storm(
            arguments=(name, backend),
            mode=mode,
            kills=min(kills - done, ROUND),
            seconds=max(0.0, end - time.monotonic()),
            producers=producers,
            consumers=consumers,
            size=size,
            limits=options,
            seed=seed + done,
            patience=patience,
        )
        with ExitStack() as stack:
            # In the stack before the queue exists: an interruption at any point then finds it there.
            stack.callback(remove, name, backend)
            if mode != "names":
                queue = stack.enter_context(ipcq.open(name, backend, exclusive=True, **options))
                storm = replace(storm, shutdown=queue.capabilities.shutdown)
            report = storm.run(_behind(done, show))
        total = total + report if total else report
    return total
