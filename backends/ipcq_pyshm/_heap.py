"""The order of a queue with priorities: messages are chains of blocks, ordered by a binary heap in the file."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from ipcq.backend import HIGHEST_PRIORITY, Attributes, Received
from ipcq.errors import CorruptQueue
from ipcq_pyshm._layout import ENTRY, LINK, RECORD, Geometry, State
from ipcq_pyshm._ring import Cells, Order, Read, Write, length_of, record

# A key is the inverted priority, so that the smallest key is next, and in its low bits the number of the put.
_NUMBER_BITS: Final = 48

#: Links that one call reads: mostly the blocks of a chain are adjacent.
_WINDOW_LINKS: Final = 512


class Heap(Order):
    def __init__(self, attributes: Attributes, geometry: Geometry, read: Read, write: Write) -> None:
        self._geometry = geometry
        self._most_messages = attributes.max_messages or geometry.blocks
        self._most_bytes = attributes.buffer_size or geometry.size
        self._longest = attributes.max_message_size
        self._read = read
        self._write = write

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
        key = HIGHEST_PRIORITY - priority << _NUMBER_BITS | state.puts & (1 << _NUMBER_BITS) - 1
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

    def store_many(self, state: State, batch: Sequence[bytes]) -> int:
        stored = 0
        for data in batch:
            if not self.fits(state, len(data)):
                break
            # The lowest priority: the new entry moves no other.
            self.store(state, data, 0)
            stored += 1
        return stored

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

    def _down(self, count: int) -> list[tuple[int, int, int]]:
        """Sift the last entry, at index `count`, down from the top, and return the entries that move."""
        cells: list[tuple[int, int, int]] = []
        if not count:
            return cells
        key, block = self._entry(count)
        index = 0
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

    # The chains

    def _top(self) -> tuple[Received, list[int]]:
        key, first = self._entry(0)
        priority = HIGHEST_PRIORITY - (key >> _NUMBER_BITS)
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

    def _link(self, block: int) -> int:
        (after,) = LINK.unpack(self._read(self._geometry.links_at + block * LINK.size, LINK.size))
        return int(after)

    def _chain(self, first: int, count: int) -> list[int]:
        """Follow the links from block `first`, and return `count` blocks."""
        chain, most = [first], self._geometry.blocks
        if first >= most:
            raise CorruptQueue
        while len(chain) < count:
            begin = chain[-1]
            size = min(_WINDOW_LINKS, most - begin, count) * LINK.size
            raw = self._read(self._geometry.links_at + begin * LINK.size, size)
            for at in range(0, len(raw), LINK.size):
                (after,) = LINK.unpack_from(raw, at)
                if after >= most:
                    raise CorruptQueue
                chain.append(after)
                if len(chain) == count or after != chain[-2] + 1:
                    break
        return chain

    def _runs(self, chain: Sequence[int]) -> list[tuple[int, int]]:
        """Return offset and size in bytes of each run of adjacent blocks."""
        block = self._geometry.block
        begins = [0, *(at for at, (one, other) in enumerate(pairwise(chain), 1) if other != one + 1), len(chain)]
        at = self._geometry.blocks_at
        return [(at + chain[begin] * block, (end - begin) * block) for begin, end in pairwise(begins)]

    def _spread(self, chain: Sequence[int], data: bytes) -> None:
        done = 0
        for at, size in self._runs(chain):
            self._write(at, data[done : done + size])
            done += size

    def _gathered(self, chain: Sequence[int], end: int) -> bytes:
        parts = []
        for at, size in self._runs(chain):
            parts.append(self._read(at, min(size, end)))
            end -= size
        return b"".join(parts)
