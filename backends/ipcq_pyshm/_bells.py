"""Bells, which end a wait at once instead of at its next poll. Linux only.

*Protocol.* A bell is a word in the file: 1 while processes may sleep. A process that is going to sleep sets the bell in
a step, under the queue's lock, unless that step finds that its wait is over. Then it sleeps in ``futex(2)`` while the
word is 1. Every step reads the bells together with the state. If it has stored messages or made space, and the bell is
set, it wakes as many processes after it has released the lock. If fewer of them sleep, it resets the bell, and then
wakes all that fell asleep before the reset.

*No ring is missed*, because the lock orders the steps, in any memory model. A step after the one that set the bell sees
the bell. The step that set it has seen every commit before it. A process that falls asleep only after the reset does
not sleep, because the kernel compares the word. One that fell asleep before is woken after the reset. Both read the
state again.

*A ring is lost* if the process that was to ring is killed or stopped after its commit, or if the process that was woken
is. So no promise depends on a bell: a waiting process also polls the state, after it has slept for as long as it has
waited so far, and at the end of each slice of its wait. So a lost ring delays a message by at most `ipcq.backend.SLICE`
(100 ms). A killed process leaves no count, only a bell that is set: the next step resets it.

*The mapping.* The word is mapped because the kernel takes the address of a futex. But this process never reads or
writes through the mapping. So if the file is truncated, the system call fails, and there is no SIGBUS. The mapping is
made from a separate open file, which is never locked: a mapping keeps its open file open, and a forked child inherits
the mapping. Otherwise, if the parent were killed, the child would keep the parent's lock.
"""

import errno
import os
import sys
from functools import cache
from time import sleep
from typing import Any, Final

from ipcq.backend import importing, reraise_from_handler
from ipcq_pyshm import _file
from ipcq_pyshm._layout import BELL, BELLS_AT

#: The bells: one rings for messages, one for space.
MESSAGES: Final = 0
SPACE: Final = 1

#: As a count: all processes that sleep.
ALL: Final = (1 << 31) - 1

#: A bell that is set, and one that is not.
SET: Final = BELL.pack(1)
RESET: Final = BELL.pack(0)

# linux/futex.h
_WAIT: Final = 0
_WAKE: Final = 1

# Numbers of futex(2) on little-endian architectures with 64 bits, where `struct timespec` consists of two longs.
_NUMBERS: Final = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "loongarch64": 98, "ppc64le": 221}

#: Seconds to sleep if the bell was reset before this process fell asleep: a hostile process could keep resetting it.
_RETRY_SECONDS: Final = 0.00005
#: The share of its time for which a wait sleeps if the kernel refuses the call.
_REFUSED_SHARE: Final = 0.125

# sys/mman.h
_PROT_READ: Final = 1
_MAP_SHARED: Final = 1
_MAPPED_BYTES: Final = 4096


def bell_at(bell: int) -> int:
    """Return the offset of a bell in the file."""
    return BELLS_AT + bell * BELL.size


class Bells:
    """The bells of one queue.

    Args:
        descriptor: The queue's file.
        kernel: The system calls.
        address: Where the beginning of the file is mapped.
    """

    def __init__(self, descriptor: int, kernel: "Kernel", address: int) -> None:
        self._descriptor = descriptor
        self._kernel = kernel
        self._address = address

    def wait(self, bell: int, seconds: float) -> bool:
        """Sleep until the bell rings, a signal arrives, or the time is over; return whether it rang.

        The caller has set the bell.
        """
        failure = self._kernel.wait(self._word(bell), seconds)
        if failure == errno.EAGAIN:
            sleep(min(seconds, _RETRY_SECONDS))
        elif failure not in (0, errno.EINTR, errno.ETIMEDOUT):
            sleep(seconds * _REFUSED_SHARE)
        return not failure

    def ring(self, bell: int, count: int) -> None:
        """Wake up to `count` processes. Never fails, because the step that rings is complete."""
        try:
            if self._kernel.wake(self._word(bell), count) < count:
                _file.pwrite(self._descriptor, RESET, bell_at(bell))
                self._kernel.wake(self._word(bell), ALL)
        except (OSError, MemoryError) as error:
            reraise_from_handler(error)

    def _word(self, bell: int) -> int:
        return self._address + bell_at(bell)

    def close(self) -> None:
        self._kernel.unmap(self._address)


class Kernel:
    """System calls that Python does not offer, through the C library. They release the GIL."""

    def __init__(self, number: int) -> None:
        import ctypes

        class Timespec(ctypes.Structure):
            _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))

        # A separate object, because the argument types that are set here affect all users of an object.
        library = ctypes.CDLL(None, use_errno=True)
        library.syscall.restype = ctypes.c_long
        library.syscall.argtypes = (
            ctypes.c_long,
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.POINTER(Timespec),
            ctypes.c_void_p,
            ctypes.c_int,
        )
        library.mmap.restype = ctypes.c_void_p
        library.mmap.argtypes = (
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_long,
        )
        library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        self._number = number
        self._library: Any = library
        self._timespec: Any = Timespec
        self._errno = ctypes.get_errno
        self._failed = ctypes.c_void_p(-1).value

    def wait(self, word: int, seconds: float) -> int:
        """Sleep while the word at this address is 1; return 0 if woken, else the error number."""
        time = self._timespec(int(seconds), int(seconds % 1 * 1e9))
        woken = not self._library.syscall(self._number, word, _WAIT, 1, time, None, 0)
        return 0 if woken else self._errno()

    def wake(self, word: int, count: int) -> int:
        """Wake up to `count` processes; return how many slept, or -1 on an error."""
        woken: int = self._library.syscall(self._number, word, _WAKE, count, None, None, 0)
        return woken

    def map(self, descriptor: int) -> int:
        """Map the beginning of a file, and return its address.

        Raises:
            OSError: The system refused.
        """
        address: int = self._library.mmap(None, _MAPPED_BYTES, _PROT_READ, _MAP_SHARED, descriptor, 0)
        if address == self._failed:
            raise OSError(self._errno(), os.strerror(self._errno()))
        return address

    def unmap(self, address: int) -> None:
        self._library.munmap(address, _MAPPED_BYTES)


@cache
def kernel_here() -> Kernel | None:
    """Return the kernel's part in bells, or None if they cannot be used here. It imports, so no lock may be held."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32 or os.uname().machine not in _NUMBERS:
        return None
    try:
        with importing():
            return Kernel(_NUMBERS[os.uname().machine])
    except (ImportError, OSError):  # a Python without ctypes, or without a C library to load
        return None


def bells_of(descriptor: int, kernel: Kernel | None) -> Bells | None:
    """Return the bells of a queue, or None if they cannot be used here.

    Call it under `no_fork`, and keep the result before the lock is released: a child forked in between would have a
    mapping that nobody knows.
    """
    if kernel is None:
        return None
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return Bells(descriptor, kernel, kernel.map(own))
        finally:
            os.close(own)
    except OSError as error:
        reraise_from_handler(error)
        return None
