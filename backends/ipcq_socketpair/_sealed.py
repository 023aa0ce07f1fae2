"""Messages that are larger than a packet: files without a name, sealed so that nobody can change them any more.

Who gets one checks the seals before it reads, since whoever can put could have put any descriptor: one that never ends,
that shrinks while it is read, or that somebody else goes on writing to. Only a memfd has seals, and asking for them
touches nothing else.
"""

import fcntl
import os
from typing import Final

from ipcq.backend import reraise_from_handler
from ipcq.errors import CorruptQueue

_FIXED: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_SEALS: Final = _FIXED | fcntl.F_SEAL_SEAL


def sealed(data: bytes) -> int:
    """Return the descriptor of a sealed file that holds the message."""
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
    """Read the message that a descriptor holds.

    Raises:
        CorruptQueue: It is no sealed file of that size.
    """
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        if seals & _FIXED != _FIXED or size > largest or os.fstat(descriptor).st_size != size:
            raise CorruptQueue("a message came as a file that is not sealed or has another size: it was dropped")
        parts: list[bytes] = []
        read = 0
        while read < size:  # no call reads more than 2 GiB
            parts.append(os.pread(descriptor, size - read, read))
            read += len(parts[-1])
    except OSError as error:
        reraise_from_handler(error)
        raise CorruptQueue(f"a message came as a descriptor that cannot be read ({error}): it was dropped") from error
    return b"".join(parts)
