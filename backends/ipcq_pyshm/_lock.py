"""The lock around every step: the kernel's on the file, and shmlock inside it where that was asked for.

The kernel takes the lock of a file back when its holder dies, which shmlock does not. So on POSIX whoever has the
file's lock may take a block of shmlock's that is still there for a dead holder's, and removes it. On Windows the block
goes with its last handle, and the file's lock is there all the same.

shmlock is tried once and never waited for, because it takes a timeout of 0 for none; every answer is looked at; and the
resource tracker, which would remove the block of a living holder, is kept away from it.
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
    """The kernel's lock on the file."""

    #: A look whether there is anything to do costs much less than the lock.
    dear = False

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def acquire(self) -> bool:
        """Take the lock if it is free."""
        return _file.lock(self._descriptor)

    def release(self) -> None:
        """Give the lock back, if this handle has it."""
        _file.unlock(self._descriptor)

    def recovered(self) -> bool:
        """Tell, once, whether the last holder died with the lock, as far as that can be seen."""
        return False

    def forget(self) -> None:
        """Let go of what a forked child inherited without giving anything back."""


class ShmLock(FileLock):
    """A block of shmlock's inside the lock on the file."""

    dear = True

    def __init__(self, descriptor: int, lock_name: bytes) -> None:
        super().__init__(descriptor)
        self._name = _BLOCKS + lock_name.hex()
        self._block: Any = self._fresh()
        self._recovered = False

    def _fresh(self) -> Any:
        options = {"track": False} if sys.version_info >= (3, 13) else {}
        return _shmlock().ShmLock(self._name, **options)

    def acquire(self) -> bool:
        if not super().acquire():
            return False
        if not self._try():
            # Nobody else is inside the file's lock, so whoever made the block is dead.
            _unlink(self._name)
            self._recovered = True
            if not self._try():
                raise MessageQueueError(f"the lock {self._name} cannot be made: see who else uses it in /dev/shm")
        return True

    def _try(self) -> bool:
        with _undisturbed():
            if self._block is not None and self._block.acquired:
                self.forget()  # a release was cut short, and what is left in the object is of no use
            if self._block is None:
                self._block = self._fresh()
            return self._block.acquire(timeout=False) is True  # 0 would be for ever

    def release(self) -> None:
        try:
            if self._block is not None and self._block.acquired:
                with _undisturbed():
                    self._block.release(force=True)
        finally:
            super().release()

    def forget(self) -> None:
        block, self._block = self._block, None
        memory = getattr(getattr(block, "_shm", None), "shm", None)
        if memory is not None:
            memory._fd = -1  # it may be closed already, and the number another file's by now
        if block is not None:
            vars(block).clear()  # its finaliser would complain where this is another process

    def recovered(self) -> bool:
        recovered, self._recovered = self._recovered, False
        return recovered


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep signal handlers out: shmlock and the standard library's blocks do not survive what these raise.

    Where other threads take the signals all the same, what a handler raised goes on instead of shmlock's own error.
    """
    if sys.platform == "win32":
        yield
        return
    # Its own function and not `signal`'s, which makes an object of every number and takes longer than the lock.
    before = _signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        _signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # a handler may still raise here
        yield
    except (KeyboardInterrupt, OSError, _shmlock().shmlock_exceptions.ShmLockError) as error:
        raise error.__cause__ or error from None
    finally:
        _signal.pthread_sigmask(signal.SIG_SETMASK, before)


def lock_of(header: Header, descriptor: int) -> FileLock:
    """Make a handle's lock of the kind that the queue was created with."""
    return FileLock(descriptor) if header.lock == "file" else ShmLock(descriptor, header.lock_name)


def installed() -> bool:
    return find_spec("shmlock") is not None


@cache
def _shmlock() -> Any:
    if not installed():
        raise Unsupported(MISSING)
    with importing():
        import shmlock
        from shmlock import shmlock_exceptions, shmlock_monkey_patch, shmlock_warnings  # noqa: F401  # attributes now

    if sys.version_info < (3, 13) and sys.platform != "win32":
        shmlock_monkey_patch.remove_shm_from_resource_tracker(_BLOCKS, print_warning=False)
    # What it warns of, a block that an interrupt left behind, is what the next holder removes.
    warnings.filterwarnings("ignore", category=shmlock_warnings.ShmLockDanglingSharedMemoryWarning)
    return shmlock


def clear_away(header: Header, descriptor: int) -> None:
    """Remove what a process that was killed inside left, where perhaps no step will come that finds it."""
    if header.lock != "shmlock" or sys.platform == "win32":
        return
    with suppressed(OSError):  # what stays are some bytes, and the queue is gone all the same
        # The file of another user could name any block. Who is inside and alive removes his own.
        if os.fstat(descriptor).st_uid == os.geteuid() and _file.lock(descriptor):
            try:
                _unlink(_BLOCKS + header.lock_name.hex())
            finally:
                _file.unlock(descriptor)


def _unlink(name: str) -> None:
    if sys.platform != "win32":  # there the block goes with its holder
        import _posixshmem

        try:
            _posixshmem.shm_unlink(f"/{name}")
        except FileNotFoundError:
            pass
