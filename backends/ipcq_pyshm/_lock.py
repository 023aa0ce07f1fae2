"""The lock around every step: the kernel's lock on the file, and inside it shmlock's if the queue uses that.

The kernel releases the file's lock when its holder dies; shmlock's lock stays. So on POSIX, if the holder of the
file's lock finds a shared-memory block of shmlock, that block belonged to a dead process, and the holder removes it. On
Windows the block is removed with its last handle; the file's lock is used there too.

shmlock is tried once and never waited for, because it takes a timeout of 0 to mean no timeout. Every result is checked.
The resource tracker does not learn of the block, because it would remove the block of a live holder.
"""

import _signal
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, Final

from ipcq.backend import importing, suppressed
from ipcq.errors import MessageQueueError, Unsupported
from ipcq.hooks import DISTRIBUTION
from ipcq_pyshm import _file
from ipcq_pyshm._layout import Header

MISSING: Final = (
    f"the library shmlock is not installed: pip install '{DISTRIBUTION}[shmlock]', or leave out lock='shmlock'"
)

_BLOCKS: Final = "ipcqlock-"
_SIGNALS: Final = frozenset(map(int, signal.valid_signals()))


class FileLock:
    """The kernel's lock on the file.

    Attributes:
        acquire: Takes the lock, or raises `BlockingIOError` if it is held.
        release: Releases the lock, if this handle holds it.
        recovered: Whether the last holder is known to have died with the lock, and this was not counted yet.
    """

    #: Whether the lock is so slow that reading the state first pays off. Such a lock is also not re-entrant.
    dear = False
    recovered = False

    def __init__(self, descriptor: int) -> None:
        self.acquire = _file.locking(descriptor)
        self.release = _file.unlocking(descriptor)

    def forget(self) -> None:
        """Drop the state that a forked child inherited, without releasing the lock."""


class ShmLock:
    """The lock of shmlock, a shared-memory block, inside the lock on the file; it has the attributes of `FileLock`."""

    dear = True

    def __init__(self, descriptor: int, lock_name: bytes) -> None:
        self._outer = FileLock(descriptor)
        self._name = _BLOCKS + lock_name.hex()
        self._block: Any = self._fresh()
        self.recovered = False

    def _fresh(self) -> Any:
        options = {"track": False} if sys.version_info >= (3, 13) else {}
        return _shmlock().ShmLock(self._name, **options)

    def acquire(self) -> None:
        self._outer.acquire()
        if not self._try():
            # This handle holds the file's lock, so the process that created the block is dead.
            _unlink(self._name)
            self.recovered = True
            if not self._try():
                raise MessageQueueError(f"cannot create the lock {self._name}: see what else uses it in /dev/shm")

    def _try(self) -> bool:
        with _undisturbed():
            if self._block is not None and self._block.acquired:
                self.forget()  # a release was interrupted, so the object is in an unknown state
            if self._block is None:
                self._block = self._fresh()
            return self._block.acquire(timeout=False) is True  # 0 would block indefinitely

    def release(self) -> None:
        try:
            if self._block is not None and self._block.acquired:
                with _undisturbed():
                    self._block.release(force=True)
        finally:
            self._outer.release()

    def forget(self) -> None:
        block, self._block = self._block, None
        memory = getattr(getattr(block, "_shm", None), "shm", None)
        if memory is not None:
            memory._fd = -1  # it may be closed already, and its number reused for another file
        if block is not None:
            vars(block).clear()  # its finaliser would warn in another process


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Block signals: shmlock and the standard library's blocks do not survive exceptions of signal handlers.

    If another thread receives the signal and its handler raises, that exception replaces shmlock's error.
    """
    if sys.platform == "win32":
        yield
        return
    # The function in C: `signal.pthread_sigmask` makes an enum of every number, which takes longer than the lock.
    before = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        _signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # a handler may still raise here
        yield
    except (KeyboardInterrupt, OSError, _shmlock().shmlock_exceptions.ShmLockError) as error:
        raise error.__cause__ or error from None
    finally:
        _signal.pthread_sigmask(signal.SIG_SETMASK, before)


def lock_of(header: Header, descriptor: int) -> FileLock | ShmLock:
    """Create the lock of a handle, of the kind that the queue uses."""
    return FileLock(descriptor) if header.lock == "file" else ShmLock(descriptor, header.lock_name)


def installed() -> bool:
    return find_spec("shmlock") is not None


@cache
def _shmlock() -> Any:
    if not installed():
        raise Unsupported(MISSING)
    with importing():
        import shmlock
        from shmlock import shmlock_exceptions, shmlock_monkey_patch, shmlock_warnings  # noqa: F401  # as attributes

    if sys.version_info < (3, 13) and sys.platform != "win32":
        shmlock_monkey_patch.remove_shm_from_resource_tracker(_BLOCKS, print_warning=False)
    # The warning is about a block that an interrupt left behind; the next holder removes that block.
    warnings.filterwarnings("ignore", category=shmlock_warnings.ShmLockDanglingSharedMemoryWarning)
    return shmlock


def clear_away(header: Header, descriptor: int) -> None:
    """Remove the block of a process that was killed during a step; perhaps no further step would find it."""
    if header.lock != "shmlock" or sys.platform == "win32":
        return
    with suppressed(OSError):  # only a few bytes would stay behind
        # Another user's file could name any block. A live holder of the lock removes its own block.
        if os.fstat(descriptor).st_uid == os.geteuid():
            lock = FileLock(descriptor)
            lock.acquire()
            try:
                _unlink(_BLOCKS + header.lock_name.hex())
            finally:
                lock.release()


def _unlink(name: str) -> None:
    if sys.platform != "win32":  # on Windows the block is removed with its holder
        import _posixshmem

        try:
            _posixshmem.shm_unlink(f"/{name}")
        except FileNotFoundError:
            pass
