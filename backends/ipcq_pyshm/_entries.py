"""A binary heap of entries in the file, whose changes are staged."""

from collections.abc import Callable
from typing import Final

from ipcq.errors import CorruptQueue
from ipcq_pyshm._layout import ENTRY, NEVER, LeaseState
from ipcq_pyshm._ring import Read, Write
from ipcq_pyshm._staged import Staged

#: The low bits of an entry's value: the first block of the message. Above them is the slot of its owner, if it has one.
BLOCK_BITS: Final = 32
BLOCK_MASK: Final = (1 << BLOCK_BITS) - 1

#: A key and a value.
Entry = tuple[int, int]


class Entries:
    """A heap of the messages in one state, the smallest key first.

    Args:
        name: The name of the field of a state that counts them.
        at: Where the heap begins in the file.
        read: Reads from the file.
        write: Writes to the file.
        staged: The writes of the step.
        moved: Called with the value and the new index of each entry that moves to make room or to fill a gap.
    """

    def __init__(
        self,
        name: str,
        at: int,
        read: Read,
        write: Write,
        staged: Staged,
        moved: Callable[[int, int], object] | None = None,
    ) -> None:
        self._name = name
        self._at = at
        self._read = read
        self._write = write
        self._staged = staged
        self._moved = moved
        #: Number of entries in the committed state: those after them are free.
        self.committed = 0

    def entry(self, index: int) -> Entry:
        at = self._at + index * ENTRY.size
        key, value = ENTRY.unpack(self._staged.read(at, ENTRY.size))
        return key, value

    def top(self, state: LeaseState) -> Entry | None:
        return self.entry(0) if getattr(state, self._name) else None

    def all(self, state: LeaseState) -> list[Entry]:
        """Return all entries of a committed state."""
        return list(ENTRY.iter_unpack(self._read(self._at, getattr(state, self._name) * ENTRY.size)))

    def push(self, state: LeaseState, key: int, value: int) -> int:
        """Add an entry, and return its index."""
        index: int = getattr(state, self._name)
        setattr(state, self._name, index + 1)
        if key == NEVER:  # nothing is later
            self._put(index, key, value)
            return index
        return self._up(index, key, value)

    def remove(self, state: LeaseState, index: int) -> None:
        """Remove an entry; the last one fills the gap."""
        count = getattr(state, self._name) - 1
        setattr(state, self._name, count)
        if index == count:
            return
        if index > count:
            raise CorruptQueue
        removed, _ = self.entry(index)
        key, value = self.entry(count)
        if key < removed:
            index = self._up(index, key, value)
        elif key > removed:
            index = self._down(index, count, key, value)
        else:
            self._put(index, key, value)
        if self._moved is not None:
            self._moved(value, index)

    def rekey(self, state: LeaseState, index: int, key: int) -> int:
        """Give an entry another key, and return its new index."""
        count = getattr(state, self._name)
        old, value = self.entry(index)
        if key < old:
            return self._up(index, key, value)
        return self._down(index, count, key, value)

    def _up(self, index: int, key: int, value: int) -> int:
        while index:
            above = (index - 1) >> 1
            other = self.entry(above)
            if other[0] <= key:
                break
            self._move(index, *other)
            index = above
        self._put(index, key, value)
        return index

    def _down(self, index: int, count: int, key: int, value: int) -> int:
        while (below := 2 * index + 1) < count:
            other, right = self._pair(below)
            if below + 1 < count and right < other:
                below, other = below + 1, right
            if key <= other[0]:
                break
            self._move(index, *other)
            index = below
        self._put(index, key, value)
        return index

    def _pair(self, index: int) -> tuple[Entry, Entry]:
        """Return two successive entries; the second may be beyond the last one."""
        size = ENTRY.size
        at = self._at + index * size
        raw = self._read(at, 2 * size)
        one, other = self._staged.get(at), self._staged.get(at + size)
        return ENTRY.unpack(one or raw[:size]), ENTRY.unpack(other or raw[size:])

    def _move(self, index: int, key: int, value: int) -> None:
        self._put(index, key, value)
        if self._moved is not None:
            self._moved(value, index)

    def _put(self, index: int, key: int, value: int) -> None:
        at = self._at + index * ENTRY.size
        if index >= self.committed:
            self._write(at, ENTRY.pack(key, value))
        else:
            self._staged.write(at, ENTRY.pack(key, value))
