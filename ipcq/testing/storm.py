"""The storm: producers and consumers of one queue that are killed at random, and a verdict over their calls.

The processes share only the way to open the queue. A seed decides which process is killed when. The verdict comes from
ledgers that survive their processes (`ipcq.testing.oracle`). A killed process is replaced at once, until the requested
number of kills. Then the producers are killed, the queue is shut down, and the consumers must drain it and end. If no
process makes progress for `patience` seconds, that is a hang: the report then has the Python stacks of all processes
and, if the kernel shows them, the kernel stacks.

A queue may lose only messages that killed consumers had taken: one message or batch for each ledger without an end.

Every other strike is *aimed*: the victim is stopped and examined, several times, and killed as soon as it holds a lock
that the kernel releases at death, a robust futex or a lock on a file (`ipcq.testing.locks`). `Report.inside` counts the
kills of processes that were seen to hold one. It is a lower bound: processes killed without an examination may have
held one too. If the critical section is inside the kernel, as on `mqueue`, there is no such lock. `Report.recoveries`
is the queue's own count: on `shm` the deaths of owners of one of the ring's locks, on `pyshm`, which does not see
those, the unfinished steps that were repaired.
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
from ipcq.testing.workers import BATCH, PATIENCE, attached, consume, finish, live, produce, remove, sweep, visit, work

__all__ = ("LEASING", "MODES", "Mode", "Report", "Storm", "stress")

Mode = Literal["get", "batches", "stops", "forks", "names", "lease", "late", "delay"]

#: The modes of a storm, and what each does.
MODES: Final[Mapping[Mode, str]] = {
    "get": "single puts and gets",
    "batches": "put_many and get_many",
    "stops": "processes are also stopped by SIGSTOP, several at a time, before they continue or are killed",
    "forks": "processes have two threads and fork during calls; their children continue and are killed too",
    "names": "kills during create, attach, unlink and close of one name",
    "lease": "consumers lease messages, and acknowledge them or give them back",
    "late": "the same, with holds of milliseconds, so that settlements race with the next delivery",
    "delay": "the same as lease, and messages are put and given back with delays",
}

#: The modes that need a queue with leases. No message may be lost in them.
LEASING: Final = ("lease", "late", "delay")

#: The hold of a lease in mode "late", in seconds.
HOLD: Final = 0.003

#: Kills per queue. A longer storm uses several queues, because the judge keeps every message of a queue in memory.
ROUND: Final = 250

#: The longest time between two strikes, in seconds.
PAUSE: Final = 0.002

#: The number of processes to kill at once is one of these: most crashes are single, but the recovering process may
#: crash too.
AT_ONCE: Final = (1, 1, 1, 2, 3, 4)

#: The longest time for which processes are stopped, in seconds.
STOPPED: Final = 0.01

#: Number of times that an aimed strike checks whether its victim holds a lock.
LOOKS: Final = 10

#: The number of unsuccessful aimed strikes after which there are no more.
VAIN: Final = 50

#: Seconds for the process started last to reach the point where it hangs too, before the stacks are collected.
SETTLED: Final = 1.0

#: Number of processes, besides the victims, that attach to the name in mode "names".
VISITORS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of a storm."""

    mode: Mode
    seed: int
    """Repeats which process was killed when; the scheduling of the processes is not repeatable."""
    seconds: float
    kills: int
    """Processes killed by SIGKILL, at random instants."""
    stops: int = 0
    """Processes stopped by SIGSTOP, at random instants."""
    inside: int = 0
    """Kills of processes that were seen to hold a lock of the queue."""
    recoveries: int | None = None
    """The queue's own count of recoveries after a death; None if it has no count."""
    slowest_open: float = 0.0
    """The longest duration of an open during the kills, in seconds, in mode ``"names"``."""
    verdict: Verdict = field(default_factory=lambda: Verdict(0, 0, 0, 0))
    """The verdict from the ledgers; empty in mode ``"names"``."""
    losable: int = 0
    """Largest number of messages that killed consumers may have taken."""
    trouble: str = ""
    """The reason why the storm ended early, in one line."""
    stacks: str = ""
    """The stacks of all processes at that time."""

    @property
    def bound(self) -> float:
        """Upper bound of the failure rate per kill, with 95 % confidence, if there was no failure."""
        return bound(self.kills)

    @property
    def faults(self) -> list[str]:
        """The violated promises."""
        verdict = self.verdict
        faults = [self.trouble] if self.trouble else []
        if len(verdict.lost) > self.losable and not self.trouble:
            faults.append(f"{len(verdict.lost)} lost, but killed consumers account for at most {self.losable}")
        if verdict.unrecorded > verdict.cut_off * BATCH:
            faults.append(
                f"{verdict.unrecorded} deliveries that no consumer recorded, but killed consumers account for at most "
                f"{verdict.cut_off * BATCH}"
            )
        return faults + [f"{count} {what}" for what, count in verdict.wrong.items() if count]

    @property
    def ok(self) -> bool:
        """Whether no promise was violated."""
        return not self.faults

    def __add__(self, later: "Report") -> "Report":
        """Return the combined result of two successive storms."""
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
    """No process makes progress."""


@dataclass(frozen=True, kw_only=True)
class Storm:
    """A storm over one existing queue that no other process uses.

    It shuts the queue down, if the backend supports that; the creator unlinks it. Mode ``"names"`` needs a name that no
    queue has, and leaves none.

    Args:
        opener: Called in each process, returns a handle; a function of a module that these processes can import
            (`ipcq.testing.workers` lists the methods that a handle needs).
        arguments: The opener's arguments, JSON values; for a queue of ipcq, its name and its backend.
        mode: One of `MODES`.
        kills: Number of kills.
        seconds: The longest duration; after that the storm ends with fewer kills.
        producers: Number of processes that put.
        consumers: Number of processes that get.
        size: Size of the largest message, in bytes, which must fit in the queue.
        limits: Options for the queues of mode ``"names"``.
        seed: Decides which process is killed when.
        patience: Seconds without progress that count as a hang.
        shutdown: Whether the queue can be shut down; otherwise a file signals the end of the storm.
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
        """Run the storm and return its result.

        Args:
            show: Called repeatedly with the number of kills so far.
        """
        # The storm detects hangs itself. A watchdog would end a long storm.
        farewell = (remove, tuple(self.arguments)) if self.opener is attached else None
        with Peers(patience=None, seed=self.seed, farewell=farewell) as peers:
            return (_Names if self.mode == "names" else _Messages)(self, peers, show).run()


class _Run:
    """A running storm: its processes, and the choice of victims."""

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
        # The time of the last progress, the progress then, and the number of kills then.
        self._moved: tuple[float, object, int] = (self._began, None, 0)

    def start(self, place: int) -> Peer:
        raise NotImplementedError  # pragma: no cover - abstract

    def progress(self) -> object:
        """Return a value that changes whenever a process makes progress."""
        raise NotImplementedError  # pragma: no cover - abstract

    def struck(self) -> None:
        """Check the effect of a kill on the others."""

    def end(self) -> None:
        """End the remaining processes in order."""

    def report(self, **found: Any) -> Report:
        raise NotImplementedError  # pragma: no cover - abstract

    def run(self) -> Report:
        found: dict[str, Any] = {}
        try:
            self.strike()
            self.end()
        except (_Stalled, PeerDied, Hang, ipcq.MessageQueueError) as error:
            # Long enough, but before a worker times out, whose patience is twice the storm's.
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
        """Kill processes, which must still be running."""
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
        """Try to stop a victim while it holds a lock."""
        self._aims += 1
        if self._aims > VAIN and not self.inside:
            return  # the backend seems to have no such lock
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
            raise _Stalled(f"no progress for {now - self._moved[0]:.1f} s, since kill {self._moved[2]}")


class _Messages(_Run):
    """A storm over the messages of one queue."""

    def __init__(self, storm: Storm, peers: Peers, show: Callable[[int], object]) -> None:
        super().__init__(storm, peers, show)
        self._recoveries: int | None = None
        self._options: dict[str, Any] = {
            "size": storm.size,
            "batch": BATCH if storm.mode == "batches" else 1,
            # Longer than the storm's own, because a stalled storm reports more than a worker that times out.
            "patience": 2 * storm.patience,
            "look": storm.mode != "batches",
            "over": "" if storm.shutdown else str(peers.directory / "over"),
            "hold": HOLD if storm.mode == "late" else None,
            "delays": storm.mode == "delay",
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
        take = work if self.storm.mode in LEASING else consume
        program: Callable[..., object] = produce if role == "producer" else take
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
        # The size of the consumers' ledgers. If producers make no progress, consumers soon make none either.
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
            # It drains the queue, and each get may take long.
            consumer.done(4 * self.storm.patience)
        if self._lock:
            until(self._alone, self.storm.patience, "the end of all forked children")
        if not self.storm.shutdown:
            ledger = self.peers.ledger("consumer", self._started + 1)
            self.peers.fork(sweep, *queue, self._started + 1, ledger, **self._options).done(self.storm.patience)

    def _alone(self) -> bool:
        import fcntl  # which only POSIX has

        with open(self._lock, "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # pragma: no cover - if a child still runs for some milliseconds
                return False
        return True

    def report(self, **found: Any) -> Report:
        verdict = self.peers.judge()
        most = BATCH if self.storm.mode == "batches" else int(self.storm.mode not in LEASING)
        return Report(recoveries=self._recoveries, verdict=verdict, losable=verdict.cut_off * most, **found)


class _Names(_Run):
    """A storm over one name whose queue is created and unlinked."""

    def __init__(self, storm: Storm, peers: Peers, show: Callable[[int], object]) -> None:
        super().__init__(storm, peers, show)
        self._slowest = 0.0
        self._visitors: list[Peer] = []

    def start(self, place: int) -> Peer:
        self._started += 1
        name, backend = self.storm.arguments
        return self.peers.fork(live, name, backend, self._started, dict(self.storm.limits))

    def progress(self) -> object:
        return self.kills  # the open after each kill finds a hang

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
    """Run a storm over new queues of a backend, and remove them.

    Args:
        backend: The backend of the queues.
        mode: As for `Storm`.
        kills: Total number of kills; there is a new queue after each 250.
        seconds: The longest total duration.
        seed: As for `Storm`.
        producers: As for `Storm`.
        consumers: As for `Storm`.
        size: As for `Storm`.
        patience: As for `Storm`.
        show: As for `Storm.run`, with the total number of kills.
        options: Options for the queues, as for `ipcq.open`; with leases in the modes that need them.

    Raises:
        MessageQueueError: The queue could not be created.
    """
    end = time.monotonic() + seconds
    if mode in LEASING:
        options = {**options, "leases": True}
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
            # Before the queue exists, so that an interruption at any point removes it.
            stack.callback(remove, name, backend)
            if mode != "names":
                queue = stack.enter_context(ipcq.open(name, backend, exclusive=True, **options))
                storm = replace(storm, shutdown=queue.capabilities.shutdown)
            report = storm.run(_behind(done, show))
        total = total + report if total else report
    return total
