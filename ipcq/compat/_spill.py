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

A FIFO holds a byte exactly while the line is not empty, for whoever waits in poll.
"""

import mmap
import os
import struct
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from threading import Lock, get_ident
from time import monotonic
from typing import Any, Final

from ipcq._deadline import NEVER, SLICE, pause
from ipcq.compat._nameless import Travelling, arrived
from ipcq.errors import QueueClosed, TimedOutError, Unsupported

if sys.platform != "win32":  # where it can be imported, and says that it is not for there
    import fcntl

__all__ = ("Spill",)

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


class Spill:
    """The file, as one process has it open."""

    def __init__(self, file: int, wake: int) -> None:
        """Take over descriptors of the file and of the FIFO; they are closed if this fails."""
        self.wake = wake
        self._file = -1
        with ExitStack() as undo:
            undo.callback(os.close, wake)
            with _closing(file):
                # Its locks are this process's alone. A mapping holds its open file as well, so it gets one that nobody
                # locks: else a child that was forked meanwhile would keep its parent's lock.
                own = _opened_again(file)
                undo.callback(os.close, own)
                with _closing(_opened_again(file)) as mapped:
                    self._page = mmap.mmap(mapped, _PAGE)
            undo.pop_all()
        self._file = own
        #: `words[words[0]]` is how many messages stand in the line.
        self.words = memoryview(self._page).cast("Q")
        self._mutex = Lock()
        self._owner = 0
        _spills.add(self)

    @classmethod
    def create(cls) -> "Spill":
        """Make an empty one.

        Raises:
            Unsupported: This system has no files without a name in memory.
        """
        if not hasattr(os, "memfd_create"):
            raise Unsupported("queues without a name rest on memfd_create and /proc of Linux: use ipcq.open")
        with ExitStack() as undo:
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
        from multiprocessing.reduction import DupFd  # POSIX alone has it

        return _adopt, ([DupFd(self._file), DupFd(self.wake)],)

    # Parcels

    def wrap(self, data: bytes) -> bytes:
        """Store a message, and return the ticket that stands for it."""
        with self.locked():
            start = self.words[_PARCELS_END]
            self.words[_PARCELS_END] = start + -len(data) // _PAGE * -_PAGE
        ticket = _TICKET.pack(0, start, len(data))
        try:
            self._write(data, start)
        except BaseException:
            self.drop(ticket)
            raise
        return ticket

    def unwrap(self, ticket: bytes) -> bytes:
        """Take the message that a ticket stands for."""
        _, start, size = _TICKET.unpack(ticket)
        data = self._read(size, start)
        self._free(start, start + size)
        return data

    def drop(self, ticket: bytes) -> None:
        """Drop the message that a ticket stands for."""
        _, start, size = _TICKET.unpack(ticket)
        self._free(start, start + size)

    # The line. Who calls these holds the lock.

    def append(self, data: bytes) -> None:
        """Put a message at the end of the line."""
        count, front, end, ever = self._line()
        self._write(_HEAD.pack(len(data)) + data, end)
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
            data = os.pread(self._file, _PAGE, front)
            (size,) = _HEAD.unpack_from(data)
            data = data[_HEAD.size : _HEAD.size + size]
            if len(data) < size:
                data += self._read(size - len(data), front + _HEAD.size + len(data))
            if count == 1:
                self._commit(0, _LINE, _LINE, ever)
                self._free(_LINE, end)
            else:
                behind = front + _HEAD.size + size
                self._commit(count - 1, behind, end, ever)
                if front // _BLOCK != behind // _BLOCK:
                    self._free(max(_LINE, front // _BLOCK * _BLOCK), behind // _BLOCK * _BLOCK)
        if count <= 1:
            with suppress(BlockingIOError):
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
        line: tuple[int, int, int, int] = _COPY.unpack_from(self._page, self.words[_WHICH] * _WORD)
        return line

    def _commit(self, *line: int) -> None:
        at = _FIRST + _SECOND - self.words[_WHICH]
        _COPY.pack_into(self._page, at * _WORD, *line)
        self.words[_WHICH] = at

    # What was done of what was put, for whoever counts that

    @property
    def done(self) -> int:
        """How many messages were done."""
        return self.words[_DONE]

    @done.setter
    def done(self, count: int) -> None:
        self.words[_DONE] = count

    # The lock, for a ``with`` statement. It takes a fraction of what a generator around it would.

    def locked(self, deadline: float = NEVER) -> "Spill":
        """Keep all others from changing anything, in a ``with`` statement.

        Args:
            deadline: On `time.monotonic`. The lock is waited for a tenth of a second at least: nobody holds it longer
                than a copy takes, unless it is stopped.

        Raises:
            TimedOutError: Somebody held it until `deadline`.
            QueueClosed: This handle is closed.
        """
        deadline = max(deadline, monotonic() + SLICE)
        self._keep_threads_out(deadline)
        try:
            if self._file < 0:
                raise QueueClosed
            if not self._try_flock():
                _until(self._try_flock, deadline)
        except BaseException:
            self._let_threads_in()
            raise
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._let_threads_in()

    def _keep_threads_out(self, deadline: float) -> None:
        if self._owner == get_ident():
            raise RuntimeError("a signal handler cannot use a queue in the middle of the call that it interrupted")
        # By trying, so that a timeout is kept where the holder was stopped.
        if not self._try_mutex():
            _until(self._try_mutex, deadline)
        self._owner = get_ident()

    def _let_threads_in(self) -> None:
        self._owner = 0
        self._mutex.release()

    def _try_mutex(self) -> bool:
        return self._mutex.acquire(blocking=False)

    def _try_flock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    # The file

    def _write(self, data: bytes, at: int) -> None:
        rest = memoryview(data)
        while rest:  # one call writes 2 GiB at the most
            written = os.pwrite(self._file, rest, at)
            rest, at = rest[written:], at + written

    def _read(self, size: int, at: int) -> bytes:
        data = os.pread(self._file, size, at)
        while len(data) < size:
            data += os.pread(self._file, size - len(data), at + len(data))
        return data

    def _free(self, start: int, end: int) -> None:
        """Give back the pages that begin in a part of the file; what else is in the last one is lost too."""
        with self._mapped(start, end - start) as mapped:
            mapped.madvise(mmap.MADV_REMOVE)

    def _mapped(self, start: int, size: int) -> mmap.mmap:
        return mmap.mmap(self._file, size, offset=start)

    # Ends

    def close(self) -> None:
        """Give back the descriptors and the mapping; twice is once."""
        self._keep_threads_out(NEVER)
        try:
            self._release()
        finally:
            self._let_threads_in()

    def __del__(self) -> None:
        self._release()

    def _release(self) -> None:
        if self._file >= 0:
            file, self._file = self._file, -1
            self.words.release()
            self._page.close()
            os.close(self.wake)
            os.close(file)

    def _after_fork(self) -> None:
        self._mutex = Lock()
        self._owner = 0
        inherited = self._file
        if inherited < 0:
            return
        try:
            self._file = _opened_again(inherited)
        except OSError:
            self._release()  # no descriptor is to be had: it is closed in the child, as a queue of ipcq is
        else:
            os.close(inherited)


def _adopt(travelling: Sequence[Travelling]) -> Spill:
    file, wake = arrived(travelling)
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


def _until(attempt: Callable[[], bool], deadline: float) -> None:
    """Try until it works.

    Raises:
        TimedOutError: It did not work until `deadline`.
    """
    since = monotonic()
    # Nobody keeps others waiting for longer than these attempts take, unless it copies much or is stopped.
    while not any(attempt() for _ in range(_ATTEMPTS)):
        if monotonic() >= deadline:
            raise TimedOutError("another process that is stopped holds the lock of what the queue has spilled")
        pause(since, deadline, 0.005)


_spills: weakref.WeakSet[Spill] = weakref.WeakSet()


def _after_fork() -> None:
    for spill in list(_spills):
        spill._after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
