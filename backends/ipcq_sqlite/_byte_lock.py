"""Locks on one byte of a file, by ``fcntl(2)``."""

import fcntl
import os
import struct
from typing import Final

# struct flock of fcntl(2): type, whence, start, length, pid.
_FLOCK: Final = struct.Struct("hhqqi")


def lock_of(byte: int) -> bytes:
    """Return a lock for writing on this byte, as an argument of ``fcntl``."""
    return _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)


def is_locked(descriptor: int, byte: int) -> bool:
    """Return whether another open file, or SQLite in any process, has a lock on this byte.

    Raises:
        OSError: The descriptor is closed.
    """
    found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, lock_of(byte))
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)
