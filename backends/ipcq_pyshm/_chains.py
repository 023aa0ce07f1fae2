"""Messages as chains of blocks: the links between blocks, and reads and writes over several blocks."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from ipcq.errors import CorruptQueue
from ipcq_pyshm._layout import LINK, Geometry
from ipcq_pyshm._ring import Read, Write

#: Links that one call reads: mostly the blocks of a chain are adjacent.
_WINDOW_LINKS: Final = 512


class Chains:
    """The blocks of a queue's file.

    Args:
        geometry: Where they are.
        read: Reads from the file.
        write: Writes to the file.
    """

    def __init__(self, geometry: Geometry, read: Read, write: Write) -> None:
        self._geometry = geometry
        self._read = read
        self._write = write

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
