"""Messages of the benchmarks, and the check that each arrives exactly once, intact and in order.

Making and checking a message must be much cheaper than putting it, or the harness would dominate the figures of fast
contestants. So one producer and one consumer move a `Cycle` of messages made in advance. The first message of a cycle
carries its number, and the consumer compares whole lists in C; the counts of both sides must agree as well. Cycles of
the largest messages are too short to remake one each time, and repeat unchanged. With several producers or consumers,
messages are `Numbered` by their producer and tallied afterwards. In both cases a consumer reports a `Tally`, and
`judge_tallies` compares it with what was put.
"""

import struct
from array import array
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ipcq._bench.workload import KIB, MIB, SMALL, Workload
from ipcq.testing.tally import Tally

#: Messages of a cycle.
LONGEST, SHORTEST = 128, 4

#: Cycles of at least this many messages are numbered.
NUMBERED = 16

#: Above this size, only every 17th message is compared in full: comparing costs as much as moving.
LARGE = 4 * KIB
EVERY = 17
EDGE = 16

#: Bits to shift the producer in the number of a message.
PRODUCER = 48

Shape = Callable[[Mapping[str, Any]], Any]


class Wrong(Exception):
    """A message is not the expected one: some message was lost, duplicated, reordered or damaged."""


class Payloads(Protocol):
    """The messages of one sample: the producer makes blocks of them, the consumer checks them."""

    stop: Any
    """The message that marks the end."""
    step: int
    """How many messages a consumer takes before it checks them."""

    def block(self) -> list[Any]:
        """Return the next messages to put."""
        ...

    def take(self, messages: list[Any]) -> None:
        """Check received messages."""
        ...

    def report(self) -> dict[str, Any]:
        """Return the report of a `Tally` of the received messages."""
        ...


class Cycle:
    """A repeated list of messages, for one producer and one consumer.

    Args:
        workload: The workload.
        shape: Makes an object from the fields of a small dict.
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
            raise Wrong(f"message {self._count} is damaged or not the expected one")
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
            raise Wrong(f"message {number} is lost, duplicated, damaged or out of order")
        self._cycle += 1


class Numbered:
    """64-byte messages with producer and number, for several producers or consumers."""

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
        # The first 8-byte word of each 64-byte message.
        self._numbers.frombytes(memoryview(b"".join(messages)).cast("Q")[:: SMALL // 8].tobytes())

    def report(self) -> dict[str, Any]:
        tally, mask = Tally(), (1 << PRODUCER) - 1
        for each in self._numbers:
            tally.took(each >> PRODUCER, each & mask)
        return tally.report()


def data(number: int, size: int) -> bytes:
    """Return a message of bytes with its number at both ends; number -1 marks the end."""
    head = (number & (1 << 64) - 1).to_bytes(8, "little")
    return head + bytes(size - 16) + head


def edges(message: bytes) -> tuple[int, bytes, bytes]:
    """Return length and both ends of a large message, which identify it cheaply."""
    return len(message), message[:EDGE], message[-EDGE:]


def fields(number: int) -> dict[str, Any]:
    """Return the fields of a small dict."""
    return {"id": number, "name": "sensor-17", "value": 21.5, "valid": True, "tags": ["north", "roof"]}
