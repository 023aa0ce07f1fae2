"""The messages that are moved, and the check that each came exactly once, in order and whole.

Making and checking a message must cost next to nothing beside putting it, or the fastest contestant would be measured
by the harness. So one producer and one consumer move a `Cycle` of messages made in advance, of which the first also
tells the number of the cycle, and the consumer compares lists of them in one step of C; both sides' counts have to
agree as well. Cycles of the largest messages are too short to make one of them anew each time, and repeat unchanged.
Where there are several producers or consumers each message is `Numbered` by its producer, and the numbers are entered
afterwards. Either way a consumer's report is that of a `Tally`, and `judge_tallies` compares it with what was put.
"""

import struct
from array import array
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ipcq._bench.workload import KIB, MIB, SMALL, Workload
from ipcq.testing.tally import Tally

#: Messages of a cycle.
LONGEST, SHORTEST = 128, 4

#: Cycles of that many messages or more have a number.
NUMBERED = 16

#: Above it not every message is compared in full: that would cost as much as moving it.
LARGE = 4 * KIB
EVERY = 17
EDGE = 16

#: Bits of a number that are the producer's.
PRODUCER = 48

Shape = Callable[[Mapping[str, Any]], Any]


class Wrong(Exception):
    """A message is not the one that had to come: one was lost, came twice, out of order or damaged."""


class Payloads(Protocol):
    """What is moved in one sample: a producer makes blocks, and a consumer checks what it takes."""

    stop: Any
    """The message that says that it was the last."""
    step: int
    """How many messages a consumer takes before it checks them."""

    def block(self) -> list[Any]:
        """Return the next messages to put."""
        ...

    def take(self, messages: list[Any]) -> None:
        """Check what was taken."""
        ...

    def report(self) -> dict[str, Any]:
        """Return the report of a `Tally` of what was taken."""
        ...


class Cycle:
    """Messages that come round and round, for one producer and one consumer.

    Args:
        workload: What it is for.
        shape: Makes an object out of the fields of a small dict.
        number: Returns the number of such an object.
    """

    def __init__(self, workload: Workload, shape: Shape, number: Callable[[Any], int]) -> None:
        size = workload.size
        length = workload.batch or max(SHORTEST, min(LONGEST, MIB // size))
        self._make = (lambda index: shape(fields(index))) if workload.objects else (lambda index: data(index, size))
        self._large = not workload.objects and size > LARGE
        self._mark = number if workload.objects else edges if self._large else None
        self._numbered = length >= NUMBERED
        self._messages = [self._make(index) for index in range(length)]
        self._expected = self._marks(self._messages)
        self._pending: list[Any] = []
        self._cycle = 0
        self._count = 0
        self.step = 1 if self._large else length
        self.stop = self._make(-1)

    def block(self) -> list[Any]:
        if self._numbered:
            self._messages[0] = self._make(self._cycle + len(self._messages))
            self._cycle += 1
        return self._messages

    def take(self, messages: list[Any]) -> None:
        length = len(self._messages)
        if self._large and not self._count % EVERY and messages[0] != self._whole(self._count % length):
            raise Wrong(f"message {self._count} is damaged, or not the one that has to come")
        self._count += len(messages)
        self._pending += self._marks(messages)
        while len(self._pending) >= length:
            self._compare(length)

    def report(self) -> dict[str, Any]:
        self._compare(len(self._pending))
        return Tally.of_first(self._count).report()

    def _marks(self, messages: list[Any]) -> list[Any]:
        return messages if self._mark is None else list(map(self._mark, messages))

    def _whole(self, index: int) -> Any:
        if self._numbered and not index:
            return self._make(self._cycle + len(self._messages))
        return self._messages[index]

    def _compare(self, length: int) -> None:
        if self._numbered:
            self._expected[:1] = self._marks([self._make(self._cycle + len(self._messages))])
        came, self._pending = self._pending[:length], self._pending[length:]
        if came != self._expected[:length]:
            at = next(index for index, mark in enumerate(came) if mark != self._expected[index])
            number = self._cycle * len(self._messages) + at
            raise Wrong(f"message {number} is lost, doubled, damaged or out of order")
        self._cycle += 1


class Numbered:
    """Messages of 64 B that each tell their producer and their number, for several producers or consumers."""

    def __init__(self, producer: int) -> None:
        self._base = producer << PRODUCER
        self._next = 0
        self._numbers = array("Q")
        self._pack = struct.Struct(f"=Q{SMALL - 8}x").pack
        self.step = LONGEST
        self.stop = data(-1, SMALL)

    def block(self) -> list[bytes]:
        first = self._base + self._next
        self._next += LONGEST
        return list(map(self._pack, range(first, first + LONGEST)))

    def take(self, messages: list[bytes]) -> None:
        # Every eighth word of 8 bytes, of messages of 64.
        self._numbers.frombytes(memoryview(b"".join(messages)).cast("Q")[:: SMALL // 8].tobytes())

    def report(self) -> dict[str, Any]:
        tally, mask = Tally(), (1 << PRODUCER) - 1
        for each in self._numbers:
            tally.took(each >> PRODUCER, each & mask)
        return tally.report()


def data(number: int, size: int) -> bytes:
    """Return a message of bytes; its number is at both ends, and -1 is the last."""
    head = (number & (1 << 64) - 1).to_bytes(8, "little")
    return head + bytes(size - 16) + head


def edges(message: bytes) -> tuple[int, bytes, bytes]:
    """Return what tells a large message from others, at little cost."""
    return len(message), message[:EDGE], message[-EDGE:]


def fields(number: int) -> dict[str, Any]:
    """Return a small dict."""
    return {"id": number, "name": "sensor-17", "value": 21.5, "valid": True, "tags": ["north", "roof"]}
