"""The order of a queue with priorities: messages are chains of blocks, ordered by a binary heap in the file."""

from collections.abc import Iterator
from typing import Final
from zlib import crc32

from ipcq.backend import HIGHEST_PRIORITY, Attributes, Received
from ipcq.errors import CorruptQueue
from ipcq_pyshm._chains import Chains
from ipcq_pyshm._layout import CELL, ENTRY, LINK, RECORD, Geometry, State
from ipcq_pyshm._ring import Cells, Order, Place, Read, Write, index_of, length_of, record

#: A key is the inverted priority, so that the smallest key is next, and in its low bits the number of the put.
NUMBER_BITS: Final = 48


class Heap(Chains, Order[State]):
    def __init__(self, attributes: Attributes, geometry: Geometry, read: Read, write: Write) -> None:
        super().__init__(geometry, read, write)
        self._most_messages = attributes.max_messages or geometry.blocks
        self._most_bytes = attributes.buffer_size or geometry.size
        self._longest = attributes.max_message_size

    def check(self, state: State) -> bool:
        blocks = self._geometry.blocks
        return state.count + state.spare <= blocks and state.count <= self._most_messages

    def fits(self, state: State, size: int) -> bool:
        return (
            state.count < self._most_messages
            and state.bytes + size <= self._most_bytes
            and self._blocks(size) <= state.spare
        )

    def store(self, state: State, data: bytes, priority: int) -> Cells:
        first = state.free
        needed = self._blocks(len(data))
        chain = self._chain(first, needed)
        self._spread(chain, record(data))
        key = HIGHEST_PRIORITY - priority << NUMBER_BITS | state.puts & (1 << NUMBER_BITS) - 1
        cells = self._up(state.count, key, first)
        state.spare -= needed
        # The last block has no valid link.
        state.free = self._link(chain[-1]) if state.spare else 0
        state.count += 1
        state.bytes += len(data)
        state.puts += 1
        if len(cells) > 1:
            return cells
        self.apply(cells)  # it is beyond the end of the heap, where space is free
        return ()

    def take(self, state: State) -> tuple[Received, Cells]:
        received, chain = self._top()
        self._write(self._geometry.links_at + chain[-1] * LINK.size, LINK.pack(state.free))
        state.free = chain[0]
        state.spare += len(chain)
        cells = self._down(state.count - 1)
        state.count -= 1
        state.bytes -= len(received[0])
        state.gets += 1
        return received, cells

    def look(self, state: State) -> Received:
        return self._top()[0]

    def drop(self, state: State) -> None:
        # Prepend each chain to the free chain by writing the link of its last block. The other links must stay as they
        # are: until the commit the old state uses them.
        for index in range(state.count):
            _, first = self._entry(index)
            chain = self._message(first)[1]
            self._write(self._geometry.links_at + chain[-1] * LINK.size, LINK.pack(state.free))
            state.free = first
            state.spare += len(chain)
        state.gets += state.count
        state.count = state.bytes = 0

    def droppable(self, state: State, priority: int) -> Iterator[Place]:
        inverted = HIGHEST_PRIORITY - priority
        entries = [entry for entry in self._entries(state) if entry[0] >> NUMBER_BITS >= inverted]
        return map(self._place, sorted(entries, key=lambda entry: (-(entry[0] >> NUMBER_BITS), entry[0])))

    def latest(self, state: State) -> list[Place]:
        entries = self._entries(state)
        first = entries[0][0] >> NUMBER_BITS
        return [self._place(entry) for entry in sorted(entries) if entry[0] >> NUMBER_BITS == first]

    def forget(self, state: State, place: Place) -> None:
        state.count -= 1
        state.bytes -= place.size
        state.spare += self._blocks(place.size)

    def remove(self, state: State, place: Place) -> Cells:
        chain = self._chain(place.block, self._blocks(place.size))
        self._write(self._geometry.links_at + chain[-1] * LINK.size, LINK.pack(state.free))
        state.free = place.block
        cells = self._fill(index_of(self._entries(state), place), state.count - 1)
        self.forget(state, place)
        state.gets += 1
        return cells

    def read(self, place: Place) -> Received:
        return self._message(place.block)[0], HIGHEST_PRIORITY - (place.key >> NUMBER_BITS)

    def packed(self, cells: Cells) -> tuple[bytes, int]:
        raw = b"".join(CELL.pack(*cell) for cell in cells)
        return raw, len(cells) << 32 | crc32(raw)

    def apply(self, cells: Cells) -> None:
        for index, key, block in cells:
            if index >= self._geometry.blocks:
                raise CorruptQueue
            self._write(self._geometry.heap_at + index * ENTRY.size, ENTRY.pack(key, block))

    # The heap

    def _up(self, index: int, key: int, block: int) -> list[tuple[int, int, int]]:
        """Sift a new entry up from `index`, and return the entries that move."""
        cells = []
        while index:
            above = (index - 1) // 2
            other = self._entry(above)
            if other[0] <= key:
                break
            cells.append((index, *other))
            index = above
        return [*cells, (index, key, block)]

    def _fill(self, index: int, count: int) -> list[tuple[int, int, int]]:
        """Fill the gap at `index` with the last entry, at index `count`, and return the entries that move."""
        if index and index < count:
            key, block = self._entry(count)
            if key < self._entry((index - 1) // 2)[0]:
                return self._up(index, key, block)
        return self._down(count, index)

    def _down(self, count: int, index: int = 0) -> list[tuple[int, int, int]]:
        """Sift the last entry, at index `count`, down from `index`, and return the entries that move."""
        cells: list[tuple[int, int, int]] = []
        if index == count:
            return cells
        key, block = self._entry(count)
        while (below := 2 * index + 1) < count:
            other = self._entry(below)
            if below + 1 < count and (right := self._entry(below + 1)) < other:
                below, other = below + 1, right
            if key <= other[0]:
                break
            cells.append((index, *other))
            index = below
        return [*cells, (index, key, block)]

    def _entry(self, index: int) -> tuple[int, int]:
        key, block = ENTRY.unpack(self._read(self._geometry.heap_at + index * ENTRY.size, ENTRY.size))
        return key, block

    def _entries(self, state: State) -> list[tuple[int, int]]:
        return list(ENTRY.iter_unpack(self._read(self._geometry.heap_at, state.count * ENTRY.size)))

    # The messages

    def _place(self, entry: tuple[int, int]) -> Place:
        key, block = entry
        self._chain(block, 1)  # checks the number
        at = self._geometry.blocks_at + block * self._geometry.block
        size = length_of(self._read(at, RECORD.size), self._longest)
        if key >> NUMBER_BITS > HIGHEST_PRIORITY:
            raise CorruptQueue
        return Place(key, block, size)

    def _top(self) -> tuple[Received, list[int]]:
        key, first = self._entry(0)
        priority = HIGHEST_PRIORITY - (key >> NUMBER_BITS)
        if priority < 0:
            raise CorruptQueue
        data, chain = self._message(first)
        return (data, priority), chain

    def _message(self, first: int) -> tuple[bytes, list[int]]:
        geometry = self._geometry
        self._chain(first, 1)
        raw = self._read(geometry.blocks_at + first * geometry.block, min(geometry.block, RECORD.size + self._longest))
        end = RECORD.size + length_of(raw, self._longest)
        chain = self._chain(first, -(-end // geometry.block))
        return self._gathered(chain, end)[RECORD.size :] if end > len(raw) else raw[RECORD.size : end], chain

    def _blocks(self, size: int) -> int:
        return -(-(RECORD.size + size) // self._geometry.block)
