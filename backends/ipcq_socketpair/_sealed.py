"""Messages that are larger than a packet: files without a name, sealed so that no process can change them.

A consumer checks the seals before it reads, because a producer can send any descriptor: of an endless file, of a file
that shrinks during the read, or of a file that another process keeps writing to. Only a memfd has seals, and reading
the seals has no side effect on other files.
"""

import fcntl
import os
from typing import Final

from ipcq.backend import reraise_from_handler
from ipcq.errors import CorruptQueue

_FIXED: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_SEALS: Final = _FIXED | fcntl.F_SEAL_SEAL


def sealed(data: bytes) -> int:
    """Write the message to a sealed file, and return its descriptor."""
    descriptor = os.memfd_create("ipcq-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def opened(descriptor: int, size: int, largest: int) -> bytes:
    """Read the message from the file of a descriptor.

    Raises:
        CorruptQueue: It is not a sealed file of that size.
    """
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        if seals & _FIXED != _FIXED or size > largest or os.fstat(descriptor).st_size != size:
            raise CorruptQueue("received a message as a file that is not sealed or has a wrong size: it was dropped")
        parts: list[bytes] = []
        read = 0
        while read < size:  # one call reads at most 2 GiB
            parts.append(os.pread(descriptor, size - read, read))
            read += len(parts[-1])
    except OSError as error:
        reraise_from_handler(error)
        raise CorruptQueue(f"received a message as an unreadable descriptor ({error}): it was dropped") from error
    return b"".join(parts)
