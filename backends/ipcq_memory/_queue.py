"""One queue: a heap and its lock, the doorbells, and what waits.

The lock is re-entrant, because a signal handler or a finaliser may call the queue while its thread holds the lock.
Such a call cannot wait for the call that it interrupted. So it runs at once, and the interrupted step starts again
unless it has already stored or taken its message. For that, each step checks right before it stores or takes whether it
was overtaken: between this check and the following call in C, CPython runs neither handlers nor finalisers. A handler's
exception may also end a step after any call, so a ``finally`` that calls nothing accounts for what was stored or taken.
"""

import heapq
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from ipcq.backend import (
    NativeRLock,
    Notice,
    Received,
    Request,
    Stats,
    default_limits,
    give_notice,
    reraise_from_handler,
)

if TYPE_CHECKING:
    from ipcq_memory._channel import MemoryChannel

R = TypeVar("R")


class Overtaken(Exception):
    """Another step of the same thread ran during this step: what this step has read is out of date."""


class MemoryQueue:
    """One queue, shared by its channels."""

    def __init__(self, request: Request) -> None:
        self.attributes = default_limits(request)
        self.linked = True
        self.down = False
        self.holders = 0
        self.registrant: tuple[MemoryChannel, Notice] | None = None
        self.bells: list[Doorbell] = []
        self.puts = self.gets = self.dropped = self.high_water_mark = self.waits = self.timeouts = 0
        self._most_messages = sys.maxsize if self.attributes.max_messages is None else self.attributes.max_messages
        self._most_bytes = sys.maxsize if self.attributes.buffer_size is None else self.attributes.buffer_size
        self._lock = NativeRLock()
        self._busy = self._overtaken = False
        # One locked lock for each waiting thread. Not conditions: if a signal handler raises in `wait`, a condition
        # releases the lock too early.
        self.readers: list[threading.Lock] = []
        self.writers: list[threading.Lock] = []
        self._bytes = self.bytes_put = 0
        # Highest priority first, then oldest first.
        self._heap: list[tuple[int, int, bytes]] = []
        self._tickets = count()

    def alone(self, step: Callable[..., R], *arguments: Any) -> R:
        """Run one step under the lock."""
        with self._lock:
            interrupted = self._busy
            self._busy = True
            try:
                return step(*arguments)
            finally:
                if interrupted:  # the interrupted step updates the doorbells
                    self._overtaken = True
                else:
                    try:
                        self._show()
                    finally:
                        self._busy = False

    def anew(self, step: Callable[..., R], *arguments: Any) -> R:
        """Run the part of a step that stores or takes one message; repeat it while it is overtaken."""
        while True:
            self._overtaken = False
            try:
                return step(*arguments)
            except Overtaken:
                pass

    def _show(self) -> None:
        try:
            while True:
                self._overtaken = False
                for bell in self.bells:
                    bell.show()
                if not self._overtaken:
                    return
        except MemoryError:
            pass  # the result of this step must be returned; the next step updates the doorbells

    # Steps. Each runs under the lock.

    def has_space(self, size: int) -> bool:
        return len(self._heap) < self._most_messages and self._bytes + (size or 1) <= self._most_bytes

    def store(self, data: bytes, priority: int) -> None:
        entry = (-priority, next(self._tickets), data)
        # Compute all numbers first, because that allocates. An empty message is charged 1 byte, so that a limit in
        # bytes bounds empty messages too.
        charge, size = len(data) or 1, len(data)
        bytes_now, bytes_put, puts = self._bytes + charge, self.bytes_put + size, self.puts + 1
        depth = max(self.high_water_mark, len(self._heap) + 1)
        stored = True
        if self._overtaken:  # no handler runs between this check and the push
            raise Overtaken
        try:
            heapq.heappush(self._heap, entry)
        except MemoryError:
            stored = False
            raise
        finally:  # also if a handler raises right after the push
            if not stored:
                pass
            elif self._overtaken:  # by a handler right after the push
                self._bytes += charge
                self.bytes_put += size
                self.puts += 1
            else:
                self._bytes = bytes_now
                self.bytes_put = bytes_put
                self.puts = puts
                self.high_water_mark = depth
        if self.readers:
            wake(self.readers)

    def take(self) -> Received:
        if self._overtaken:
            raise Overtaken
        negative, _, data = self._heap[0]
        received = data, -negative
        charge = len(data) or 1
        bytes_now, gets = self._bytes - charge, self.gets + 1
        taken = True
        if self._overtaken:  # as for `store`
            raise Overtaken
        try:
            heapq.heappop(self._heap)
        except MemoryError:
            taken = False
            raise
        finally:
            if not taken:
                pass
            elif self._overtaken:
                self._bytes -= charge
                self.gets += 1
            else:
                self._bytes = bytes_now
                self.gets = gets
        if self.writers:
            wake(self.writers)
        return received

    def store_dropping(self, data: bytes, priority: int) -> int | None:
        """Store a message, in place of others if necessary; return their number, or None if it does not fit."""
        heap, charge = list(self._heap), len(data) or 1
        victims = iter(sorted((entry for entry in heap if -entry[0] <= priority), key=lambda each: (-each[0], each[1])))
        dropped: set[int] = set()
        freed = 0
        while len(heap) - len(dropped) >= self._most_messages or self._bytes - freed + charge > self._most_bytes:
            victim = next(victims, None)
            if victim is None:
                return None
            dropped.add(victim[1])
            freed += len(victim[2]) or 1
        heap = [entry for entry in heap if entry[1] not in dropped]
        heap.append((-priority, next(self._tickets), data))
        heapq.heapify(heap)
        self._replace(heap, self._bytes - freed + charge, len(dropped), len(dropped), puts=1)
        self.bytes_put += len(data)
        wake(self.readers)
        if dropped:
            wake(self.writers)
        return len(dropped)

    def take_latest(self) -> Received:
        """Take the newest message of the highest priority, and drop the older ones."""
        heap = list(self._heap)
        first = heap[0][0]
        newest = max(entry for entry in heap if entry[0] == first)
        rest = [entry for entry in heap if entry[0] != first]
        heapq.heapify(rest)
        received = newest[2], -first
        gone = len(heap) - len(rest)
        charge = sum(len(entry[2]) or 1 for entry in rest)
        self._replace(rest, charge, gone, gone - 1)
        wake(self.writers)
        return received

    def _replace(self, heap: list[tuple[int, int, bytes]], charge: int, gets: int, dropped: int, puts: int = 0) -> None:
        """Replace all messages in one step: after the check nothing is called, so no handler runs."""
        puts, gets, dropped = self.puts + puts, self.gets + gets, self.dropped + dropped
        depth = max(self.high_water_mark, len(heap))
        if self._overtaken:
            raise Overtaken
        self._heap = heap
        self._bytes = charge
        self.puts = puts
        self.gets = gets
        self.dropped = dropped
        self.high_water_mark = depth

    def look(self) -> Received | None:
        return (self._heap[0][2], -self._heap[0][0]) if self._heap else None

    def drop(self) -> int:
        dropped = 0
        while self.anew(lambda: self._heap and self.take()):
            dropped += 1
        return dropped

    def end(self) -> None:
        """Drop what a shutdown drops at once."""
        self.drop()

    def size(self) -> int:
        return len(self._heap)

    def ended(self) -> bool:
        return self.down and not self._heap

    def tell(self) -> None:
        """Give the registered notice."""
        if self.registrant is not None:
            asked, self.registrant = self.registrant, None
            # In a separate thread, signals too: their handlers may call the queue, and this thread holds the lock.
            try:
                threading.Thread(target=give_notice, args=(asked[1],), name="ipcq-notice", daemon=True).start()
            except RuntimeError as error:
                reraise_from_handler(error)
                self.registrant = asked  # the message is stored, so the put must not fail; the next put retries

    def stats(self) -> Stats:
        return Stats(
            depth=len(self._heap),
            bytes=sum(len(data) for _, _, data in self._heap),
            bytes_put=self.bytes_put,
            puts=self.puts,
            gets=self.gets,
            dropped=self.dropped,
            high_water_mark=self.high_water_mark,
            waits=self.waits,
            timeouts=self.timeouts,
            recoveries=0,
            handles=self.holders,
        )

    def wake_all(self) -> None:
        wake(self.readers)
        wake(self.writers)

    # A wait releases the lock, so it is not a step.

    def wait(self, ready: Callable[[], bool], waiters: list[threading.Lock], until: float) -> None:
        waiter = threading.Lock()
        waiter.acquire()
        try:
            with self._lock:
                if ready() or not self.linked:
                    return
                waiters.append(waiter)
            waiter.acquire(timeout=max(0.0, until - monotonic()))
        finally:
            if waiter in waiters:
                waiters.remove(waiter)


def wake(waiters: list[threading.Lock]) -> None:
    try:
        for waiter in list(waiters):
            try:
                waiter.release()
            except RuntimeError:
                pass  # already woken
    except MemoryError:
        pass  # waiters retry after their time slice


class Doorbell:
    """A descriptor that is readable while a get would not block.

    Args:
        ready: Returns whether a get would not block now.
    """

    def __init__(self, ready: Callable[[], bool]) -> None:
        # A socket pair instead of a pipe, because select accepts only sockets on Windows.
        self.end, self._other = socket.socketpair()
        self.end.setblocking(False)
        self._ready = ready
        self._rung = False

    def show(self) -> None:
        # A handler or a finaliser that interrupts this method may close or update the doorbell too. So it checks again
        # after each step; a byte too many or too few in between does no harm.
        while self.end.fileno() >= 0 and self._rung != self._ready():
            if self._rung:
                with suppress(BlockingIOError):
                    self.end.recv(64)
                self._rung = False
            else:
                self._other.send(b"\0")
                self._rung = True

    def close(self) -> None:
        self.end.close()
        self._other.close()
