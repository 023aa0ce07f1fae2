"""Parcels: the messages that are too large for the ring, in the overflow file.

A parcel is stored in *blocks*, which every process maps and which are reused, or *apart*, in its own pages, which are
freed after it was read. Allocating and freeing pages takes longer than copying them. So a parcel is stored apart only
if it is huge or no blocks are free.

The first page of the file has one byte for each block, which is 1 while the block is in use. A producer reserves blocks
under the lock of the file. The blocks then belong to the process that has the parcel's ticket; it frees them without a
lock. If it is killed before that, its blocks stay in use until the queue is freed.

Memory is allocated for all blocks up to the last one ever used, and stays allocated until the queue is freed.
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

#: The number of blocks, and the offset of the bytes that mark them as used.
_BLOCKS: Final = 2048
_USED: Final = 2048
_BLOCK_BYTES: Final = 4096
_BLOCKS_BEGIN: Final = mmap.PAGESIZE
BLOCKS_END: Final = _BLOCKS_BEGIN + _BLOCKS * _BLOCK_BYTES
#: Parcels use only the first blocks, so that these stay in the processor's cache: this many, or as many as four parcels
#: of the size take.
_FEW_BLOCKS: Final = 512
#: The size of the largest parcel in blocks; it takes a quarter of them.
_MOST_BYTES: Final = _BLOCKS * _BLOCK_BYTES // 4
#: Memory is allocated in steps of this size: if a signal interrupts the call, the kernel undoes only one step.
_STEP_BYTES: Final = 1 << 18

_FREE: Final = bytes(_BLOCKS)


def offset_of(block: int) -> int:
    """Return where a block begins in the file."""
    return _BLOCKS_BEGIN + block * _BLOCK_BYTES


class Parcels:
    """The parcels of one overflow file, as one process sees them."""

    def __init__(self, file: File, mapped: memoryview) -> None:
        """Use an open overflow file and its mapping, which ends at `BLOCKS_END`."""
        self.file = file
        self.mapped = mapped
        self.used = mapped[_USED : _USED + _BLOCKS]
        self._allocated = _BLOCKS_BEGIN

    def has_room(self, size: int) -> bool:
        """Return whether blocks for a parcel of this size are free, or it would be stored apart in any case."""
        return size > _MOST_BYTES or self._find(size) >= 0

    def free_blocks(self, size: int) -> slice | None:
        """Return free blocks, with memory, as a slice of `used`; None if a parcel of this size must be stored apart.

        The caller holds the lock of the file.
        """
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
        """Allocate memory in advance: a store to a page without memory would kill the process with SIGBUS."""
        while self._allocated < end:
            size = min(_STEP_BYTES, BLOCKS_END - self._allocated)
            os.posix_fallocate(self.file.number, self._allocated, size)
            self._allocated += size

    def write(self, start: int, data: Pickle) -> None:
        """Store a parcel at an offset of the file.

        Raises:
            OSError: The file has no memory for a parcel that is stored apart.
        """
        mapped, file, at = self.mapped, self.file, start
        for part in parts_of(data):
            if start < BLOCKS_END:
                mapped[at : at + len(part)] = part
            else:
                file.write(part, at)
            at += len(part)

    def take(self, ticket: bytes, load: Callable[[memoryview | bytes], R]) -> R:
        """Pass a parcel to `load`, free it, and return the result.

        Raises:
            Exception: Any exception of `load`; the parcel is freed.
        """
        _, start, size = TICKET.unpack(ticket)
        try:
            if start < BLOCKS_END:
                with self.mapped[start : start + size] as parcel:
                    return load(parcel)
            return load(self.file.read(size, start))
        finally:  # even if memory ran out: the ticket has been taken, so nobody else can free the parcel
            self._free(start, size)

    def drop(self, ticket: bytes) -> None:
        """Free the parcel of a ticket without reading it."""
        _, start, size = TICKET.unpack(ticket)
        self._free(start, size)

    def _free(self, start: int, size: int) -> None:
        if start < BLOCKS_END:
            first, count = (start - _BLOCKS_BEGIN) // _BLOCK_BYTES, -(-size // _BLOCK_BYTES)
            self.used[first : first + count] = _FREE[:count]
        else:
            self.file.free(start, start + size)
