"""File calls that differ between systems: reads and writes at an offset, and locks that the kernel releases.

On Linux the queue's lock is `flock(2)` on the handle's descriptor, and the holders of a last-close queue share an
open-file-description lock of one byte. The two locks are independent. Both belong to the open file, not to the
process.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from ipcq_pyshm._layout import HOLDERS, MUTEX

__all__ = (
    "LAST_CLOSE",
    "OPEN",
    "hold",
    "is_byte_locked",
    "let_go",
    "lock_byte",
    "locking",
    "measuring",
    "pread",
    "pwrite",
    "try_to_own",
    "unlocking",
)

if sys.platform == "win32":
    import errno
    import msvcrt
    import threading

    LAST_CLOSE: Final = False
    OPEN: Final = os.O_RDWR | os.O_BINARY | os.O_NOINHERIT

    # Windows has one position per open file: a read without the queue's lock would move it under the lock's holder.
    _position_lock = threading.RLock()

    def pread(descriptor: int, size: int, at: int) -> bytes:
        with _position_lock:
            os.lseek(descriptor, at, os.SEEK_SET)
            return os.read(descriptor, size)

    def pwrite(descriptor: int, data: bytes, at: int) -> int:
        with _position_lock:
            os.lseek(descriptor, at, os.SEEK_SET)
            return os.write(descriptor, data)

    def measuring(descriptor: int) -> Callable[[], int]:
        return lambda: os.fstat(descriptor).st_size

    def locking(descriptor: int) -> Callable[[], object]:
        return partial(_lock, descriptor)

    def unlocking(descriptor: int) -> Callable[[], object]:
        return partial(_unlock, descriptor)

    def _lock(descriptor: int) -> None:
        with _position_lock:
            os.lseek(descriptor, MUTEX, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except OSError as error:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error

    def _unlock(descriptor: int) -> None:
        with _position_lock:
            os.lseek(descriptor, MUTEX, os.SEEK_SET)
            try:
                msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
            except OSError:
                pass  # it was not locked

    def hold(descriptor: int) -> bool:
        raise NotImplementedError

    let_go = try_to_own = hold

    def lock_byte(descriptor: int, byte: int) -> None:
        raise NotImplementedError

    is_byte_locked = lock_byte

else:
    import fcntl
    import struct

    LAST_CLOSE: Final = sys.platform == "linux"
    OPEN: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # do not block on a FIFO

    pread = os.pread
    pwrite = os.pwrite

    def measuring(descriptor: int) -> Callable[[], int]:
        """Return a function that returns the size of the file, in less time than `os.fstat` takes."""
        return partial(os.lseek, descriptor, 0, os.SEEK_END)

    # Both return a function in C: no signal handler can run between call and system call, so none can prevent the
    # release of a lock.

    def locking(descriptor: int) -> Callable[[], object]:
        """Return a function that takes the lock of the file, or raises `BlockingIOError` if it is held."""
        return partial(fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def unlocking(descriptor: int) -> Callable[[], object]:
        """Return a function that releases the lock, if this open file holds it."""
        return partial(fcntl.flock, descriptor, fcntl.LOCK_UN)

    def hold(descriptor: int) -> bool:
        """Become a holder of the file; return False if a process that found no holder is removing it."""
        return _set(descriptor, fcntl.F_RDLCK)

    def let_go(descriptor: int) -> bool:
        """Stop being a holder of the file."""
        return _set(descriptor, fcntl.F_UNLCK)

    def try_to_own(descriptor: int) -> bool:
        """Return whether the file has no holder; if so, it gets none until the descriptor is closed."""
        return _set(descriptor, fcntl.F_WRLCK)

    def lock_byte(descriptor: int, byte: int) -> None:
        """Lock a byte that nobody else locks, until the open file is closed."""
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock_of(fcntl.F_WRLCK, byte))

    def is_byte_locked(descriptor: int, byte: int) -> bool:
        """Return whether another open file locks this byte."""
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _lock_of(fcntl.F_WRLCK, byte))
        return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)

    def _set(descriptor: int, kind: int) -> bool:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _lock_of(kind, HOLDERS))
        except (BlockingIOError, PermissionError):  # POSIX allows both errors
            return False
        return True

    # struct flock of fcntl(2): type, whence, start, length, pid.
    _FLOCK = struct.Struct("hhqqi")

    def _lock_of(kind: int, byte: int) -> bytes:
        return _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)
