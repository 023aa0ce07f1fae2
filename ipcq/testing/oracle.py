"""The oracle: ledgers in which processes record their calls, and a verdict whether a correct queue can explain them.

The oracle runs outside the processes under test. A `Ledger` is a file to which only its owner appends, each entry with
one `write`, so a kill can tear only the last entry. A producer records each put before it begins and when it ends; a
consumer records the messages that it took. `Tag.message` makes the messages, numbered per producer, and `judge` finds
which were lost, duplicated, invented, torn or reordered. Instants are on CLOCK_MONOTONIC, one clock for all processes
of a machine.
"""

import bisect
import gc
import itertools
import math
import os
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

__all__ = ("Delivery", "Ledger", "Tag", "Verdict", "judge")

#: A non-waiting get that takes more nanoseconds was delayed by another process inside the queue: on shm it then gives
#: up if that process is stopped.
HELD_UP: Final = 1_000_000

#: The largest number of lost messages that are listed.
NAMED: Final = 5


class Tag(NamedTuple):
    """The identity of a message: its producer, and its number among that producer's messages."""

    producer: int
    number: int

    def message(self, size: int = 0) -> bytes:
        """Return a unique message of about `size` bytes, at least as long as its tag needs, with a checksum."""
        head = b"%d.%d." % self
        body = head * (max(size - 9, len(head)) // len(head) + 1)
        body = body[: max(size - 9, len(head))]
        return body + b"#%08x" % zlib.crc32(body)

    @classmethod
    def of(cls, message: object) -> "Tag":
        """Return the tag of a message.

        Raises:
            ValueError: The value is not a complete message made by `message`.
        """
        if not isinstance(message, bytes) or b"#%08x" % zlib.crc32(message[:-9]) != message[-9:]:
            raise ValueError(f"not a whole message: {message!r}")
        producer, number, _ = message.split(b".", 2)
        return cls(int(producer), int(number))


class Delivery(NamedTuple):
    """One delivery of a message by lease: the message, and how many times it has been delivered."""

    tag: Tag
    times: int


class Ledger:
    """The record of one process's calls, in a file that survives the process.

    Args:
        path: The file, which no other process writes to.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def intend(self, *tags: Tag, delay: float = 0.0) -> None:
        """Record that a put of these messages begins, which become ready `delay` seconds later."""
        self._enter_each("?", tags, f"{time.monotonic_ns()}{f' {int(delay * 1e9)}' if delay else ''}")

    def accepted(self, *tags: Tag) -> None:
        """Record that the put returned, and stored these messages."""
        self._enter_each("+", tags, f"{time.monotonic_ns()}")

    def refused(self, error: BaseException, *tags: Tag) -> None:
        """Record that the put of these messages raised."""
        self._enter_each("-", tags, f"{time.monotonic_ns()} {type(error).__name__}")

    def took(self, since: int, *tags: Tag) -> None:
        """Record that a get, begun at `since` on `time.monotonic_ns`, returned these messages, in this order."""
        self._enter_each("<", tags, f"{since} {time.monotonic_ns()}")

    def leased(self, *deliveries: "Delivery") -> None:
        """Record that a lease returned these messages."""
        self._enter_deliveries("l", deliveries, time.monotonic_ns())

    def acking(self, *deliveries: "Delivery") -> None:
        """Record that the acknowledgement of these messages begins."""
        self._enter_deliveries("A", deliveries, 0)

    def acked(self, *deliveries: "Delivery") -> None:
        """Record that the acknowledgement of these messages returned."""
        self._enter_deliveries("a", deliveries, 0)

    def too_late(self, *deliveries: "Delivery") -> None:
        """Record that these leases were over before they were settled."""
        self._enter_deliveries("x", deliveries, 0)

    def released(self, delivery: "Delivery", since: int, delay: float) -> None:
        """Record that a message was given back by a call begun at `since`, and becomes ready `delay` seconds later."""
        self._enter_deliveries("b", [delivery], since + int(delay * 1e9))

    def torn(self, message: object) -> None:
        """Record that a get returned a value that no producer put."""
        self._enter(f"! {message!r}\n")

    def empty(self, since: int) -> None:
        """Record that a non-waiting get, begun at `since` on `time.monotonic_ns`, found the queue empty."""
        self._enter(f"0 {since} {time.monotonic_ns()}\n")

    def end(self) -> None:
        """Record that nothing more will follow, and close the file."""
        self._enter(".\n")
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _enter_each(self, kind: str, tags: Iterable[Tag], rest: str) -> None:
        self._enter("".join(f"{kind} {producer} {number} {rest}\n" for producer, number in tags))

    def _enter_deliveries(self, kind: str, deliveries: Iterable["Delivery"], instant: int) -> None:
        self._enter("".join(f"{kind} {tag.producer} {tag.number} {instant} {times}\n" for tag, times in deliveries))

    def _enter(self, entry: str) -> None:
        # A single write. A kill can leave a part of it if it crosses a page (generic_perform_write, mm/filemap.c).
        os.write(self._fd, entry.encode())


@dataclass(frozen=True, slots=True)
class Verdict:
    """The findings from the ledgers."""

    accepted: int
    """Puts that returned."""
    refused: int
    """Puts that raised."""
    unknown: int
    """Puts during which the producer was killed."""
    received: int
    """Messages that were taken."""
    lost: list[Tag] = field(default_factory=list)
    """Messages of puts that returned which no consumer recorded; a consumer killed right after a get accounts for those
    of that get."""
    duplicated: list[Tag] = field(default_factory=list)
    """Messages that were taken or acknowledged twice, or delivered after their acknowledgement."""
    invented: list[Tag] = field(default_factory=list)
    """Messages that were taken although no producer put them, before their put began, or although the put raised."""
    torn: list[str] = field(default_factory=list)
    """Values that were taken and are not complete messages."""
    reordered: list[tuple[Tag, Tag]] = field(default_factory=list)
    """Messages that certainly overtook an earlier one: the earlier, the later."""
    missed: int = 0
    """Gets that found the queue empty, without being delayed, although there certainly was a message all the time."""
    put_off: int = 0
    """The same for gets that took longer than a millisecond. Another process, stopped or preempted, was inside the
    queue all that time, and a non-waiting get then gives up, unless the lock is the kernel's."""
    uncounted: int = 0
    """Deliveries by lease that had the same number as another one of the same message."""
    early: int = 0
    """Deliveries by lease before the message's delay was over."""
    redelivered: int = 0
    """Deliveries by lease of a message that had been delivered before."""
    unrecorded: int = 0
    """Deliveries by lease that no consumer recorded, but later ones count; a consumer killed right after a lease
    accounts for those of that lease."""
    cut_off: int = 0
    """Consumers that were killed: their ledgers have no end."""
    stall: float = 0.0
    """The longest time between the returns of two successive calls, in seconds."""

    @property
    def wrong(self) -> dict[str, int]:
        """Number of violations of each kind; the caller must judge losses."""
        return {
            "duplicated": len(self.duplicated),
            "invented": len(self.invented),
            "torn": len(self.torn),
            "reordered": len(self.reordered),
            "missed": self.missed,
            "uncounted": self.uncounted,
            "early": self.early,
        }

    @property
    def sound(self) -> bool:
        """Whether there was no violation; the caller must judge losses."""
        return not any(self.wrong.values())

    @property
    def losses(self) -> str:
        """A text with the number of lost messages and the first of them."""
        named = [f"no. {number} of producer {producer}" for producer, number in self.lost[:NAMED]]
        return f"{len(self.lost)} lost ({', '.join(named)}{', …' if len(self.lost) > NAMED else ''})"

    @property
    def faults(self) -> list[str]:
        """Texts for all violations, including losses; empty if every message came once, complete and in order."""
        lost = [self.losses] if self.lost else []
        return lost + [f"{count} {what}" for what, count in self.wrong.items() if count]

    def __add__(self, other: "Verdict") -> "Verdict":
        """Return the combined verdict over two queues."""
        both = {each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)}
        return Verdict(**{**both, "stall": max(self.stall, other.stall)})

    def __str__(self) -> str:
        leases = f", {self.redelivered} redelivered, {self.uncounted} uncounted, {self.early} early"
        return (
            f"{self.accepted} accepted, {self.refused} refused, {self.unknown} unknown, {self.received} received, "
            f"{len(self.lost)} lost, {len(self.duplicated)} duplicated, {len(self.invented)} invented, "
            f"{len(self.torn)} torn, {len(self.reordered)} reordered, {self.missed} missed, {self.put_off} put off"
            + (leases if self.redelivered else "")
        )


# A message as written in the ledgers: producer and number. There are millions of entries, so they are not converted
# unless needed.
_Key: TypeAlias = tuple[str, str]


@dataclass(slots=True)
class _Books:
    """The entries of the ledgers by message, with instants in nanoseconds."""

    begun: dict[_Key, int] = field(default_factory=dict)
    stored: dict[_Key, int] = field(default_factory=dict)
    refused: set[_Key] = field(default_factory=set)
    taken: dict[_Key, tuple[int, int]] = field(default_factory=dict)
    """When the get began and when it returned."""
    again: set[_Key] = field(default_factory=set)
    swapped: list[tuple[_Key, _Key]] = field(default_factory=list)
    """Messages that one consumer took after a later one of the same producer: the earlier, the later."""
    torn: list[str] = field(default_factory=list)
    empties: list[tuple[int, int]] = field(default_factory=list)
    due: dict[_Key, int] = field(default_factory=dict)
    """When a message becomes ready that was put with a delay."""
    released: dict[tuple[_Key, int], int] = field(default_factory=dict)
    """When a message becomes ready after a delivery."""
    leased: dict[_Key, list[tuple[int, int]]] = field(default_factory=dict)
    """Number and end of each delivery by lease."""
    acked: dict[_Key, int] = field(default_factory=dict)
    """The delivery that was acknowledged."""
    perhaps_acked: set[_Key] = field(default_factory=set)
    """Messages during whose acknowledgement the consumer was killed."""
    received: int = 0
    cut_off: int = 0

    def read_producer(self, path: Path) -> None:
        for line in _entries(path):
            if line == ".":
                continue
            kind, producer, number, instant, *more = line.split(" ")
            if kind == "?":
                self.begun[producer, number] = int(instant)
                if more:
                    self.due[producer, number] = int(instant) + int(more[0])
            elif kind == "+":
                self.stored[producer, number] = int(instant)
            else:
                self.refused.add((producer, number))

    def read_consumer(self, path: Path) -> None:
        latest: dict[str, int] = {}
        acking: set[_Key] = set()
        ended = False
        for line in _entries(path):
            if line[0] == "<":
                _, producer, number, since, instant = line.split(" ")
                self.received += 1
                if (producer, number) in self.taken:
                    self.again.add((producer, number))
                else:
                    self.taken[producer, number] = int(since), int(instant)
                if int(number) < latest.get(producer, -1):
                    self.swapped.append(((producer, number), (producer, str(latest[producer]))))
                latest[producer] = max(int(number), latest.get(producer, -1))
            elif line[0] == "0":
                _, since, instant = line.split(" ")
                self.empties.append((int(since), int(instant)))
            elif line[0] == "!":
                self.torn.append(line[2:])
            elif line == ".":
                ended = True
            else:
                self._read_lease(line, acking)
        self.perhaps_acked |= acking
        self.cut_off += not ended

    def _read_lease(self, line: str, acking: set[_Key]) -> None:
        kind, producer, number, instant, count = line.split(" ")
        key, delivery = (producer, number), int(count)
        if kind == "l":
            self.leased.setdefault(key, []).append((delivery, int(instant)))
        elif kind == "b":
            self.released[key, delivery] = int(instant)
        elif kind == "A":
            acking.add(key)
        else:
            acking.discard(key)
            if kind == "a":
                self.received += 1
                if key in self.acked:
                    self.again.add(key)
                self.acked[key] = max(delivery, self.acked.get(key, 0))

    def judge_leases(self) -> dict[str, int]:
        """Count the deliveries by lease that a correct queue cannot explain, and those that it has to explain."""
        found = dict.fromkeys(("uncounted", "early", "redelivered", "unrecorded"), 0)
        for key, deliveries in self.leased.items():
            counts = {count for count, _ in deliveries}
            found["redelivered"] += len(deliveries) - 1
            found["uncounted"] += len(deliveries) - len(counts)
            found["unrecorded"] += max(counts) - len(counts)
            for count, instant in deliveries:
                due = self.due.get(key, 0) if count == 1 else self.released.get((key, count - 1), 0)
                found["early"] += instant < due
            if max(counts) > self.acked.get(key, math.inf):
                self.again.add(key)
        return found

    def overtaken(self) -> Iterator[tuple[Tag, Tag]]:
        """Yield the swapped messages that were put one after the other, or in one batch in this order."""
        for earlier, later in self.swapped:
            begun = self.begun.get(later)
            if begun is not None and (self.begun.get(earlier) == begun or self.stored.get(earlier, math.inf) < begun):
                yield _tag(earlier), _tag(later)

    def invented(self) -> set[_Key]:
        early = {key for key, (_, end) in self.taken.items() if end < self.begun.get(key, end)}
        taken = self.taken.keys() | self.leased.keys()
        return (taken - self.begun.keys()) | (taken & self.refused) | early


def _entries(path: Path) -> list[str]:
    # Text after the last newline is part of an entry, and does not count.
    return path.read_text().split("\n")[:-1]


def _tag(key: _Key) -> Tag:
    return Tag(*map(int, key))


def _tags(keys: Iterable[_Key]) -> list[Tag]:
    return sorted(map(_tag, keys))


def judge(producers: Iterable[Path], consumers: Iterable[Path]) -> Verdict:
    """Judge from the ledgers whether one FIFO queue can explain the history, in O(n log n).

    A history in which all messages differ is that of a FIFO queue if and only if it has none of four bad patterns:

    - a *fresh* message, taken although no producer put it, or before its put began (`Verdict.invented`);
    - a *repeated* message (`Verdict.duplicated`);
    - an *inverted* pair: one put came after the other, but the gets came in the opposite order (`Verdict.reordered`);
    - a *wrong empty*: a get found the queue empty, although messages that were certainly there cover all of its time
      (`Verdict.missed`).

    Messages that were leased need not be in order. Each must be acknowledged once, and never delivered after that; its
    deliveries must have different numbers, and come when it is due.

    "After" means that one call had returned before the other began, so concurrent calls may have taken effect in either
    order. Losses are counted separately, because it is unknown what a killed consumer had taken.

    The patterns are those of Henzinger, Sezgin and Vafeiadis, "Aspect-oriented linearizability proofs" (CONCUR 2013,
    theorem 1), and of Bouajjani, Emmi, Enea and Hamza, "On reducing linearizability to state reachability" (ICALP
    2015). For refusals by a full queue, use `ipcq.testing.histories`.
    """
    books = _Books()
    # The garbage collector would traverse millions of live entries repeatedly.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for path in producers:
            books.read_producer(path)
        for path in consumers:
            books.read_consumer(path)
        missed = _missed(books)
        leases = books.judge_leases()
        gone = books.taken.keys() | books.acked.keys() | books.perhaps_acked
        return Verdict(
            accepted=len(books.stored),
            refused=len(books.refused),
            unknown=len(books.begun.keys() - books.stored.keys() - books.refused),
            received=books.received,
            lost=_tags(books.stored.keys() - gone),
            duplicated=_tags(books.again),
            invented=_tags(books.invented()),
            torn=books.torn,
            reordered=sorted({*books.overtaken(), *_overtaken(books)}),
            missed=sum(span <= HELD_UP for span in missed),
            put_off=sum(span > HELD_UP for span in missed),
            cut_off=books.cut_off,
            stall=_stall(books),
            **leases,
        )
    finally:
        if collecting:
            gc.enable()


def _stall(books: _Books) -> float:
    leased = (instant for deliveries in books.leased.values() for _, instant in deliveries)
    instants = sorted([*books.stored.values(), *(instant for _, instant in books.taken.values()), *leased])
    return max((later - earlier for earlier, later in itertools.pairwise(instants)), default=0) / 1e9


def _overtaken(books: _Books) -> list[tuple[Tag, Tag]]:
    # Sorted by the begin of the put: the end of the get, and the message. The entries come in the order of the ledgers,
    # each already in order of time, which makes sorting fast.
    line = sorted((books.begun[key], end, key) for key, (_, end) in books.taken.items() if key in books.begun)
    begins = [begun for begun, _, _ in line]
    # first[i]: the earliest end of a get among the messages from line[i] on.
    first: list[tuple[float, _Key]] = [(math.inf, ("", ""))] * (len(line) + 1)
    for index in range(len(line) - 1, -1, -1):
        _, end, key = line[index]
        first[index] = (end, key) if end < first[index + 1][0] else first[index + 1]
    pairs: list[tuple[Tag, Tag]] = []
    for key, (since, _) in books.taken.items():
        # A put that never returned came before no other put.
        earliest, other = first[bisect.bisect_right(begins, books.stored.get(key, math.inf))]
        if earliest < since:
            pairs.append((_tag(key), _tag(other)))
    return sorted(pairs)


def _missed(books: _Books) -> list[int]:
    # A killed consumer may have taken any message that was never recorded, so only recorded ones prove anything.
    spans = sorted((books.stored[key], since) for key, (since, _) in books.taken.items() if key in books.stored)
    merged: list[tuple[int, int]] = []
    for begin, end in spans:
        if begin >= end:
            continue
        if merged and begin < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    begins = [begin for begin, _ in merged]
    missed = []
    for since, till in books.empties:
        # Events at the same instant may have come in either order.
        index = bisect.bisect_left(begins, since) - 1
        if index >= 0 and till < merged[index][1]:
            missed.append(till - since)
    return missed
