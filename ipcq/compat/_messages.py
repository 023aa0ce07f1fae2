"""Queues of pickles without a name, of any number and size of messages, for processes that inherit or receive them.

Messages go through a ring in shared memory, and what it cannot hold goes to the overflow file (`_overflow`). A message
that is too large is stored in the file as a parcel, and its ticket goes through the ring. If the number of messages is
unbounded and the ring is full, a put appends to the backlog in the file. So a put has stored its message when it
returns and needs no feeder thread: the process may exit, or be killed, right after it.

Two rules keep the order of each producer's messages. A put that finds messages in the backlog appends to it. A get
takes from the backlog only after it has found the ring empty, under the lock under which the backlog grows: messages
that were in the ring when another was appended to the backlog are older.

If no ring can be created, all messages go through the backlog.
"""

import os
import select
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, Final

from ipcq._handle.interface import taker
from ipcq._handle.queue import Queue
from ipcq._process.deadline import NEVER, PASSED, SLICE, pause, seconds_of
from ipcq.backend import Request
from ipcq.compat._nameless import create
from ipcq.compat._overflow import Overflow
from ipcq.compat._pickling import PICKLE, Pickle, loads
from ipcq.errors import BackendUnavailable, MessageQueueError, QueueEmpty, QueueFull, TimedOutError

__all__ = ("FileQueue", "RingQueue", "make")

#: Size of a ring for an unbounded number of messages.
_RING_BYTES: Final = 1 << 18
#: Size of a ring for a bounded number of messages. The largest message in the ring gets a share of it, within the next
#: two limits, so that all messages fit; larger ones become parcels.
_BOUNDED_RING_BYTES: Final = 5 << 18
_LEAST_MESSAGE_BYTES: Final = 64
_MOST_MESSAGE_BYTES: Final = 1 << 16
#: The largest number of messages for which a ring is created, which takes 12 MB.
_MOST_MESSAGES: Final = 1 << 17

#: How long a put waits for a consumer if an unbounded ring is full or no blocks are free. After that it appends to the
#: backlog, or stores the parcel apart; both are several times slower.
_FULL_SECONDS: Final = 0.02
#: Time that a put to the backlog yields to consumers, so that the backlog becomes empty.
_YIELD_SECONDS: Final = 0.0001
#: Time that a get waits for the ring before it checks the backlog.
_BACKLOG_POLL_SECONDS: Final = 0.25
#: The longest interval at which a put checks for space in a full backlog.
_SPACE_POLL_SECONDS: Final = 0.005


def make(bound: int) -> "FileQueue":
    """Create a queue for at most `bound` messages, or for any number if it is 0.

    Raises:
        Unsupported: This system lacks what the overflow file needs.
    """
    overflow = Overflow.create()
    if bound > _MOST_MESSAGES:
        return FileQueue(overflow, bound)
    request = Request(buffer_size=_RING_BYTES, max_message_size=min(_MOST_MESSAGE_BYTES, _RING_BYTES // 4))
    if bound:
        largest = max(_LEAST_MESSAGE_BYTES, min(_MOST_MESSAGE_BYTES, _BOUNDED_RING_BYTES // bound))
        request = Request(max_messages=bound, max_message_size=largest)
    try:
        return RingQueue(overflow, bound, create(request))
    except BackendUnavailable:
        return FileQueue(overflow, bound)


class FileQueue:
    """A queue whose messages all go through the backlog: pickles to put, objects to get."""

    def __init__(self, overflow: Overflow, bound: int) -> None:
        self._overflow = overflow
        self._bound = bound

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._overflow, self._bound)

    def put(self, data: Pickle, block: bool = True, timeout: float | None = None) -> None:
        """Store a message.

        Raises:
            QueueFull: The queue held `bound` messages until the timeout.
        """
        deadline = deadline_of(block, timeout)
        since = monotonic()
        while not self._append(data, deadline):
            if monotonic() >= deadline:
                raise QueueFull
            pause(since, deadline, _SPACE_POLL_SECONDS)

    def _append(self, data: Pickle, deadline: float) -> bool:
        def append() -> bool:
            if self._bound and self._overflow.count() >= self._bound:
                return False
            self._overflow.append(bytes(data))
            return True

        try:
            return self._overflow.locked(append, deadline)
        except TimedOutError as error:
            raise QueueFull(error.detail) from error

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next message and return its object.

        Raises:
            QueueEmpty: No message arrived before the timeout.
            Exception: Any exception of loading the pickle; the message is gone.
        """
        deadline = deadline_of(block, timeout)
        poll = select.poll()
        poll.register(self._overflow.wake, select.POLLIN)
        while (data := self._take(deadline)) is None:
            left = min(SLICE, deadline - monotonic())
            if left <= 0:
                raise QueueEmpty
            poll.poll(left * 1000)
        return loads(data)

    def _take(self, deadline: float) -> bytes | None:
        try:
            return self._overflow.locked(self._next, deadline)
        except TimedOutError as error:
            raise QueueEmpty(error.detail) from error

    def _next(self) -> bytes | None:
        return self._overflow.pop()

    def qsize(self) -> int:
        """Return the number of messages."""
        return self._overflow.count()

    def full(self) -> bool:
        """Return whether a put would have to wait."""
        return bool(self._bound) and self.qsize() >= self._bound

    def task_done(self) -> None:
        """Mark one message as processed.

        Raises:
            ValueError: All messages are already marked.
        """

        def count() -> None:
            if self.unfinished() <= 0:
                raise ValueError("task_done() called too many times")
            self._overflow.done += 1

        self._overflow.locked(count)

    def unfinished(self) -> int:
        """Return the number of messages ever put that are not marked as processed."""
        return self._overflow.ever() - self._overflow.done

    def fileno(self) -> int:
        """Return a descriptor that is readable while the queue is not empty; it belongs to this handle."""
        return self._overflow.wake

    def close(self) -> None:
        """Free this handle's descriptors and mappings; the messages stay for other processes."""
        self._overflow.close()


class RingQueue(FileQueue):
    """A queue whose messages go through a ring, or through the overflow file if they do not fit."""

    def __init__(self, overflow: Overflow, bound: int, ring: Queue[bytes]) -> None:
        super().__init__(overflow, bound)
        self._ring = ring
        self._take_from_ring = taker(ring)
        # Messages that fit the ring are `bytes`: a pickle has several parts only if it is larger than 64 KiB.
        self._put: Callable[..., None] = ring.put
        self._get = ring.get
        self._largest = ring.max_message_size
        # A bounded queue never uses the backlog.
        self._slice = None if bound else _BACKLOG_POLL_SECONDS
        self._words = overflow.words
        self._patient = True  # whether a put waits for blocks to become free
        self._taken = 0  # messages taken from the backlog before this handle last appended to it
        self._poll: select.epoll | None = None
        self._poll_pid = 0  # the process that created it

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._overflow, self._bound, self._ring)

    def put(self, data: Pickle, block: bool = True, timeout: float | None = None) -> None:
        words = self._words
        if len(data) > self._largest:
            self._put_parcel(data, block, timeout)
        elif self._bound:
            self._put(data, bool(block), timeout if timeout is None else max(timeout, 0.0))
        elif words[words[0]]:  # the backlog is not empty
            self._put_to_backlog(data, deadline_of(block, timeout))
        else:
            try:
                self._put(data, bool(block), _FULL_SECONDS)
            except QueueFull:
                self._put_to_backlog(data, deadline_of(block, timeout))

    def _put_to_backlog(self, data: Pickle, deadline: float) -> None:
        self._append(data, deadline)
        taken = self._overflow.taken()
        if taken != self._taken:
            self._taken = taken
            sleep(_YIELD_SECONDS)

    def _put_parcel(self, data: Pickle, block: bool, timeout: float | None) -> None:
        parcels = self._overflow.parcels
        deadline = deadline_of(block, timeout)
        try:
            ticket = self._overflow.wrap_in_blocks(data, deadline)
            if ticket is None:
                self._await_blocks(len(data), deadline)
                ticket = self._overflow.wrap(data, deadline)
        except TimedOutError as error:
            raise QueueFull(error.detail) from error
        try:
            self.put(ticket, block, None if timeout is None else max(0.0, deadline - monotonic()))
        except MessageQueueError:
            parcels.drop(ticket)
            raise

    def _await_blocks(self, size: int, deadline: float) -> None:
        """Wait briefly for free blocks; after a wait in vain, do not wait again until some are found free."""
        parcels = self._overflow.parcels
        since = monotonic()
        until = min(deadline, since + _FULL_SECONDS)
        while not parcels.has_room(size):
            if not self._patient:
                return
            if monotonic() >= until:
                self._patient = until == deadline  # the caller's deadline says nothing about the consumers
                return
            pause(since, until)
        self._patient = True

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        words = self._words
        parcels = self._overflow.parcels  # a reference: another thread may close the queue before the parcel is read
        if words[words[0]] or timeout is not None or not block:
            data = self._wait(deadline_of(block, timeout))
        else:
            try:
                data = self._get(True, self._slice)
            except QueueEmpty:
                data = self._wait(NEVER)
        return loads(data) if data[0] == PICKLE else parcels.take(data, loads)

    def _wait(self, deadline: float) -> bytes:
        while True:
            # The backlog may have grown while this handle waited on the ring, which others emptied.
            if self._overflow.count() and (data := self._take(deadline)) is not None:
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
        return self._overflow.pop() if received is None else received[0]

    def qsize(self) -> int:
        return self._ring.qsize() + self._overflow.count()

    def unfinished(self) -> int:
        return super().unfinished() + (self._ring.stats().puts or 0)

    def fileno(self) -> int:
        if self._poll is None or self._poll_pid != os.getpid():
            poll = select.epoll()
            poll.register(self._ring.fileno(), select.EPOLLIN)
            poll.register(self._overflow.wake, select.EPOLLIN)
            self._poll, self._poll_pid = poll, os.getpid()
        return self._poll.fileno()

    def close(self) -> None:
        self._ring.close()
        super().close()
        self._words = self._overflow.words
        if self._poll is not None:
            self._poll.close()


def deadline_of(block: bool, timeout: float | None) -> float:
    """Convert `block` and `timeout`, with the standard library's meaning, into a deadline on `time.monotonic`.

    Raises:
        InvalidArgument: The timeout is NaN, which no wait would ever reach.
    """
    if not block:
        return PASSED
    return NEVER if timeout is None else monotonic() + seconds_of(float(max(timeout, 0.0)), "timeout")
