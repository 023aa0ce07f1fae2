"""The memory of one message that is built or read where it lies.

It must not be given back while anything refers to it. Exports of its buffer do not tell that: NumPy keeps the object
behind a buffer, and not always the export. So what counts is who refers to the object itself.
"""

import sys
from typing import Final

#: References to a memory that nobody else has: the attribute of its owner, and the argument of `getrefcount`.
_OWN_REFERENCES: Final = 2


class Memory(bytearray):
    """Memory of this process, to which its owner refers by the attribute `memory` alone."""

    __slots__ = ()


class Owner:
    """What owns a `Memory`, and gives users a view of it."""

    __slots__ = ("__weakref__", "buffer", "memory")

    buffer: memoryview
    memory: Memory

    def withdraw(self) -> bool:
        """End the user's view, and return whether nothing else refers to the memory."""
        try:
            self.buffer.release()
        except BufferError:
            return False  # an export, of which the object behind it may know nothing
        return sys.getrefcount(self.memory) <= _OWN_REFERENCES
