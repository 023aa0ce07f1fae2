"""The writes of one step to places that are in use: they reach the file with the step's commit, by its redo record."""

import struct
from typing import Final
from zlib import crc32

from ipcq.errors import CorruptQueue
from ipcq_pyshm._layout import DATA_AT, LEASE_REDO_ROOM
from ipcq_pyshm._ring import Read

#: Before each write in a redo record: its offset in the file, and its length.
_PREFIX: Final = struct.Struct("<QH")

#: Writes after which a step commits and begins anew. One message adds at most three per level of a heap.
_CROWDED: Final = 900


class Staged:
    """The writes of one step. Places that are free in the committed state are written without them.

    Args:
        read: Reads from the file.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._writes: dict[int, bytes] = {}

    def begin(self) -> None:
        """Forget the writes of the step before."""
        if self._writes:
            self._writes = {}

    @property
    def crowded(self) -> bool:
        """Whether the redo record is nearly full."""
        return len(self._writes) > _CROWDED

    def get(self, at: int) -> bytes | None:
        """Return what was staged for this place."""
        return self._writes.get(at)

    def read(self, at: int, size: int) -> bytes:
        return self._writes.get(at) or self._read(at, size)

    def write(self, at: int, data: bytes) -> None:
        self._writes[at] = data

    def writes(self) -> list[tuple[int, bytes]]:
        """Return what the commit has to write."""
        return list(self._writes.items()) if self._writes else []


def packed(writes: list[tuple[int, bytes]]) -> tuple[bytes, int]:
    """Return the redo record of these writes, and how a state refers to it: its length and checksum."""
    raw = b"".join([part for at, data in writes for part in (_PREFIX.pack(at, len(data)), data)])
    return raw, len(raw) << 32 | crc32(raw)


def unpacked(redo: int, read: Read, end: int) -> list[tuple[int, bytes]]:
    """Read a redo record; nothing in it is outside the links, heaps and blocks, which end at `end`.

    Raises:
        CorruptQueue: It is not valid.
    """
    size = redo >> 32
    if size > LEASE_REDO_ROOM:
        raise CorruptQueue
    raw = read(DATA_AT, size)
    if crc32(raw) != redo & 0xFFFFFFFF:
        raise CorruptQueue
    writes = []
    done = 0
    while done < size:
        at, length = _PREFIX.unpack_from(raw, done)
        data = raw[done + _PREFIX.size : done + _PREFIX.size + length]
        if at < DATA_AT + LEASE_REDO_ROOM or at + length > end or len(data) != length:
            raise CorruptQueue
        writes.append((at, data))
        done += _PREFIX.size + length
    return writes
