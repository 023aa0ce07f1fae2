"""The overflow file of a ring: messages that are too large for the ring, and a backlog for when it is full.

It is an anonymous file in memory (``memfd_create``) that every process of the queue has open. Its two parts grow as
needed, and pages that were read are freed:

- *Parcels* (`_parcels`), one for each large message. The producer gets a ticket, which goes through the ring instead of
  the message.
- The *backlog*, a FIFO for when the ring is full. A producer that finds messages in the backlog must append to it, and
  a consumer that finds the ring empty takes from the front. That keeps the order.

A writer holds the lock of the file, which the kernel releases when its holder dies, and commits a change of the backlog
by storing one word: the state of the backlog exists in two copies, and the word selects the valid one. So a killed
process leaves the backlog as it was before or after its change. A parcel whose writer or reader was killed stays until
the queue is freed.

A signal handler or a finaliser that uses the queue during a step of its own thread cannot wait for that step. So its
own step runs at once, under the lock that the thread holds, and the interrupted step starts again from its beginning.
For that, each step checks right before a change whether it was overtaken: between this check and the call in C that
follows, CPython runs neither handlers nor finalisers. What an overtaken step has written is never read, because it has
not stored the word.

A FIFO holds a byte exactly while the backlog is not empty, so that processes can poll it.
"""

import mmap
import os
import struct
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar

from ipcq._process.deadline import NEVER, SLICE, pause
from ipcq._process.finaliser import quiet_at_exit
from ipcq._process.forks import Step, at_fork
from ipcq._process.gevent import NativeRLock
from ipcq._process.imports import shortage_reported
from ipcq._process.limits import check_file_size
from ipcq.compat._file import File
from ipcq.compat._nameless import Travelling, arrived, departing
from ipcq.compat._parcels import BLOCKS_END, TICKET, Parcels, offset_of
from ipcq.compat._pickling import Pickle
from ipcq.errors import QueueClosed, TimedOutError, Unsupported

if sys.platform != "win32":  # there this module can be imported, and `Overflow.create` raises Unsupported
    import fcntl

__all__ = ("Overflow",)

R = TypeVar("R")

_PAGE: Final = mmap.PAGESIZE
#: The words of the first page: which copy is valid, two copies of (messages, front, end, ever), and two more.
_WHICH, _FIRST, _SECOND, _PARCELS_END, _DONE = 0, 1, 5, 9, 10
_COPY: Final = struct.Struct("=4Q")
_WORD: Final = 8
_WORDS_BYTES: Final = 11 * _WORD
#: Offsets of the backlog and of the parcels apart, too far apart for the backlog ever to reach the parcels.
_BACKLOG: Final = BLOCKS_END
_PARCELS: Final = 1 << 62
_SIZE: Final = (1 << 63) - _PAGE
_HEAD: Final = struct.Struct("=Q")
#: The backlog is freed in parts of this size.
_BLOCK_BYTES: Final = 1 << 20
#: Number of attempts to take the lock before sleeping.
_ATTEMPTS: Final = 50


class _Overtaken(Exception):
    """Another step of the same thread ran during this one, so that this one's copy of the state is out of date."""


class Overflow:
    """One process's handle to the overflow file and its FIFO."""

    def __init__(self, file: int, wake: int) -> None:
        """Take ownership of the descriptors of the file and of the FIFO, which are closed if this fails."""
        self.wake = wake
        self.file = File(-1)
        with ExitStack() as undo:
            undo.callback(os.close, wake)
            with _closing(file), shortage_reported():
                # A lock belongs to an open file, so this process opens its own. A mapping refers to its open file too,
                # so it gets another one, which nobody locks: otherwise a forked child would inherit its parent's lock.
                own = File(_opened_again(file))
                undo.callback(own.close)
                with _closing(_opened_again(file)) as mapped:
                    front = memoryview(mmap.mmap(mapped, BLOCKS_END))
            undo.pop_all()
        self.file = own
        self.parcels = Parcels(own, front)
        #: `words[words[0]]` is the number of messages in the backlog.
        self.words = front[:_WORDS_BYTES].cast("Q")
        self._mutex = NativeRLock()
        self._inside = self._has_lock = self._overtaken = self._ending = False
        _instances.add(self)

    @classmethod
    def create(cls) -> "Overflow":
        """Create an empty overflow file.

        Raises:
            Unsupported: This system has no ``memfd_create``.
            LimitExceeded: The process may not open more files, or RLIMIT_FSIZE forbids a file of this size.
        """
        if not hasattr(os, "memfd_create"):
            raise Unsupported("queues without a name need memfd_create and /proc of Linux: use ipcq.open")
        check_file_size(_SIZE)
        with shortage_reported(), ExitStack() as undo:
            file = os.memfd_create("ipcq", os.MFD_CLOEXEC)
            undo.callback(os.close, file)
            os.ftruncate(file, _SIZE)
            os.pwrite(file, struct.pack("=11Q", _FIRST, 0, _BACKLOG, _BACKLOG, 0, 0, 0, 0, 0, _PARCELS, 0), 0)
            # Opening a pipe again gives a FIFO without a name, for reading and writing.
            reading, writing = os.pipe()
            with _closing(reading), _closing(writing):
                wake = _opened_again(reading, os.O_NONBLOCK)
            undo.pop_all()
        return cls(file, wake)

    def __reduce__(self) -> tuple[Any, ...]:
        return _adopt, ([departing(self.file.number), departing(self.wake)],)

    # Parcels

    def wrap(self, data: Pickle, deadline: float) -> bytes:
        """Store a message and return its ticket; deadline and exceptions are those of `locked`."""
        return _written(data, *self.locked(partial(self._reserve, len(data)), deadline))

    def wrap_in_blocks(self, data: Pickle, deadline: float) -> bytes | None:
        """Store a message in blocks and return its ticket, or None if no blocks are free; the rest is as for `wrap`."""
        reserved = self.locked(partial(self._reserve_blocks, len(data)), deadline)
        return None if reserved is None else _written(data, *reserved)

    def _reserve(self, size: int) -> tuple[Parcels, int]:
        words, start = self.words, self.words[_PARCELS_END]
        reserved = self._reserve_blocks(size)
        if reserved is not None:
            return reserved
        end = start + -size // _PAGE * -_PAGE
        if self._overtaken:
            raise _Overtaken
        words[_PARCELS_END] = end
        return self.parcels, start

    def _reserve_blocks(self, size: int) -> tuple[Parcels, int] | None:
        parcels = self.parcels
        blocks = parcels.free_blocks(size)
        if blocks is None:
            return None
        used, marks = parcels.used, b"\1" * (blocks.stop - blocks.start)
        if self._overtaken:
            raise _Overtaken
        used[blocks] = marks
        return parcels, offset_of(blocks.start)

    # The backlog. Callers hold the lock.

    def append(self, data: bytes) -> None:
        """Append a message to the backlog."""
        count, front, end, ever = self._line()
        at, rest = end, memoryview(_HEAD.pack(len(data)) + data)
        while rest:  # one call writes at most 2 GiB
            if self._overtaken:
                raise _Overtaken
            written = os.pwrite(self.file.number, rest, at)
            rest, at = rest[written:], at + written
        if not count:
            # Before the commit, so that a kill in between leaves one byte too many and never one too few.
            with suppress(BlockingIOError):
                os.write(self.wake, b"\0")
        self._commit(count + 1, front, end + _HEAD.size + len(data), ever + 1)

    def pop(self) -> bytes | None:
        """Take the oldest message of the backlog, or return None if it is empty."""
        count, front, end, ever = self._line()
        data = None
        if count:
            data = os.pread(self.file.number, _PAGE, front)
            (size,) = _HEAD.unpack_from(data)
            data = data[_HEAD.size : _HEAD.size + size]
            if len(data) < size:
                data += self.file.read(size - len(data), front + _HEAD.size + len(data))
            behind = front + _HEAD.size + size
            self._commit(count - 1, behind, end, ever)
            # Free whole blocks, or whole pages of an empty backlog. The backlog continues behind them, so no other step
            # can be writing there by now.
            whole = _PAGE if count == 1 else _BLOCK_BYTES
            start, stop = max(_BACKLOG, front // _BLOCK_BYTES * _BLOCK_BYTES), behind // whole * whole
            if start < stop:
                self.file.free(start, stop)
        words = self.words
        with suppress(BlockingIOError):
            if not words[words[_WHICH]]:
                os.read(self.wake, _PAGE)
        return data

    def count(self) -> int:
        """Return the number of messages in the backlog; needs no lock."""
        return self.words[self.words[_WHICH]]

    def taken(self) -> int:
        """Return the number of messages ever taken from the backlog; needs no lock."""
        count, _, _, ever = self._line()
        return ever - count

    def ever(self) -> int:
        """Return the number of messages ever appended to the backlog."""
        return self._line()[3]

    def _line(self) -> tuple[int, int, int, int]:
        line: tuple[int, int, int, int] = _COPY.unpack_from(self.words, self.words[_WHICH] * _WORD)
        return line

    def _commit(self, count: int, front: int, end: int, ever: int) -> None:
        words = self.words
        at = _FIRST + _SECOND - words[_WHICH]
        _COPY.pack_into(words, at * _WORD, count, front, end, ever)
        if self._overtaken:
            raise _Overtaken
        words[_WHICH] = at

    # Messages marked as processed, for joinable queues

    @property
    def done(self) -> int:
        """Number of messages marked as processed."""
        return self.words[_DONE]

    @done.setter
    def done(self, count: int) -> None:
        words = self.words
        if self._overtaken:
            raise _Overtaken
        words[_DONE] = count

    # The lock

    def locked(self, step: Callable[[], R], deadline: float = NEVER) -> R:
        """Run a step, which must not wait, under the lock.

        An exception raised by a signal handler at any point leaves nothing locked.

        Args:
            step: The function to run.
            deadline: On `time.monotonic`. The call waits for the lock for at least 0.1 s: a holder needs it no longer
                than a copy takes, unless its process is stopped.

        Raises:
            TimedOutError: Another process held the lock until `deadline`.
            QueueClosed: This handle is closed.
        """
        attempts, since = 0, 0.0
        while (done := self._try(step)) is None:
            attempts += 1
            if attempts < _ATTEMPTS:
                continue
            if not since:
                since = monotonic()
                deadline = max(deadline, since + SLICE)
            if monotonic() >= deadline:
                raise TimedOutError("another process, probably stopped, holds the lock of the queue's overflow file")
            pause(since, deadline, 0.005)
        return done[0]

    def _try(self, step: Callable[[], R]) -> tuple[R] | None:
        """Run a step; return None if another process holds the lock, or another step of this thread ran meanwhile."""
        with self._mutex:  # written in C, so no handler runs between entering it and the block
            if self._inside:  # the mutex is reentrant, so this is the same thread
                return self._overtake(step)
            try:  # no loop here: since 3.12, an exception of a handler at a loop's jump back bypasses the finally
                self._inside = True
                self._overtaken = False
                return self._run(step)
            finally:
                self._inside = False  # first, so that a step that interrupts this one from here on takes its own lock
                try:
                    self._unlock()
                finally:
                    self._unlock()  # in case a handler's exception interrupted the first one
                    if self._ending:
                        self._release()

    def _overtake(self, step: Callable[[], R]) -> tuple[R] | None:
        """Run a step inside another one of this thread, which continues afterwards and unlocks."""
        try:
            self._overtaken = False
            return self._run(step)
        finally:
            self._overtaken = True

    def _run(self, step: Callable[[], R]) -> tuple[R] | None:
        if self.file.number < 0 or self._ending:
            raise QueueClosed
        try:
            return (step(),) if self._try_flock() else None
        except _Overtaken:
            return None

    def _try_flock(self) -> bool:
        self._has_lock = True
        try:
            fcntl.flock(self.file.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(self) -> None:
        if self._has_lock:
            fcntl.flock(self.file.number, fcntl.LOCK_UN)
            self._has_lock = False

    # Ends

    def close(self) -> None:
        """Release the descriptors and the mapping; a second call does nothing."""
        with self._mutex:
            if self._inside:  # called by a handler or a finaliser: the interrupted step releases everything
                self._ending = True
            else:
                self._release()

    @quiet_at_exit
    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        if self.file.number >= 0:
            # A thread that is reading the words or copying a parcel has its own references.
            self.file = File(-1)
            self.parcels = Parcels(self.file, memoryview(b""))
            self.words = memoryview(bytes(_PAGE)).cast("Q")
            os.close(self.wake)

    def after_fork(self) -> None:
        self._mutex = NativeRLock()
        self._inside = self._has_lock = False
        inherited = self.file
        if inherited.number < 0:
            return
        try:
            self.file = File(_opened_again(inherited.number))
            self.parcels = Parcels(self.file, self.parcels.mapped)
        except OSError:
            self._release()  # no descriptor available: it is closed in the child, like a queue of ipcq
        # Even if a thread of the parent held it: its locks belong to the parent.
        inherited.close()


def _written(data: Pickle, parcels: Parcels, start: int) -> bytes:
    """Store a message in the space that was reserved for it, and return its ticket."""
    ticket = TICKET.pack(0, start, len(data))
    try:
        parcels.write(start, data)
    except BaseException:
        parcels.drop(ticket)
        raise
    return ticket


def _adopt(travelling: Sequence[Travelling]) -> Overflow:
    with arrived(travelling) as (file, wake):
        return Overflow(file, wake)


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _opened_again(descriptor: int, flags: int = 0) -> int:
    """Open the same file again, and return the new descriptor."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC | flags)


_instances: weakref.WeakSet[Overflow] = weakref.WeakSet()


def _after_fork() -> None:
    for overflow in list(_instances):
        overflow.after_fork()


at_fork(Step.OTHERS, after_in_child=_after_fork)
