"""The lock that makes creating and unlinking one name a matter of one process at a time, whatever the backend.

It is a file in the user's private directory, so that no environment variable can send two processes to two locks. The
kernel releases it when its holder dies, and it excludes threads as well because every acquisition opens the file anew.
On Linux it is an open-file-description lock (``fcntl(2)``) of one byte for each name, on Windows a locked byte, and
elsewhere, where locks of bytes do not belong to a descriptor, ``flock(2)`` on one of 256 files. Two names that share a
byte or a file wait for each other, and that is all.
"""

import os
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic

from ipcq import _private
from ipcq._deadline import pause
from ipcq._foreign import let_through
from ipcq._forks import closed, opened
from ipcq.errors import MessageQueueError, TimedOutError

# Modules of the platform now, because a full descriptor table would not let them be loaded later.
if sys.platform == "linux":
    import fcntl

    def lock_file(name: str) -> str:
        """Return what the lock file of a name is called."""
        return "names.lock"

    def _try_lock(descriptor: int, name: str) -> bool:
        # A byte beyond the end of the file may be locked.
        try:
            _set_lock(descriptor, fcntl.F_WRLCK, zlib.crc32(name.encode()), 1)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        _set_lock(descriptor, fcntl.F_UNLCK, 0, 0)  # the whole file

    def _set_lock(descriptor: int, kind: int, start: int, length: int) -> None:
        # struct flock of fcntl(2): type, whence, start, length, pid.
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, start, length, 0))

elif sys.platform == "win32":
    import msvcrt

    def lock_file(name: str) -> str:
        return "names.lock"

    def _try_lock(descriptor: int, name: str) -> bool:
        os.lseek(descriptor, zlib.crc32(name.encode()), os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # at the place where _try_lock left the descriptor

else:  # neither Linux nor Windows
    import fcntl

    def lock_file(name: str) -> str:
        return f"names-{zlib.crc32(name.encode()) & 0xFF:02x}.lock"

    def _try_lock(descriptor: int, name: str) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def name_lock(name: str, deadline: float) -> Iterator[None]:
    """Hold the lock of a name, waited for until `deadline` on `time.monotonic`.

    Raises:
        TimedOutError: Another process held it all that time.
        PermissionDenied: The private directory belongs to somebody else or is open to others.
    """
    descriptor = _open_lock(name)
    try:
        since = monotonic()
        while not _locked(descriptor, name):
            if monotonic() >= deadline:
                raise TimedOutError(
                    "another process is creating or unlinking it and did not finish within open_timeout: see who holds "
                    f"{_private.private_directory()}/{lock_file(name)} (lslocks), or give more time",
                    queue=name,
                )
            # Among many who wait, whoever looked least often would come last each time; and none waits for long.
            pause(since, deadline, longest=0.002)
        yield
    finally:
        _close_lock(descriptor)


def _locked(descriptor: int, name: str) -> bool:
    try:
        return _try_lock(descriptor, name)
    except OSError as error:
        let_through(error)
        raise MessageQueueError(
            f"{_private.private_directory()}/{lock_file(name)} cannot be locked: {error.strerror}",
            queue=name,
            errno=error.errno,
        ) from error


def _open_file(name: str) -> int:
    path = f"{_private.make_private_directory()}/{lock_file(name)}"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            if sys.platform != "win32":
                os.fchmod(descriptor, 0o600)  # the umask may have taken bits away
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        let_through(error)
        raise _private.refusal(error, f"the lock file {path} cannot be opened", path) from error
    return descriptor


def _open_lock(name: str) -> int:
    # A forked child closes its copy of the descriptor. Unlocking it would take the lock from the parent.
    return opened(partial(_open_file, name))


def _close_lock(descriptor: int) -> None:
    def unlock_and_close() -> None:
        # Closing alone does not unlock it until a child that was forked just now has closed its copy.
        try:
            _unlock(descriptor)
        except OSError:
            pass  # closing unlocks it soon after
        os.close(descriptor)

    closed(descriptor, unlock_and_close)
