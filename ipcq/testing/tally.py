"""Tallies: the set of messages that a consumer took, one bit for each, and the verdict over all tallies.

A tally costs one memory access for each message, while a `Ledger` costs a write, so runs that measure speed use
tallies. A tally has no instants and is lost with its process, so runs that kill processes use ledgers
(`ipcq.testing.oracle`).
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Self

from ipcq.testing.oracle import Tag, Verdict

__all__ = ("Tally", "judge_tallies")

#: The longest gap in a producer's numbers. A number after a longer gap was never put, and would take too many bits.
GAP: Final = 1 << 30

#: The bits of a producer grow by this number of bytes.
GROWTH: Final = 4096


class Tally:
    """The messages that one consumer took; each producer numbers its messages from 0 on."""

    def __init__(self) -> None:
        self._received = 0
        self._bits: dict[int, bytearray] = {}
        self._latest: dict[int, int] = {}
        self._again: list[Tag] = []
        self._swapped: list[tuple[Tag, Tag]] = []
        self._invented: list[Tag] = []
        self._torn: list[str] = []

    @classmethod
    def of_first(cls, count: int) -> Self:
        """Return the tally of a consumer that took the first `count` messages of producer 0, in order."""
        tally = cls()
        tally._received = count
        tally._bits[0] = bytearray(((1 << count) - 1).to_bytes((count + 7) // 8, "little"))
        return tally

    def took(self, producer: int, number: int) -> None:
        """Record a message."""
        self._received += 1
        bits = self._bits.setdefault(producer, bytearray())
        place, mask = number >> 3, 1 << (number & 7)
        if number < 0 or place - len(bits) > GAP >> 3:
            self._invented.append(Tag(producer, number))
            return
        if place >= len(bits):
            bits.extend(bytes(place - len(bits) + GROWTH))
        if bits[place] & mask:
            self._again.append(Tag(producer, number))
            return
        bits[place] |= mask
        latest = self._latest.get(producer, -1)
        if number < latest:
            self._swapped.append((Tag(producer, number), Tag(producer, latest)))
        else:
            self._latest[producer] = number

    def torn(self, message: object) -> None:
        """Record a value that no producer put."""
        self._received += 1
        self._torn.append(repr(message)[:80])

    def report(self) -> dict[str, Any]:
        """Return the tally as a JSON-compatible value, for `judge_tallies`."""
        return {
            "received": self._received,
            "seen": {str(producer): b64encode(bits).decode("ascii") for producer, bits in self._bits.items()},
            "again": self._again,
            "swapped": self._swapped,
            "invented": self._invented,
            "torn": self._torn,
        }


def judge_tallies(sent: Sequence[int], reports: Sequence[Mapping[str, Any]]) -> Verdict:
    """Judge whether each message was taken exactly once, and in its producer's order at each consumer.

    Args:
        sent: Number of messages that each producer put.
        reports: The report of each consumer's tally.
    """
    union: dict[int, int] = {}
    again: list[Tag] = []
    invented: list[Tag] = []
    for report in reports:
        again += (Tag(*each) for each in report["again"])
        invented += (Tag(*each) for each in report["invented"])
        for name, text in report["seen"].items():
            # One large int for each producer's bits, so that a set operation is a single call.
            producer, seen = int(name), int.from_bytes(b64decode(text), "little")
            again += _tags(producer, union.get(producer, 0) & seen)
            union[producer] = union.get(producer, 0) | seen
    lost: list[Tag] = []
    for producer in sorted({*union, *range(len(sent))}):
        put = (1 << sent[producer]) - 1 if 0 <= producer < len(sent) else 0
        seen = union.get(producer, 0)
        lost += _tags(producer, put & ~seen)
        invented += _tags(producer, seen & ~put)
    return Verdict(
        accepted=sum(sent),
        refused=0,
        unknown=0,
        received=sum(report["received"] for report in reports),
        lost=lost,
        duplicated=again,
        invented=invented,
        torn=[text for report in reports for text in report["torn"]],
        reordered=[(Tag(*earlier), Tag(*later)) for report in reports for earlier, later in report["swapped"]],
    )


def _tags(producer: int, bits: int) -> Iterator[Tag]:
    """Yield the tags of the set bits."""
    for place, byte in enumerate(bits.to_bytes((bits.bit_length() + 7) // 8, "little")):
        if byte:
            yield from (Tag(producer, place * 8 + bit) for bit in range(8) if byte >> bit & 1)
