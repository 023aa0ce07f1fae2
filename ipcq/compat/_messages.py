"""A queue of pickles without a name: of any number, of any size, for processes that inherit it or are handed it.

Messages go through a ring in shared memory. What the ring cannot take goes to the spill (`_spill`): a message that is
too large as a parcel, whose ticket goes through the ring; and where the number of messages has no bound, a put that
finds the ring full stands in line behind it. So a put stores its message before it returns, and needs no thread that
would do so later: a process may end, or be killed, right after a put.

The order of each producer's messages is kept by two rules. Whoever finds the line not empty puts at its end. Whoever
takes from the line has looked at the ring before, under the lock under which the line grows: what stood in the ring
when a message joined the line is older.

Where no ring can be made, all messages stand in line.
"""

import os
import select
from time import monotonic, sleep
from typing import Any, Final

from ipcq._handle.interface import taker
from ipcq._handle.queue import Queue
from ipcq._process.deadline import NEVER, PASSED, SLICE, pause, seconds_of
from ipcq.backend import Request
from ipcq.compat._nameless import create
from ipcq.compat._pickling import PICKLE
from ipcq.compat._spill import Spill
from ipcq.errors import BackendUnavailable, MessageQueueError, QueueEmpty, QueueFull, TimedOutError

__all__ = ("Line", "RingAndLine", "make")

#: Bytes of a ring for any number of messages.
_ROOM: Final = 1 << 18
#: Bytes of a ring for a bounded number of messages, and of the largest that does not become a parcel. They all fit.
_BOUNDED_ROOM: Final = 5 << 18
_SMALLEST: Final = 64
_LARGEST: Final = 1 << 16
#: The largest number for which a ring is made, which takes 12 MB.
_MOST: Final = 1 << 17

#: Seconds that a put without a bound waits for a consumer that is at work, before its message stands in line, where all
#: takes several times as long.
_PATIENCE: Final = 0.02
#: Seconds that a put into the line lets those go first who are taking from it, so that it comes to an end.
_COURTESY: Final = 0.0001
#: Seconds that a get waits for the ring before it looks at the line.
_LOOK: Final = 0.25
#: Seconds at the most between two looks whether there is space in a line that is full.
_SPACE: Final = 0.005


def make(bound: int) -> "Line":
    """Make a queue for at most so many messages; 0 for any number.

    Raises:
        Unsupported: This system cannot.
    """
    spill = Spill.create()
    if bound > _MOST:
        return Line(spill, bound)
    request = Request(buffer_size=_ROOM)
    if bound:
        largest = max(_SMALLEST, min(_LARGEST, _BOUNDED_ROOM // bound))
        request = Request(max_messages=bound, max_message_size=largest)
    try:
        return RingAndLine(spill, bound, create(request))
    except BackendUnavailable:
        return Line(spill, bound)


class Line:
    """Messages that all stand in line."""

    def __init__(self, spill: Spill, bound: int) -> None:
        self._spill = spill
        self._bound = bound

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._spill, self._bound)

    def put(self, data: bytes, block: bool = True, timeout: float | None = None) -> None:
        """Store a message.

        Raises:
            QueueFull: As many as there may be were there all the time.
        """
        deadline = deadline_of(block, timeout)
        since = monotonic()
        while not self._stand(data, deadline):
            if monotonic() >= deadline:
                raise QueueFull
            pause(since, deadline, _SPACE)

    def _stand(self, data: bytes, deadline: float) -> bool:
        def stand() -> bool:
            if self._bound and self._spill.count() >= self._bound:
                return False
            self._spill.append(data)
            return True

        try:
            return self._spill.locked(stand, deadline)
        except TimedOutError as error:
            raise QueueFull(error.detail) from error

    def get(self, block: bool = True, timeout: float | None = None) -> bytes:
        """Take the next message.

        Raises:
            QueueEmpty: None came in time.
        """
        deadline = deadline_of(block, timeout)
        poll = select.poll()
        poll.register(self._spill.wake, select.POLLIN)
        while (data := self._take(deadline)) is None:
            left = min(SLICE, deadline - monotonic())
            if left <= 0:
                raise QueueEmpty
            poll.poll(left * 1000)
        return data

    def _take(self, deadline: float) -> bytes | None:
        try:
            return self._spill.locked(self._next, deadline)
        except TimedOutError as error:
            raise QueueEmpty(error.detail) from error

    def _next(self) -> bytes | None:
        return self._spill.pop()

    def qsize(self) -> int:
        """Count the messages."""
        return self._spill.count()

    def full(self) -> bool:
        """Tell whether a put would have to wait."""
        return bool(self._bound) and self.qsize() >= self._bound

    def task_done(self) -> None:
        """Note that the work on one message is done.

        Raises:
            ValueError: It is for all.
        """

        def count() -> None:
            if self.unfinished() <= 0:
                raise ValueError("task_done() called too many times")
            self._spill.done += 1

        self._spill.locked(count)

    def unfinished(self) -> int:
        """Count the messages ever put whose work is not done."""
        return self._spill.ever() - self._spill.done

    def fileno(self) -> int:
        """Return a descriptor that is readable while there are messages; it belongs to this handle."""
        return self._spill.wake

    def close(self) -> None:
        """Give back all that this handle holds; the messages stay for the others."""
        self._spill.close()


class RingAndLine(Line):
    """Messages that go through a ring, and stand in line where they do not fit."""

    def __init__(self, spill: Spill, bound: int, ring: Queue[bytes]) -> None:
        super().__init__(spill, bound)
        self._ring = ring
        self._take_from_ring = taker(ring)
        self._put = ring.put
        self._get = ring.get
        self._largest = ring.max_message_size
        # Where there is a bound, nobody ever stands in line.
        self._slice = None if bound else _LOOK
        self._words = spill.words
        self._taken = 0  # of the line, when this handle last put something there
        self._poll: select.epoll | None = None
        self._poller = 0  # the process that made it

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._spill, self._bound, self._ring)

    def put(self, data: bytes, block: bool = True, timeout: float | None = None) -> None:
        words = self._words
        if len(data) > self._largest:
            self._put_parcel(data, block, timeout)
        elif self._bound:
            self._put(data, bool(block), timeout if timeout is None else max(timeout, 0.0))
        elif words[words[0]]:  # somebody stands in line
            self._join_line(data, deadline_of(block, timeout))
        else:
            try:
                self._put(data, bool(block), _PATIENCE)
            except QueueFull:
                self._join_line(data, deadline_of(block, timeout))

    def _join_line(self, data: bytes, deadline: float) -> None:
        self._stand(data, deadline)
        taken = self._spill.taken()
        if taken != self._taken:
            self._taken = taken
            sleep(_COURTESY)

    def _put_parcel(self, data: bytes, block: bool, timeout: float | None) -> None:
        file = self._spill.file
        deadline = deadline_of(block, timeout)
        try:
            ticket = self._spill.wrap(data, deadline)
        except TimedOutError as error:
            raise QueueFull(error.detail) from error
        try:
            self.put(ticket, block, None if timeout is None else max(0.0, deadline - monotonic()))
        except MessageQueueError:
            file.drop(ticket)
            raise

    def get(self, block: bool = True, timeout: float | None = None) -> bytes:
        words = self._words
        file = self._spill.file  # now: what is taken can be read though another thread closes the queue meanwhile
        if words[words[0]] or timeout is not None or not block:
            data = self._wait(deadline_of(block, timeout))
        else:
            try:
                data = self._get(True, self._slice)
            except QueueEmpty:
                data = self._wait(NEVER)
        return data if data[0] == PICKLE else file.unwrap(data)

    def _wait(self, deadline: float) -> bytes:
        while True:
            # It may have grown while this handle waited on a ring that others emptied.
            if self._spill.count() and (data := self._take(deadline)) is not None:
                return data
            left = deadline - monotonic()
            if self._slice is not None:
                left = min(self._slice, left)
            try:
                return self._get(left > 0, max(left, 0.0))
            except QueueEmpty:
                if monotonic() >= deadline:
                    raise

    def _next(self) -> bytes | None:
        received = self._take_from_ring()
        return self._spill.pop() if received is None else received[0]

    def qsize(self) -> int:
        return self._ring.qsize() + self._spill.count()

    def unfinished(self) -> int:
        return super().unfinished() + (self._ring.stats().puts or 0)

    def fileno(self) -> int:
        if self._poll is None or self._poller != os.getpid():
            poll = select.epoll()
            poll.register(self._ring.fileno(), select.EPOLLIN)
            poll.register(self._spill.wake, select.EPOLLIN)
            self._poll, self._poller = poll, os.getpid()
        return self._poll.fileno()

    def close(self) -> None:
        self._ring.close()
        super().close()
        self._words = self._spill.words
        if self._poll is not None:
            self._poll.close()


def deadline_of(block: bool, timeout: float | None) -> float:
    """Turn arguments as the standard library takes them into a deadline on `time.monotonic`.

    Raises:
        InvalidArgument: The timeout is NaN, which no wait would ever reach.
    """
    if not block:
        return PASSED
    return NEVER if timeout is None else monotonic() + seconds_of(float(max(timeout, 0.0)), "timeout")
