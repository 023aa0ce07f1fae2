"""The order of a queue without priorities: consecutive records in a ring of bytes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from ipcq.backend import Attributes, Received
from ipcq.errors import CorruptQueue
from ipcq_pyshm._layout import DATA_AT, READY, RECORD, Geometry, State

Read: TypeAlias = Callable[[int, int], bytes]
Write: TypeAlias = Callable[[int, bytes], None]
#: What a commit moves, for the redo record: index, key and first block of each heap entry, or offset and bytes.
Cells: TypeAlias = Sequence[tuple[Any, ...]]
S_contra = TypeVar("S_contra", bound=State, contravariant=True)

#: Read together with a record's header, so that one call reads several small messages.
_AHEAD_BYTES: Final = 1024


class Place(NamedTuple):
    """A ready message, without its bytes."""

    key: int
    """What orders it: inverted priority and number; in a ring its position."""
    block: int
    """Its first block; 0 in a ring."""
    size: int
    """The number of its bytes."""


def index_of(entries: Sequence[tuple[int, int]], place: Place) -> int:
    """Return the index of a message's heap entry.

    Raises:
        CorruptQueue: There is none.
    """
    try:
        return entries.index((place.key, place.block))
    except ValueError:
        raise CorruptQueue from None


class Order(Protocol[S_contra]):
    """The placement and order of messages. Methods change only the `State`, which the caller commits."""

    def check(self, state: S_contra) -> bool:
        """Return whether the state is consistent and within the queue's limits."""
        ...

    def fits(self, state: S_contra, size: int) -> bool:
        """Return whether a message of `size` bytes fits now."""
        ...

    def store(self, state: S_contra, data: bytes, priority: int) -> Cells:
        """Store a message; the caller has checked that it fits."""
        ...

    def store_many(self, state: S_contra, batch: Sequence[bytes]) -> int:
        """Store the messages from the front that fit, with priority 0, and return their number."""
        stored = 0
        for data in batch:
            if not self.fits(state, len(data)):
                break
            self.store(state, data, 0)  # returns no cells: an entry of the lowest priority moves no other
            stored += 1
        return stored

    def take(self, state: S_contra) -> tuple[Received, Cells]:
        """Take the next message; the queue must not be empty."""
        ...

    def look(self, state: S_contra) -> Received:
        """Return the next message without taking it; the queue must not be empty."""
        ...

    def drop(self, state: S_contra) -> None:
        """Discard all messages."""
        ...

    def droppable(self, state: S_contra, priority: int) -> Iterator[Place]:
        """Yield the messages that a message of this priority may replace, in the order in which they are dropped."""
        ...

    def latest(self, state: S_contra) -> list[Place]:
        """Return the messages of the highest priority, the oldest first; the queue must not be empty."""
        ...

    def forget(self, state: S_contra, place: Place) -> None:
        """Count a message as gone, so that `fits` tells what would fit without it."""
        ...

    def remove(self, state: S_contra, place: Place) -> Cells:
        """Remove a message: with priorities any, otherwise the next one."""
        ...

    def read(self, place: Place) -> Received:
        """Return a message."""
        ...

    def has_spare(self, state: S_contra, size: int) -> bool:
        """Return whether a message has room in the file beside all others, also if the limits forbid it."""
        return False

    def packed(self, cells: Cells) -> tuple[bytes, int]:
        """Return the redo record of these cells, and how a state refers to it."""
        ...

    def apply(self, cells: Cells) -> None:
        """Write cells to their places."""
        ...


def record(data: bytes) -> bytes:
    return RECORD.pack(len(data), 0, 0, READY) + data


def length_of(raw: bytes, most: int, at: int = 0) -> int:
    """Return the length in bytes of the message whose record begins at `at` in `raw`.

    Raises:
        CorruptQueue: It is not a record of at most `most` bytes.
    """
    length, _, _, state = RECORD.unpack_from(raw, at)
    if state != READY or length > most:
        raise CorruptQueue
    return int(length)


class Ring(Order[State]):
    def __init__(self, attributes: Attributes, geometry: Geometry, read: Read, write: Write) -> None:
        self._size = geometry.ring
        self._most_messages = attributes.max_messages or geometry.ring
        self._most_bytes = attributes.buffer_size or geometry.ring
        self._longest = attributes.max_message_size
        self._read_at = read
        self._write_at = write
        # Bytes of committed records that were read ahead, and the position of the first. A position is used once, and
        # committed records do not change until they are taken, so these bytes stay valid.
        self._ahead: tuple[int, bytes] = (0, b"")

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
        raw = record(data)
        at = state.tail % self._size
        if at + len(raw) <= self._size:
            self._write_at(DATA_AT + at, raw)
        else:
            self._write(state.tail, raw)
        state.tail += len(raw)
        state.count += 1
        state.bytes += len(data)
        state.puts += 1
        return ()

    def store_many(self, state: State, batch: Sequence[bytes]) -> int:
        begin, records = state.tail, []
        for data in batch:
            if not self.fits(state, len(data)):
                break
            records.append(record(data))
            state.tail += RECORD.size + len(data)
            state.count += 1
            state.bytes += len(data)
            state.puts += 1
        self._write(begin, b"".join(records))
        return len(records)

    def take(self, state: State) -> tuple[Received, Cells]:
        received = self.look(state)
        size = len(received[0])
        state.head += RECORD.size + size
        state.count -= 1
        state.bytes -= size
        state.gets += 1
        return received, ()

    def look(self, state: State) -> Received:
        head = state.head
        used = state.tail - head
        most = min(self._longest, used - RECORD.size)
        position, raw = self._ahead
        begin = head - position
        if 0 <= begin <= len(raw) - RECORD.size:
            try:
                end = begin + RECORD.size + length_of(raw, most, begin)
            except CorruptQueue:
                end = len(raw) + 1  # see what is in the file now
            if end <= len(raw):
                return raw[begin + RECORD.size : end], 0
        at = head % self._size
        raw = self._read_at(DATA_AT + at, min(used, RECORD.size + _AHEAD_BYTES, self._size - at))
        self._ahead = head, raw
        if len(raw) < RECORD.size:  # the rest of it is at the beginning of the ring
            raw += self._read(head + len(raw), RECORD.size - len(raw))
        end = RECORD.size + length_of(raw, most)
        if end > len(raw):
            raw += self._read(head + len(raw), end - len(raw))
        return raw[RECORD.size : end], 0

    def drop(self, state: State) -> None:
        state.head = state.tail
        state.gets += state.count
        state.count = state.bytes = 0

    def droppable(self, state: State, priority: int) -> Iterator[Place]:
        position = state.head
        for _ in range(state.count):
            size = length_of(self._read(position, RECORD.size), min(self._longest, state.tail - position - RECORD.size))
            yield Place(position, 0, size)
            position += RECORD.size + size

    def latest(self, state: State) -> list[Place]:
        return list(self.droppable(state, 0))

    def forget(self, state: State, place: Place) -> None:
        state.head += RECORD.size + place.size
        state.count -= 1
        state.bytes -= place.size

    def remove(self, state: State, place: Place) -> Cells:
        self.forget(state, place)
        state.gets += 1
        return ()

    def read(self, place: Place) -> Received:
        return self._read(place.key + RECORD.size, place.size), 0

    def has_spare(self, state: State, size: int) -> bool:
        return state.tail - state.head + RECORD.size + size <= self._size

    def packed(self, cells: Cells) -> tuple[bytes, int]:
        raise NotImplementedError  # pragma: no cover - a ring moves nothing

    def apply(self, cells: Cells) -> None:
        raise CorruptQueue  # only queues with priorities or leases have a redo record

    def _read(self, position: int, size: int) -> bytes:
        at = position % self._size
        first = min(size, self._size - at)
        raw = self._read_at(DATA_AT + at, first)
        return raw if first == size else raw + self._read_at(DATA_AT, size - first)

    def _write(self, position: int, data: bytes) -> None:
        at = position % self._size
        first = self._size - at
        self._write_at(DATA_AT + at, data[:first])
        if len(data) > first:
            self._write_at(DATA_AT, data[first:])
