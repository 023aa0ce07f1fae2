"""An open file that threads share, read and written at offsets."""

import mmap
import os

from ipcq._process.finaliser import quiet_at_exit
from ipcq._process.signals import suppressed

__all__ = ("File",)


class File:
    """An open file, closed when its last reference is dropped: by its `Overflow`, or by a thread that copies a message.

    Every method raises the OSError of its system call, except `free`.
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        """Take ownership of a descriptor; a negative number means a closed file."""
        self.number = number

    def write(self, data: bytes, at: int) -> None:
        """Write all of `data` at an offset."""
        rest = memoryview(data)
        while rest:  # one call writes at most 2 GiB
            written = os.pwrite(self.number, rest, at)
            rest, at = rest[written:], at + written

    def read(self, size: int, at: int) -> bytes:
        """Read exactly `size` bytes at an offset."""
        data = os.pread(self.number, size, at)
        while len(data) < size:
            data += os.pread(self.number, size - len(data), at + len(data))
        return data

    def free(self, start: int, end: int) -> None:
        """Free the memory of the pages that begin between two offsets, of which `start` begins a page."""
        # If there is no descriptor or address space for the mapping, the pages stay in use, and no message is lost.
        with suppressed(OSError), mmap.mmap(self.number, end - start, offset=start) as mapped:
            mapped.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        """Close the file, even if there are other references."""
        if self.number >= 0:
            number, self.number = self.number, -1
            os.close(number)

    __del__ = quiet_at_exit(close)
