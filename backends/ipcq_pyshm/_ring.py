"""The order of a plain queue: records one behind the other in a ring of bytes."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

from ipcq.backend import Attributes, Received
from ipcq.errors import CorruptQueue
from ipcq_pyshm._layout import DATA_AT, READY, RECORD, Geometry, State

Read: TypeAlias = Callable[[int, int], bytes]
Write: TypeAlias = Callable[[int, bytes], None]
#: Entries of the heap that a step moved, by their index.
Cells: TypeAlias = Sequence[tuple[int, int, int]]

#: Read with a record's header, so that a small message takes one call.
_AHEAD: Final = 1024


class Order(Protocol):
    """Where messages are stored and which is next. What changes is the state alone, which the caller commits."""

    def check(self, state: State) -> bool:
        """Tell whether the state's numbers are within this queue's bounds and agree with each other."""
        ...

    def fits(self, state: State, size: int) -> bool:
        """Tell whether a message of `size` bytes fits now."""
        ...

    def store(self, state: State, data: bytes, priority: int) -> Cells:
        """Store a message that fits."""
        ...

    def store_many(self, state: State, batch: Sequence[bytes]) -> int:
        """Store the prefix that fits, of priority 0, and count it."""
        ...

    def take(self, state: State) -> tuple[Received, Cells]:
        """Take the next message of a queue that has one."""
        ...

    def look(self, state: State) -> Received:
        """Return the next message of a queue that has one."""
        ...

    def drop(self, state: State) -> None:
        """Take all messages."""
        ...

    def apply(self, cells: Cells) -> None:
        """Write entries where they belong."""
        ...


def record(data: bytes) -> bytes:
    return RECORD.pack(len(data), 0, 0, READY) + data


def length_of(raw: bytes, most: int) -> int:
    """Return the length of the message whose record begins here.

    Raises:
        CorruptQueue: There is none of at most `most` bytes.
    """
    length, _, _, state = RECORD.unpack_from(raw)
    if state != READY or length > most:
        raise CorruptQueue
    return int(length)


class Ring(Order):
    def __init__(self, attributes: Attributes, geometry: Geometry, read: Read, write: Write) -> None:
        self._size = geometry.ring
        self._most_messages = attributes.max_messages or geometry.ring
        self._most_bytes = attributes.buffer_size or geometry.ring
        self._longest = attributes.max_message_size
        self._read_at = read
        self._write_at = write

    def check(self, state: State) -> bool:
        used = state.tail - state.head
        return used <= self._size and used == state.bytes + state.count * RECORD.size

    def fits(self, state: State, size: int) -> bool:
        return (
            state.count < self._most_messages
            and state.bytes + size <= self._most_bytes
            and state.tail - state.head + RECORD.size + size <= self._size
        )

    def store(self, state: State, data: bytes, priority: int) -> Cells:
        self._write(state.tail, record(data))
        state.tail += RECORD.size + len(data)
        state.stored(1, len(data))
        return ()

    def store_many(self, state: State, batch: Sequence[bytes]) -> int:
        begin, records = state.tail, []
        for data in batch:
            if not self.fits(state, len(data)):
                break
            records.append(record(data))
            state.tail += RECORD.size + len(data)
            state.stored(1, len(data))
        self._write(begin, b"".join(records))
        return len(records)

    def take(self, state: State) -> tuple[Received, Cells]:
        received = self.look(state)
        size = len(received[0])
        state.head += RECORD.size + size
        state.taken(1, size)
        return received, ()

    def look(self, state: State) -> Received:
        used = state.tail - state.head
        raw = self._read(state.head, min(used, RECORD.size + _AHEAD))
        end = RECORD.size + length_of(raw, min(self._longest, used - RECORD.size))
        if end > len(raw):
            raw += self._read(state.head + len(raw), end - len(raw))
        return raw[RECORD.size : end], 0

    def drop(self, state: State) -> None:
        state.head = state.tail
        state.taken(state.count, state.bytes)

    def apply(self, cells: Cells) -> None:
        raise CorruptQueue  # a plain queue moves nothing

    def _read(self, position: int, size: int) -> bytes:
        at = position % self._size
        first = min(size, self._size - at)
        raw = self._read_at(DATA_AT + at, first)
        return raw if first == size else raw + self._read_at(DATA_AT, size - first)

    def _write(self, position: int, data: bytes) -> None:
        at = position % self._size
        first = self._size - at
        if len(data) <= first:
            self._write_at(DATA_AT + at, data)
        else:
            self._write_at(DATA_AT + at, data[:first])
            self._write_at(DATA_AT, data[first:])
