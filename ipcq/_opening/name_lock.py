"""The lock that makes creating and unlinking one name a matter of one process at a time, whatever the backend.

It is a file in the user's private directory, so that no environment variable can send two processes to two locks. The
kernel releases it when its holder dies, and it excludes threads as well because every acquisition opens the file anew.
On Linux it is an open-file-description lock (``fcntl(2)``) of one byte for each name, on Windows a locked byte, and
elsewhere, where locks of bytes do not belong to a descriptor, ``flock(2)`` on one of 256 files. Two names that share a
byte or a file wait for each other, and that is all.

**Several files.** On Linux there are several private directories (`private_directory`), and processes may differ in
which of them they can write to: one has a read-only /tmp, another a read-only /dev/shm. So the lock is taken in every
directory, exclusively where this process can write, and shared where a file is there that it can only read. Two
processes that can see each other's directories exclude each other even if there is no directory that both can write to.
Each first makes the files where it can, and only then opens those that it can only read. So whichever of the two looks
later finds the other's file, which the other holds exclusively, so that it cannot even be shared meanwhile.

The files are locked in the order of their inodes. That order is the same for every process, also where a container
mounts one directory in two places, so there is no deadlock.
"""

import errno
import os
import stat
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from time import monotonic
from typing import Final, NamedTuple

from ipcq._process import private_directory
from ipcq._process.deadline import pause
from ipcq._process.forks import closed, opened
from ipcq._process.signals import reraise_from_handler
from ipcq.errors import MessageQueueError, TimedOutError

_MODE: Final = 0o600

# Modules of the platform now, because a full descriptor table would not let them be loaded later.
if sys.platform == "linux":
    import fcntl

    def lock_file(name: str) -> str:
        """Return what the lock file of a name is called."""
        return "names.lock"

    def _try_lock(descriptor: int, name: str, shared: bool) -> bool:
        # A byte beyond the end of the file may be locked.
        try:
            _set_lock(descriptor, fcntl.F_RDLCK if shared else fcntl.F_WRLCK, zlib.crc32(name.encode()), 1)
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

    def _try_lock(descriptor: int, name: str, shared: bool) -> bool:
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

    def _try_lock(descriptor: int, name: str, shared: bool) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class _Lock(NamedTuple):
    """The open file of a lock."""

    identity: tuple[int, int]
    descriptor: int
    path: str
    shared: bool


@contextmanager
def name_lock(name: str, deadline: float) -> Iterator[None]:
    """Hold the lock of a name, waited for until `deadline` on `time.monotonic`.

    Raises:
        TimedOutError: Another process held it all that time.
        PermissionDenied: No private directory can be used: each is missing, read-only, or not this user's alone.
        NoSpace: None can be used, and one of them is only full.
        LimitExceeded: Too many files are open.
    """
    with ExitStack() as closing:
        files = _Files(lock_file(name), closing)
        since = monotonic()
        for lock in files.opened():
            while not _locked(lock, name):
                if monotonic() >= deadline:
                    raise TimedOutError(
                        "another process is creating or unlinking it and did not finish within open_timeout: see who "
                        f"holds {lock.path} (lslocks), or give more time",
                        queue=name,
                    )
                # Among many waiters, the one that looks least often would always be last; and nobody holds it for long.
                pause(since, deadline, longest=0.002)
        yield


def _locked(lock: _Lock, name: str) -> bool:
    try:
        return _try_lock(lock.descriptor, name, lock.shared)
    except OSError as error:
        reraise_from_handler(error)
        raise MessageQueueError(
            f"{lock.path} cannot be locked: {error.strerror}", queue=name, errno=error.errno
        ) from error


class _Files:
    """The files of the lock, which are closed with `closing`."""

    def __init__(self, file: str, closing: ExitStack) -> None:
        self._file = file
        self._closing = closing
        self._found: dict[tuple[int, int], _Lock] = {}

    def opened(self) -> list[_Lock]:
        """Open the files in every place, and return them in the order in which they are to be locked."""
        writable = set(private_directory.each_usable(self._make))
        for root in private_directory.private_places():
            if root not in writable:
                self._open_shared(root)
        return sorted(self._found.values())

    def _make(self, root: str) -> str:
        private_directory.make(root)
        path = f"{root}/{self._file}"
        # A forked child closes its copy of the descriptor. Unlocking it would take the lock from the parent.
        self._note(opened(partial(_open_file, root, path)), root, path, False)
        return root

    def _open_shared(self, root: str) -> None:
        """Open a file that this process cannot write to, if it is there and this process can read it."""
        path = f"{root}/{self._file}"
        if not private_directory.is_private(root):
            return
        try:
            descriptor = opened(lambda: os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
        except OSError as error:
            reraise_from_handler(error)
            meaning = private_directory.refusal(error, f"the lock file {path} cannot be opened", root, path)
            if error.errno == errno.ENOENT or private_directory.is_lasting(meaning):
                return
            raise meaning from error
        self._note(descriptor, root, path, True)

    def _note(self, descriptor: int, root: str, path: str, shared: bool) -> None:
        self._closing.callback(_close_lock, descriptor)
        try:
            status = os.fstat(descriptor)
            if not shared and sys.platform != "win32" and stat.S_IMODE(status.st_mode) != _MODE:
                os.fchmod(descriptor, _MODE)  # it was made just now, and the umask has taken bits away
        except OSError as error:
            reraise_from_handler(error)
            raise private_directory.refusal(error, f"the lock file {path} cannot be looked at", root, path) from error
        identity = status.st_dev, status.st_ino
        # One file in two places would conflict with itself.
        self._found.setdefault(identity, _Lock(identity, descriptor, path, shared))


def _open_file(root: str, path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), _MODE)
    except OSError as error:
        reraise_from_handler(error)
        raise private_directory.refusal(error, f"the lock file {path} cannot be opened", root, path) from error


def _close_lock(descriptor: int) -> None:
    def unlock_and_close() -> None:
        # Closing alone does not unlock it until a child that was forked just now has closed its copy.
        try:
            _unlock(descriptor)
        except OSError:
            pass  # closing unlocks it soon after
        os.close(descriptor)

    closed(descriptor, unlock_and_close)
