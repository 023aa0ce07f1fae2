"""What a ring cannot hold: messages that are too large for it, and those that come when it is full.

It is a file without a name, in memory (``memfd_create``), that every user of the queue has open. It has two parts, both
of which grow as they have to and give back what was read:

- *Parcels*, each a message of its own. Who puts one gets a ticket, which goes through the ring in its place.
- A *line*, first in, first out, for a ring that is full: whoever finds the line not empty has to put at its end, and
  whoever finds the ring empty takes from its front. So the order is kept.

Who writes holds the lock of the file, which the kernel takes back when its holder dies, and changes the line by one
store of one word: there are two copies of what describes it, and the word says which one counts. So a process that is
killed here leaves a line as it was before or as it is afterwards. The parcel of a killed writer or reader stays until
the queue goes.

A signal handler or a finaliser that uses the queue during a step of its own thread cannot wait for that step. So its
own step runs at once, under the lock that the thread holds, and the interrupted step starts again from its beginning.
For that, each step checks right before a change whether it was overtaken: between this check and the call in C that
follows, CPython runs neither handlers nor finalisers. Whatever the step has written before the word is stored is read
by nobody.

A FIFO holds a byte exactly while the line is not empty, for whoever waits in poll.
"""

import mmap
import os
import struct
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic
from typing import Any, Final, TypeVar

from ipcq._process.deadline import NEVER, SLICE, pause
from ipcq._process.finaliser import quiet_at_exit
from ipcq._process.forks import Step, at_fork
from ipcq._process.gevent import NativeRLock
from ipcq._process.imports import shortage_reported
from ipcq._process.limits import check_file_size
from ipcq._process.signals import suppressed
from ipcq.compat._nameless import Travelling, arrived, departing
from ipcq.errors import QueueClosed, TimedOutError, Unsupported

if sys.platform != "win32":  # where it can be imported, and says that it is not for there
    import fcntl

__all__ = ("File", "Spill")

R = TypeVar("R")

_PAGE: Final = mmap.PAGESIZE
#: The words of the first page: which copy counts, two copies of (messages, front, end, ever), and two more.
_WHICH, _FIRST, _SECOND, _PARCELS_END, _DONE = 0, 1, 5, 9, 10
_COPY: Final = struct.Struct("=4Q")
_WORD: Final = 8
#: Where the line begins, and where the parcels do. Between them is no more than anybody can write.
_LINE: Final = _PAGE
_PARCELS: Final = 1 << 62
_SIZE: Final = (1 << 63) - _PAGE
_HEAD: Final = struct.Struct("=Q")
_TICKET: Final = struct.Struct("=BQQ")
#: The part of the line that is given back at a time.
_BLOCK: Final = 1 << 20
#: How often the lock is tried before sleeping.
_ATTEMPTS: Final = 50


class _Overtaken(Exception):
    """Another step of the same thread ran during this one: what this one knows of the line is out of date."""


class File:
    """The file, open until nobody holds this: neither the spill nor a thread that copies a parcel meanwhile."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        """Take over a descriptor; a negative number is that of none."""
        self.number = number

    def fileno(self) -> int:
        return self.number

    def write(self, data: bytes, at: int) -> None:
        """Write all of it."""
        rest = memoryview(data)
        while rest:  # one call writes 2 GiB at the most
            written = os.pwrite(self.number, rest, at)
            rest, at = rest[written:], at + written

    def read(self, size: int, at: int) -> bytes:
        """Read so many bytes."""
        data = os.pread(self.number, size, at)
        while len(data) < size:
            data += os.pread(self.number, size - len(data), at + len(data))
        return data

    def free(self, start: int, end: int) -> None:
        """Give back the pages that begin in a part of the file; what else is in the last one is lost too."""
        # It takes a descriptor and a mapping. Where those are not to be had, the pages stay, and no message is lost.
        with suppressed(OSError), mmap.mmap(self.number, end - start, offset=start) as mapped:
            mapped.madvise(mmap.MADV_REMOVE)

    def unwrap(self, ticket: bytes) -> bytes:
        """Take the message that a ticket stands for."""
        _, start, size = _TICKET.unpack(ticket)
        try:
            return self.read(size, start)
        finally:  # without memory for it, nobody can have it any more
            self.free(start, start + size)

    def drop(self, ticket: bytes) -> None:
        """Drop the message that a ticket stands for."""
        _, start, size = _TICKET.unpack(ticket)
        self.free(start, start + size)

    def close(self) -> None:
        """Close it, whoever holds this."""
        if self.number >= 0:
            number, self.number = self.number, -1
            os.close(number)

    __del__ = quiet_at_exit(close)


class Spill:
    """The file and the FIFO, as one process has them open."""

    def __init__(self, file: int, wake: int) -> None:
        """Take over descriptors of the file and of the FIFO; they are closed if this fails."""
        self.wake = wake
        self.file = File(-1)
        with ExitStack() as undo:
            undo.callback(os.close, wake)
            with _closing(file), shortage_reported():
                # Its locks are this process's alone. A mapping holds its open file as well, so it gets one that nobody
                # locks: else a child that was forked meanwhile would keep its parent's lock.
                own = File(_opened_again(file))
                undo.callback(own.close)
                with _closing(_opened_again(file)) as mapped:
                    page = mmap.mmap(mapped, _PAGE)
            undo.pop_all()
        self.file = own
        #: `words[words[0]]` is how many messages stand in the line.
        self.words = memoryview(page).cast("Q")
        self._mutex = NativeRLock()
        self._inside = self._has_lock = self._overtaken = self._ending = False
        _spills.add(self)

    @classmethod
    def create(cls) -> "Spill":
        """Make an empty one.

        Raises:
            Unsupported: This system has no files without a name in memory.
            LimitExceeded: The process may not have so many files open, or none of any size.
        """
        if not hasattr(os, "memfd_create"):
            raise Unsupported("queues without a name rest on memfd_create and /proc of Linux: use ipcq.open")
        check_file_size(_SIZE)
        with shortage_reported(), ExitStack() as undo:
            file = os.memfd_create("ipcq", os.MFD_CLOEXEC)
            undo.callback(os.close, file)
            os.ftruncate(file, _SIZE)
            os.pwrite(file, struct.pack("=11Q", _FIRST, 0, _LINE, _LINE, 0, 0, 0, 0, 0, _PARCELS, 0), 0)
            # A pipe that is opened again is a FIFO without a name, for reading and writing.
            reading, writing = os.pipe()
            with _closing(reading), _closing(writing):
                wake = _opened_again(reading, os.O_NONBLOCK)
            undo.pop_all()
        return cls(file, wake)

    def __reduce__(self) -> tuple[Any, ...]:
        return _adopt, ([departing(self.file.number), departing(self.wake)],)

    # Parcels

    def wrap(self, data: bytes, deadline: float) -> bytes:
        """Store a message, and return its ticket; arguments and exceptions are those of `locked`."""

        def reserve() -> tuple[File, int]:
            words, start = self.words, self.words[_PARCELS_END]
            end = start + -len(data) // _PAGE * -_PAGE
            if self._overtaken:
                raise _Overtaken
            words[_PARCELS_END] = end
            return self.file, start

        file, start = self.locked(reserve, deadline)
        ticket = _TICKET.pack(0, start, len(data))
        try:
            file.write(data, start)
        except BaseException:
            file.drop(ticket)
            raise
        return ticket

    # The line. Who calls these holds the lock.

    def append(self, data: bytes) -> None:
        """Put a message at the end of the line."""
        count, front, end, ever = self._line()
        at, rest = end, memoryview(_HEAD.pack(len(data)) + data)
        while rest:  # one call writes 2 GiB at the most
            if self._overtaken:
                raise _Overtaken
            written = os.pwrite(self.file.number, rest, at)
            rest, at = rest[written:], at + written
        if not count:
            # First, so that a death in between leaves a byte too many and never one too few.
            with suppress(BlockingIOError):
                os.write(self.wake, b"\0")
        self._commit(count + 1, front, end + _HEAD.size + len(data), ever + 1)

    def pop(self) -> bytes | None:
        """Take the message at the front of the line; None where there is none."""
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
            # Free whole blocks, or whole pages of an empty line. The line continues behind them, so no other step can
            # be writing there by now.
            whole = _PAGE if count == 1 else _BLOCK
            start, stop = max(_LINE, front // _BLOCK * _BLOCK), behind // whole * whole
            if start < stop:
                self.file.free(start, stop)
        words = self.words
        with suppress(BlockingIOError):
            if not words[words[_WHICH]]:
                os.read(self.wake, _PAGE)
        return data

    def count(self) -> int:
        """Return how many messages stand in the line; with or without the lock."""
        return self.words[self.words[_WHICH]]

    def taken(self) -> int:
        """Return how many messages were ever taken from the line; with or without the lock."""
        count, _, _, ever = self._line()
        return ever - count

    def ever(self) -> int:
        """Return how many messages were ever put into the line."""
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

    # What was done of what was put, for whoever counts that

    @property
    def done(self) -> int:
        """How many messages were done."""
        return self.words[_DONE]

    @done.setter
    def done(self, count: int) -> None:
        words = self.words
        if self._overtaken:
            raise _Overtaken
        words[_DONE] = count

    # The lock

    def locked(self, step: Callable[[], R], deadline: float = NEVER) -> R:
        """Run a step, which does not wait, while nobody else changes anything.

        An exception out of a signal handler, wherever it comes, leaves nothing locked.

        Args:
            step: What is to be done.
            deadline: On `time.monotonic`. The lock is waited for a tenth of a second at least: nobody holds it longer
                than a copy takes, unless it is stopped.

        Raises:
            TimedOutError: Somebody held it until `deadline`.
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
                raise TimedOutError("another process that is stopped holds the lock of what the queue has spilled")
            pause(since, deadline, 0.005)
        return done[0]

    def _try(self, step: Callable[[], R]) -> tuple[R] | None:
        """Run a step; return None if another process holds the lock, or another step of this thread ran meanwhile."""
        with self._mutex:  # between it and its block no handler runs, as it is written in C
            if self._inside:  # and who came through the mutex nevertheless is the same thread
                return self._overtake(step)
            try:  # without a loop: from 3.12 on what a handler raises where one begins anew passes by the finally
                self._inside = True
                self._overtaken = False
                return self._run(step)
            finally:
                self._inside = False  # first: a step that interrupts this one from here on locks for itself
                try:
                    self._unlock()
                finally:
                    self._unlock()  # where a handler's exception kept the first one from it
                    if self._ending:
                        self._release()

    def _overtake(self, step: Callable[[], R]) -> tuple[R] | None:
        """Run a step during another one of this thread, which continues afterwards and unlocks."""
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
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(self) -> None:
        if self._has_lock:
            fcntl.flock(self.file, fcntl.LOCK_UN)
            self._has_lock = False

    # Ends

    def close(self) -> None:
        """Give back the descriptors and the mapping; twice is once."""
        with self._mutex:
            if self._inside:  # a handler or a finaliser closes: the step that it interrupted releases everything
                self._ending = True
            else:
                self._release()

    @quiet_at_exit
    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        if self.file.number >= 0:
            # A thread that is about to look at the words, or copies a parcel, keeps those that it has.
            self.file = File(-1)
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
        except OSError:
            self._release()  # no descriptor is to be had: it is closed in the child, as a queue of ipcq is
        # Also where a thread that is not in this process held it: its locks are the parent's.
        inherited.close()


def _adopt(travelling: Sequence[Travelling]) -> Spill:
    with arrived(travelling) as (file, wake):
        return Spill(file, wake)


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _opened_again(descriptor: int, flags: int = 0) -> int:
    """Return a descriptor of another open file for the same file."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC | flags)


_spills: weakref.WeakSet[Spill] = weakref.WeakSet()


def _after_fork() -> None:
    for spill in list(_spills):
        spill.after_fork()


at_fork(Step.OTHERS, after_in_child=_after_fork)
