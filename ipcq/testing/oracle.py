"""The oracle: what processes wrote down about their messages, and the judgement whether a queue can have done that.

It is outside the processes under test. A `Ledger` is a file that only its owner appends to, each entry with one
`write`, so that a kill tears no entry but the last: a producer enters what it is about to do, and then how that ended;
a consumer enters what it took. Messages are made by `Tag.message`, numbered per producer, and `judge` decides from the
ledgers which were lost, duplicated, invented, torn or out of order. Instants are CLOCK_MONOTONIC, one clock for all
processes of a machine.
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

__all__ = ("Ledger", "Tag", "Verdict", "judge")

#: Nanoseconds after which a get that does not wait was held up by somebody inside the queue: on shm it gives up then if
#: that one is stopped.
HELD_UP: Final = 1_000_000

#: So many of the lost messages are named.
NAMED: Final = 5


class Tag(NamedTuple):
    """Which message it is: who put it, and as which of its own."""

    producer: int
    number: int

    def message(self, size: int = 0) -> bytes:
        """Return a message of at least `size` bytes that can be told from every other and from a torn one."""
        head = b"%d.%d." % self
        body = head * (max(size - 9, len(head)) // len(head) + 1)
        body = body[: max(size - 9, len(head))]
        return body + b"#%08x" % zlib.crc32(body)

    @classmethod
    def of(cls, message: object) -> "Tag":
        """Return the tag of a message.

        Raises:
            ValueError: It is not a whole message that `message` made.
        """
        if not isinstance(message, bytes) or b"#%08x" % zlib.crc32(message[:-9]) != message[-9:]:
            raise ValueError(f"not a whole message: {message!r}")
        producer, number, _ = message.split(b".", 2)
        return cls(int(producer), int(number))


class Ledger:
    """What one process did, in a file that survives it.

    Args:
        path: The file; no other process writes to it.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def intend(self, *tags: Tag) -> None:
        """Enter that a put of these messages begins."""
        self._enter_each("?", tags, f"{time.monotonic_ns()}")

    def accepted(self, *tags: Tag) -> None:
        """Enter that the put returned, and stored these messages."""
        self._enter_each("+", tags, f"{time.monotonic_ns()}")

    def refused(self, error: BaseException, *tags: Tag) -> None:
        """Enter that the put of these messages raised."""
        self._enter_each("-", tags, f"{time.monotonic_ns()} {type(error).__name__}")

    def took(self, since: int, *tags: Tag) -> None:
        """Enter that a get, begun at `since` on `time.monotonic_ns`, returned these messages, in this order."""
        self._enter_each("<", tags, f"{since} {time.monotonic_ns()}")

    def torn(self, message: object) -> None:
        """Enter that a get returned something that no producer made."""
        self._enter(f"! {message!r}\n")

    def empty(self, since: int) -> None:
        """Enter that a get that does not wait, begun at `since` on `time.monotonic_ns`, found nothing."""
        self._enter(f"0 {since} {time.monotonic_ns()}\n")

    def end(self) -> None:
        """Enter that nothing more will follow, and give the file back."""
        self._enter(".\n")
        self.close()

    def close(self) -> None:
        """Give the file back."""
        os.close(self._fd)

    def _enter_each(self, kind: str, tags: Iterable[Tag], rest: str) -> None:
        self._enter("".join(f"{kind} {producer} {number} {rest}\n" for producer, number in tags))

    def _enter(self, entry: str) -> None:
        # One write, of which a kill can leave a part where it crosses a page (generic_perform_write, mm/filemap.c).
        os.write(self._fd, entry.encode())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the ledgers say."""

    accepted: int
    """Puts that returned."""
    refused: int
    """Puts that raised."""
    unknown: int
    """Puts during which the producer was killed."""
    received: int
    """Messages that were taken."""
    lost: list[Tag] = field(default_factory=list)
    """Messages of puts that returned which nobody entered; a consumer killed right after its get accounts for those of
    that get."""
    duplicated: list[Tag] = field(default_factory=list)
    """Messages that were taken twice."""
    invented: list[Tag] = field(default_factory=list)
    """Messages that were taken though nobody put them, before anybody did, or though the put raised."""
    torn: list[str] = field(default_factory=list)
    """What was taken and is no whole message."""
    reordered: list[tuple[Tag, Tag]] = field(default_factory=list)
    """Messages that surely overtook an earlier one: the earlier, the later."""
    missed: int = 0
    """Gets that found nothing, without being held up, though at every instant a message was surely there."""
    put_off: int = 0
    """The same of gets that took longer than a millisecond: somebody else was inside the queue all that time,
    stopped or out of the processor, and a get that does not wait gives up then, where the lock is not the kernel's."""
    cut_off: int = 0
    """Consumers that were killed: those whose ledger has no end."""
    stall: float = 0.0
    """The longest time, in seconds, in which no put and no get returned, from the first to the last that did."""

    @property
    def wrong(self) -> dict[str, int]:
        """How often each was seen that a queue may never do; losses are for the caller to judge."""
        return {
            "duplicated": len(self.duplicated),
            "invented": len(self.invented),
            "torn": len(self.torn),
            "reordered": len(self.reordered),
            "missed": self.missed,
        }

    @property
    def sound(self) -> bool:
        """Nothing was duplicated, invented, torn, out of order or missed; losses are for the caller to judge."""
        return not any(self.wrong.values())

    @property
    def losses(self) -> str:
        """The lost messages in words: how many, and the first of them."""
        named = [f"no. {number} of producer {producer}" for producer, number in self.lost[:NAMED]]
        return f"{len(self.lost)} lost ({', '.join(named)}{', …' if len(self.lost) > NAMED else ''})"

    @property
    def faults(self) -> list[str]:
        """What is wrong in words, losses included: empty if every message came once, whole and in its order."""
        lost = [self.losses] if self.lost else []
        return lost + [f"{count} {what}" for what, count in self.wrong.items() if count]

    def __add__(self, other: "Verdict") -> "Verdict":
        """Return the verdict over both queues."""
        both = {each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)}
        return Verdict(**{**both, "stall": max(self.stall, other.stall)})

    def __str__(self) -> str:
        return (
            f"{self.accepted} accepted, {self.refused} refused, {self.unknown} unknown, {self.received} received, "
            f"{len(self.lost)} lost, {len(self.duplicated)} duplicated, {len(self.invented)} invented, "
            f"{len(self.torn)} torn, {len(self.reordered)} reordered, {self.missed} missed, {self.put_off} put off"
        )


# A message as the ledgers spell it: producer and number. Millions of entries are read, so nothing is built from them
# that is not needed.
_Key: TypeAlias = tuple[str, str]


@dataclass(slots=True)
class _Books:
    """What the ledgers say, by message, with instants in nanoseconds."""

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
    received: int = 0
    cut_off: int = 0

    def read_producer(self, path: Path) -> None:
        for line in _entries(path):
            if line == ".":
                continue
            kind, producer, number, instant, *_ = line.split(" ")
            if kind == "?":
                self.begun[producer, number] = int(instant)
            elif kind == "+":
                self.stored[producer, number] = int(instant)
            else:
                self.refused.add((producer, number))

    def read_consumer(self, path: Path) -> None:
        latest: dict[str, int] = {}
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
            else:
                ended = True
        self.cut_off += not ended

    def overtaken(self) -> Iterator[tuple[Tag, Tag]]:
        """Yield the swapped messages that were put one after the other, or in one batch in this order."""
        for earlier, later in self.swapped:
            begun = self.begun.get(later)
            if begun is not None and (self.begun.get(earlier) == begun or self.stored.get(earlier, math.inf) < begun):
                yield _tag(earlier), _tag(later)

    def invented(self) -> set[_Key]:
        early = {key for key, (_, end) in self.taken.items() if end < self.begun.get(key, end)}
        return (self.taken.keys() - self.begun.keys()) | (self.taken.keys() & self.refused) | early


def _entries(path: Path) -> list[str]:
    # What is behind the last end of a line is a part of an entry, and counts as not entered.
    return path.read_text().split("\n")[:-1]


def _tag(key: _Key) -> Tag:
    return Tag(*map(int, key))


def _tags(keys: Iterable[_Key]) -> list[Tag]:
    return sorted(map(_tag, keys))


def judge(producers: Iterable[Path], consumers: Iterable[Path]) -> Verdict:
    """Judge by the ledgers whether one FIFO queue can have done this, in O(n log n).

    A history in which every message is another one is that of a FIFO queue if and only if it shows none of four bad
    patterns: a *fresh* message, taken though nobody put it, or before anybody began to (`Verdict.invented`); a
    *repeated* one (`Verdict.duplicated`); an *inverted* pair, whose puts came one after the other and whose gets came
    one after the other the other way round (`Verdict.reordered`); and a *wrong empty*, a get that found nothing though
    messages that were surely there cover all of its time (`Verdict.missed`). "After" means that one call had returned
    before the other began, so that calls at the same time may have taken effect in either order. What was lost counts
    apart, since of a killed consumer nobody knows what it had taken.

    The patterns are those of Henzinger, Sezgin and Vafeiadis, "Aspect-oriented linearizability proofs" (CONCUR 2013,
    theorem 1), and of Bouajjani, Emmi, Enea and Hamza, "On reducing linearizability to state reachability" (ICALP
    2015). What a queue with a capacity may say of being full is for `ipcq.testing.histories`.
    """
    books = _Books()
    # The collector would walk through millions of live entries again and again.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for path in producers:
            books.read_producer(path)
        for path in consumers:
            books.read_consumer(path)
        missed = _missed(books)
        return Verdict(
            accepted=len(books.stored),
            refused=len(books.refused),
            unknown=len(books.begun.keys() - books.stored.keys() - books.refused),
            received=books.received,
            lost=_tags(books.stored.keys() - books.taken.keys()),
            duplicated=_tags(books.again),
            invented=_tags(books.invented()),
            torn=books.torn,
            reordered=sorted({*books.overtaken(), *_overtaken(books)}),
            missed=sum(span <= HELD_UP for span in missed),
            put_off=sum(span > HELD_UP for span in missed),
            cut_off=books.cut_off,
            stall=_stall(books),
        )
    finally:
        if collecting:
            gc.enable()


def _stall(books: _Books) -> float:
    instants = sorted([*books.stored.values(), *(instant for _, instant in books.taken.values())])
    return max((later - earlier for earlier, later in itertools.pairwise(instants)), default=0) / 1e9


def _overtaken(books: _Books) -> list[tuple[Tag, Tag]]:
    # By the beginning of the put: when the get returned, and whose.
    # In the order of the ledgers, and not of a set's: each is in the order of time already, which makes sorting fast.
    line = sorted((books.begun[key], end, key) for key, (_, end) in books.taken.items() if key in books.begun)
    begins = [begun for begun, _, _ in line]
    # first[i]: the earliest end of a get among the messages from line[i] on.
    first: list[tuple[float, _Key]] = [(math.inf, ("", ""))] * (len(line) + 1)
    for index in range(len(line) - 1, -1, -1):
        _, end, key = line[index]
        first[index] = (end, key) if end < first[index + 1][0] else first[index + 1]
    pairs: list[tuple[Tag, Tag]] = []
    for key, (since, _) in books.taken.items():
        # Whose put never returned came before nobody's.
        earliest, other = first[bisect.bisect_right(begins, books.stored.get(key, math.inf))]
        if earliest < since:
            pairs.append((_tag(key), _tag(other)))
    return sorted(pairs)


def _missed(books: _Books) -> list[int]:
    # A message that was put and never taken may be one that a killed consumer had, so only taken ones witness.
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
        # What has the same instant may have come in either order.
        index = bisect.bisect_left(begins, since) - 1
        if index >= 0 and till < merged[index][1]:
            missed.append(till - since)
    return missed
