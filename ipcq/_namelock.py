"""The lock that makes creating and unlinking one name a matter of one process at a time, whatever the backend.

It is one file per user in a private directory at a fixed place, so that no environment variable can send two processes
to two locks, and a byte of it for each name: an open-file-description lock (Linux, ``fcntl(2)``), which the kernel
releases when its holder dies, and which excludes threads as well because every acquisition opens the file anew.
"""

import errno
import os
import stat
import struct
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from ipcq._deadline import pause
from ipcq._foreign import let_through
from ipcq._limits import too_many_descriptors
from ipcq.errors import NoSpace, PermissionDenied, TimedOutError

if sys.platform != "win32":
    import fcntl  # now, because a full descriptor table would not let it be loaded later


def directory() -> str:
    """Return the path of this user's private directory."""
    return f"/tmp/ipcq-{os.geteuid()}"  # the place must not move with TMPDIR; owner and mode are checked


@contextmanager
def name_lock(name: str, deadline: float) -> Iterator[None]:
    """Hold the lock of a name, waited for until `deadline` on `time.monotonic`.

    Raises:
        TimedOutError: Another process held it all that time.
        PermissionDenied: The private directory belongs to somebody else or is open to others.
    """
    descriptor = _open_lock()
    try:
        since = monotonic()
        while not _try_lock(descriptor, name):
            if monotonic() >= deadline:
                raise TimedOutError(
                    "another process is creating or unlinking it and did not finish within open_timeout: see who holds "
                    f"{directory()}/names.lock (lslocks), or give more time",
                    queue=name,
                )
            # Among many who wait, whoever looked least often would come last each time; and none waits for long.
            pause(since, deadline, longest=0.002)
        yield
    finally:
        _close_lock(descriptor)


def _try_lock(descriptor: int, name: str) -> bool:
    # A byte beyond the end of the file may be locked. Two names that share a byte wait for each other, and that is all.
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


def _open_file() -> int:
    """Open the user's lock file in a directory that nobody else can have made or can enter."""
    path = directory()
    try:
        try:
            os.mkdir(path, 0o700)
            os.chmod(path, 0o700)  # the umask may have taken bits away
        except FileExistsError:
            pass
        home = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _check(os.fstat(home), path)
            descriptor = os.open(
                "names.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=home
            )
        finally:
            os.close(home)
    except OSError as error:
        if isinstance(error, PermissionDenied):
            raise
        let_through(error)
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise too_many_descriptors(error.errno) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"{path} cannot be made: free some space there", errno=error.errno) from error
        raise PermissionDenied(
            f"the lock file {path}/names.lock cannot be opened ({error}): have it removed (sudo rm -r {path}), "
            "ipcq makes it anew",
            errno=error.errno,
        ) from error
    os.fchmod(descriptor, 0o600)  # as above
    return descriptor


def _check(found: os.stat_result, path: str) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.geteuid() or mode & 0o077:
        raise PermissionDenied(
            f"{path} must belong to this user ({os.geteuid()}) with mode 0700, but belongs to user {found.st_uid} with "
            f"mode {mode:04o}: have it removed (sudo rm -r {path}), ipcq makes it anew"
        )


# Descriptors of locks that are held or waited for. A forked child has copies, and as long as it keeps one, its parent's
# lock stays held; unlocking it would take it from the parent, so the child closes them. No fork may come between
# opening and noting; the mutex can be taken again by a signal handler that forks.
_held: set[int] = set()
_noting = threading.RLock()


def _open_lock() -> int:
    with _noting:
        descriptor = _open_file()
        _held.add(descriptor)
    return descriptor


def _close_lock(descriptor: int) -> None:
    with _noting:  # no fork may come between the two either: its child would keep the lock
        if descriptor in _held:  # else this is a forked child, which has closed it
            # Closing alone does not do it as long as a child that was forked just now has not closed its copy.
            _unlock(descriptor)
            _held.discard(descriptor)
            os.close(descriptor)


def _after_fork() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()
    _noting.release()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_noting.acquire, after_in_parent=_noting.release, after_in_child=_after_fork)
