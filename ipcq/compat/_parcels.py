"""Parcels: the messages that are too large for the ring, in the overflow file.

A parcel is in *blocks*, which every process maps and which are used again, or *apart*, in pages of its own that are
freed after it was read. Allocating and freeing pages takes longer than copying them, so a parcel is apart only if it is
huge or if no blocks are free.

The first page of the file has a byte for each block, which is not 0 while the block is in use. A producer reserves
blocks under the lock of the file. The blocks then belong to the process that has the parcel's ticket, which frees them
without a lock. If it is killed before that, its blocks stay in use until the queue is freed.

The memory of the blocks is allocated up to the last one ever used, and not freed before the queue.
"""

import mmap
import os
import struct
from collections.abc import Callable
from typing import Final, TypeVar

from ipcq._process.signals import suppressed
from ipcq.compat._file import File
from ipcq.compat._pickling import Pickle, parts_of

__all__ = ("BLOCKS_END", "TICKET", "Parcels", "offset_of")

R = TypeVar("R")

TICKET: Final = struct.Struct("=BQQ")
"""Zero, unlike the first byte of a pickle; the offset; the size."""

#: Number of blocks, and where the bytes for them begin in the first page.
_BLOCKS: Final = 2048
_USED: Final = 2048
_BLOCK_BYTES: Final = 4096
_BLOCKS_BEGIN: Final = mmap.PAGESIZE
BLOCKS_END: Final = _BLOCKS_BEGIN + _BLOCKS * _BLOCK_BYTES
#: The first blocks, which stay in the processor's cache. Parcels use other blocks only if less than four fit there.
_FEW_BLOCKS: Final = 512
#: Bytes of the largest parcel in blocks, which takes a quarter of them.
_MOST_BYTES: Final = _BLOCKS * _BLOCK_BYTES // 4
#: Memory is allocated in steps of this size, because the kernel undoes a step that a signal interrupts.
_STEP_BYTES: Final = 1 << 18

_FREE: Final = bytes(_BLOCKS)


def offset_of(block: int) -> int:
    """Return where a block begins in the file."""
    return _BLOCKS_BEGIN + block * _BLOCK_BYTES


class Parcels:
    """One process's access to the parcels."""

    def __init__(self, file: File, mapped: memoryview) -> None:
        """Use an open overflow file, which is mapped up to `BLOCKS_END`."""
        self.file = file
        self.mapped = mapped
        self.used = mapped[_USED : _USED + _BLOCKS]
        self._allocated = _BLOCKS_BEGIN

    def has_room(self, size: int) -> bool:
        """Return whether there are free blocks for a parcel of this size, or it belongs apart."""
        return size > _MOST_BYTES or self._find(size) >= 0

    def free_blocks(self, size: int) -> slice | None:
        """Return free blocks, with memory, as a slice of `used`; None if a parcel of this size has to be apart."""
        if size > _MOST_BYTES:
            return None
        first = self._find(size)
        if first < 0:
            return None
        where = slice(first, first - -size // _BLOCK_BYTES)
        end = offset_of(where.stop)
        if end > self._allocated:
            with suppressed(OSError):
                self._allocate(end)
            if end > self._allocated:
                return None
        return where

    def _find(self, size: int) -> int:
        count = -(-size // _BLOCK_BYTES)
        return self.used[: max(_FEW_BLOCKS, 4 * count)].tobytes().find(_FREE[:count])

    def _allocate(self, end: int) -> None:
        """Allocate memory, because a store to a page for which there is none would end the process."""
        while self._allocated < end:
            size = min(_STEP_BYTES, BLOCKS_END - self._allocated)
            os.posix_fallocate(self.file.number, self._allocated, size)
            self._allocated += size

    def write(self, start: int, data: Pickle) -> None:
        """Store a parcel at an offset of the file."""
        mapped, file, at = self.mapped, self.file, start
        for part in parts_of(data):
            if start < BLOCKS_END:
                mapped[at : at + len(part)] = part
            else:
                file.write(part, at)
            at += len(part)

    def take(self, ticket: bytes, load: Callable[[memoryview | bytes], R]) -> R:
        """Return what `load` returns for a parcel, which is freed afterwards."""
        _, start, size = TICKET.unpack(ticket)
        try:
            if start < BLOCKS_END:
                with self.mapped[start : start + size] as parcel:
                    return load(parcel)
            return load(self.file.read(size, start))
        finally:  # also if there is no memory to read it, because the ticket is gone
            self._free(start, size)

    def drop(self, ticket: bytes) -> None:
        """Free the parcel of a ticket."""
        _, start, size = TICKET.unpack(ticket)
        self._free(start, size)

    def _free(self, start: int, size: int) -> None:
        if start < BLOCKS_END:
            first, count = (start - _BLOCKS_BEGIN) // _BLOCK_BYTES, -(-size // _BLOCK_BYTES)
            self.used[first : first + count] = _FREE[:count]
        else:
            self.file.free(start, start + size)
