"""An open file that threads share."""

import mmap
import os

from ipcq._process.finaliser import quiet_at_exit
from ipcq._process.signals import suppressed

__all__ = ("File",)


class File:
    """An open file, closed with its last reference: that of the `Overflow`, or of a thread that copies a message."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        """Take ownership of a descriptor; a negative number stands for a closed file."""
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
        """Free the pages that begin in a part of the file, the last one as a whole."""
        # This needs a descriptor and a mapping. Without them, the pages stay, and no message is lost.
        with suppressed(OSError), mmap.mmap(self.number, end - start, offset=start) as mapped:
            mapped.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        """Close the file, even if others refer to it."""
        if self.number >= 0:
            number, self.number = self.number, -1
            os.close(number)

    __del__ = quiet_at_exit(close)
