"""The name lock: at any time only one process creates or unlinks a name, on any backend.

It is a file in the user's private directory, whose path does not depend on the environment, so that all processes use
the same lock. The kernel releases it when its holder dies. It excludes threads too, because every acquisition opens the
file again. On Linux it is an open file description lock (``fcntl(2)``) on one byte per name, on Windows a locked byte.
On other systems, where byte locks do not belong to a descriptor, it is ``flock(2)`` on one of 256 files. Two names that
hash to the same byte or file wait for each other, which is harmless.

**Several files.** On Linux there are several private directories (`private_directory`), and not every process can write
to the same ones: one has a read-only /tmp, another a read-only /dev/shm. So the lock is taken in every directory:
exclusive if this process can write there, shared if it can only read an existing file. Two processes that can see each
other's directories exclude each other even if there is no directory that both can write to. Each first creates the
files where it can, and only then opens the files that it can only read. So the later of the two finds the other's file,
whose exclusive lock also excludes a shared one.

The files are locked in the order of their inodes. This order is the same in every process, even if a container mounts
one directory twice, so there is no deadlock.
"""

import errno
import os
import stat
import struct
import sys
import zlib
from contextlib import AbstractContextManager
from functools import partial
from time import monotonic
from typing import Final, NamedTuple

from ipcq._process import private_directory
from ipcq._process.deadline import pause
from ipcq._process.finaliser import quiet_at_exit
from ipcq._process.forks import closed, opened
from ipcq._process.signals import reraise_from_handler
from ipcq.errors import MessageQueueError, TimedOutError

_MODE: Final = 0o600
_FLAGS: Final = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)

# The modules of the platform are imported now, because they could not be loaded once the descriptor table is full.
if sys.platform == "linux":
    import fcntl

    def lock_file(name: str) -> str:
        """Return the file name of a name's lock."""
        return "names.lock"

    def _try_lock(descriptor: int, name: str, shared: bool) -> bool:
        # The byte may be beyond the end of the file.
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
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)  # at the offset that _try_lock has set

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

    descriptor: int
    path: str
    shared: bool


def name_lock(name: str, deadline: float) -> AbstractContextManager[None]:
    """Hold the lock of a name, and wait for it until `deadline` on `time.monotonic`.

    Raises:
        TimedOutError: Other processes held the lock until the deadline.
        PermissionDenied: No private directory is usable: each is missing, read-only, or accessible to other users.
        NoSpace: None is usable, and at least one of them is full.
        LimitExceeded: Too many files are open.
    """
    return _NameLock(name, deadline)


class _NameLock:
    # A class, because `contextlib` is several times slower, and each creation takes this lock.
    __slots__ = ("_deadline", "_file", "_found", "_name", "_opened")

    def __init__(self, name: str, deadline: float) -> None:
        self._opened: list[int] = []
        self._name = name
        self._deadline = deadline
        self._file = lock_file(name)
        self._found: dict[tuple[int, int], _Lock] = {}

    def __enter__(self) -> None:
        try:
            self._open_all()
            since = monotonic()
            for _, lock in sorted(self._found.items()):
                while not self._locked(lock):
                    if monotonic() >= self._deadline:
                        raise TimedOutError(
                            "another process is creating or unlinking it and did not finish within open_timeout: find "
                            f"the holder of {lock.path} with lslocks, or pass a larger open_timeout=",
                            queue=self._name,
                        )
                    # Poll often: of many waiters, one that polls less often would always lose. The lock is held
                    # briefly.
                    pause(since, self._deadline, longest=0.002)
        except BaseException:
            self._close_all()
            raise

    def __exit__(self, *_: object) -> None:
        self._close_all()

    # A signal handler may raise before the first statement of `__exit__`.
    __del__ = quiet_at_exit(__exit__)

    def _locked(self, lock: _Lock) -> bool:
        try:
            return _try_lock(lock.descriptor, self._name, lock.shared)
        except OSError as error:
            reraise_from_handler(error)
            raise MessageQueueError(
                f"{lock.path} cannot be locked: {error.strerror}", queue=self._name, errno=error.errno
            ) from error

    def _open_all(self) -> None:
        """Open the file in every private directory."""
        writable = set(private_directory.each_usable(self._make))
        for root in private_directory.private_places():
            if root not in writable:
                self._open_shared(root)

    def _make(self, root: str) -> str:
        private_directory.make(root)
        path = f"{root}/{self._file}"
        # A forked child only closes its copy of the descriptor. To unlock it would release the parent's lock.
        try:
            descriptor = opened(partial(os.open, path, _FLAGS, _MODE))
        except OSError as error:
            reraise_from_handler(error)
            raise private_directory.refusal(error, f"the lock file {path} cannot be opened", root, path) from error
        self._note(descriptor, root, path, False)
        return root

    def _open_shared(self, root: str) -> None:
        """Open a file that this process cannot write to, if the file exists and this process can read it."""
        path = f"{root}/{self._file}"
        if not private_directory.is_private(root):
            return
        try:
            descriptor = opened(partial(os.open, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
        except OSError as error:
            reraise_from_handler(error)
            meaning = private_directory.refusal(error, f"the lock file {path} cannot be opened", root, path)
            if error.errno == errno.ENOENT or private_directory.is_lasting(meaning):
                return
            raise meaning from error
        self._note(descriptor, root, path, True)

    def _note(self, descriptor: int, root: str, path: str, shared: bool) -> None:
        self._opened.append(descriptor)
        try:
            status = os.fstat(descriptor)
            if not shared and sys.platform != "win32" and stat.S_IMODE(status.st_mode) != _MODE:
                os.fchmod(descriptor, _MODE)  # just created; the umask has cleared bits
        except OSError as error:
            reraise_from_handler(error)
            raise private_directory.refusal(error, f"the lock file {path} cannot be read", root, path) from error
        # If two paths lead to one file, the second lock would conflict with the first. The order of the inodes is that
        # of locking.
        self._found.setdefault((status.st_dev, status.st_ino), _Lock(descriptor, path, shared))

    def _close_all(self) -> None:
        while self._opened:
            try:
                _close_lock(self._opened.pop())
            except BaseException:  # from a signal handler, which must not leave the other locks held
                self._close_all()
                raise


def _close_lock(descriptor: int) -> None:
    def unlock_and_close() -> None:
        # Close alone does not release the lock while a newly forked child still has its copy of the descriptor.
        try:
            _unlock(descriptor)
        except OSError:
            pass  # the close releases it soon
        os.close(descriptor)

    closed(descriptor, unlock_and_close)
