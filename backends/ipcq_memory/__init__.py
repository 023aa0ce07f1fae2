"""Queues inside one process: the strict reference for all backends, and a test double for users.

It fulfils each clause of the contract in the simplest way, with one lock around one heap, and the other backends are
compared with it.

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
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from time import monotonic
from typing import Any, Final, TypeVar

from ipcq.backend import (
    Backend,
    Capabilities,
    Channel,
    NativeRLock,
    Notice,
    Persistence,
    Received,
    Request,
    Scope,
    Stats,
    check_daemon_threads,
    default_limits,
    give_notice,
    hold_over_forks,
    notice_taken,
    reraise_from_handler,
)
from ipcq.errors import (
    QueueExists,
    QueueGone,
    QueueNotFound,
    QueueShutDown,
)
from ipcq.hooks import hookimpl

R = TypeVar("R")

NAME: Final = "memory"

CAPABILITIES: Final = Capabilities(
    scope=Scope.PROCESS,
    persistence=Persistence.PROCESS,
    priorities=True,
    exact_qsize=True,
    pollable=True,
    ends_on_fileno=True,
    notify=True,
    peek=True,
    shutdown=True,
    atomic_batch=True,
    listing=True,
    last_close=True,
    modes=True,
    after_unlink=True,
)


class _Overtaken(Exception):
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
        self.puts = self.gets = self.high_water_mark = self.waits = self.timeouts = 0
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
            except _Overtaken:
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
            raise _Overtaken
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
            _wake(self.readers)

    def take(self) -> Received:
        if self._overtaken:
            raise _Overtaken
        negative, _, data = self._heap[0]
        received = data, -negative
        charge = len(data) or 1
        bytes_now, gets = self._bytes - charge, self.gets + 1
        taken = True
        if self._overtaken:  # as for `store`
            raise _Overtaken
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
            _wake(self.writers)
        return received

    def look(self) -> Received | None:
        return (self._heap[0][2], -self._heap[0][0]) if self._heap else None

    def drop(self) -> int:
        dropped = 0
        while self.anew(lambda: self._heap and self.take()):
            dropped += 1
        return dropped

    def size(self) -> int:
        return len(self._heap)

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
            high_water_mark=self.high_water_mark,
            waits=self.waits,
            timeouts=self.timeouts,
            recoveries=0,
            handles=self.holders,
        )

    def wake_all(self) -> None:
        _wake(self.readers)
        _wake(self.writers)

    # A wait releases the lock, so it is not a step.

    def wait(self, ready: Callable[[], bool], waiters: list[threading.Lock], until: float) -> None:
        waiter = threading.Lock()
        waiter.acquire()
        try:
            with self._lock:
                if ready() or self.down or not self.linked:
                    return
                waiters.append(waiter)
            waiter.acquire(timeout=max(0.0, until - monotonic()))
        finally:
            if waiter in waiters:
                waiters.remove(waiter)


def _wake(waiters: list[threading.Lock]) -> None:
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


class MemoryChannel(Channel):
    def __init__(self, name: str, queue: MemoryQueue, request: Request) -> None:
        self.attributes = queue.attributes
        self.capabilities = replace(CAPABILITIES, priorities=queue.attributes.priorities)
        self._name = name
        self._queue = queue
        self._continues = request.after_unlink == "continue"
        self._bell: Doorbell | None = None

    def try_put(self, data: bytes, priority: int, /) -> bool:
        return self._queue.alone(self._put, data, priority)

    def try_put_many(self, batch: Sequence[bytes], /) -> int:
        def put_all() -> int:
            stored = 0
            # Create the number before the put, because that allocates.
            for number, data in enumerate(batch, 1):
                try:
                    if not self._put(data, 0):
                        break
                except MemoryError:
                    if not stored:
                        raise
                    break
                stored = number
            return stored

        return self._queue.alone(put_all)

    def _put(self, data: bytes, priority: int) -> bool:
        return self._queue.anew(self._put_once, data, priority)

    def _put_once(self, data: bytes, priority: int) -> bool:
        queue = self._queue
        self._check()
        if queue.down:
            raise QueueShutDown
        if not queue.has_space(len(data)):
            return False
        queue.store(data, priority)
        if queue.registrant is not None and queue.size() == 1:
            queue.tell()
        return True

    def try_get(self) -> Received | None:
        return self._queue.alone(self._get)

    def try_get_many(self, limit: int, /) -> list[Received]:
        def get_all() -> list[Received]:
            batch: list[Received] = []
            taken = 0
            try:
                while taken < limit and (not taken or self._queue.size()):
                    batch.append((b"", 0))  # reserve the entry before the message is taken, because that allocates
                    received = self._get()
                    if received is None:
                        break
                    batch[-1] = received
                    taken = len(batch)
            except MemoryError:
                if not taken:
                    raise
            del batch[taken:]
            return batch

        return self._queue.alone(get_all)

    def _get(self) -> Received | None:
        return self._queue.anew(self._get_once)

    def _get_once(self) -> Received | None:
        queue = self._queue
        self._check()
        if queue.size():
            return queue.take()
        if queue.down:
            raise QueueShutDown
        return None

    def wait_readable(self, since: float, until: float, /) -> None:
        self._queue.wait(lambda: self._queue.size() > 0, self._queue.readers, until)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        self._queue.wait(lambda: self._queue.has_space(size), self._queue.writers, until)

    def count_wait(self, served: bool, /) -> None:
        def step() -> None:
            self._queue.waits += 1
            self._queue.timeouts += not served

        self._queue.alone(step)

    def qsize(self) -> int:
        return self._checked(self._queue.size)

    def full(self) -> bool:
        return not self._checked(lambda: self._queue.has_space(0))

    def peek(self) -> Received | None:
        def look() -> Received | None:
            received = self._queue.look()
            if received is None and self._queue.down:
                raise QueueShutDown
            return received

        return self._checked(look)

    def clear(self) -> int:
        return self._checked(self._queue.drop)

    def stats(self) -> Stats:
        return self._checked(self._queue.stats)

    def linked(self) -> bool:
        return self._queue.linked

    def shutdown(self, immediate: bool, /) -> None:
        queue = self._queue

        def step() -> None:
            queue.down = True
            if immediate:
                queue.drop()
            queue.wake_all()

        self._checked(step)

    def fileno(self) -> int:
        def step() -> int:
            if self._bell is None:
                self._check()
                self._bell = Doorbell(self._is_ready)
                self._queue.bells.append(self._bell)
            return self._bell.end.fileno()

        return self._queue.alone(step)

    def _is_ready(self) -> bool:
        queue = self._queue
        return bool(queue.size()) or queue.down or not (queue.linked or self._continues)

    def notify(self, notice: Notice | None, /) -> None:
        queue = self._queue
        if notice is not None:
            check_daemon_threads()

        def step() -> None:
            holder = queue.registrant[0] if queue.registrant else None
            if notice is None:
                if holder is self:
                    queue.registrant = None
            elif holder is not None:
                raise notice_taken()
            else:
                queue.registrant = (self, notice)

        self._checked(step)

    def close(self) -> None:
        # Not as a step, which could fail: a handler or a finaliser may close while this thread holds the lock.
        queue = self._queue
        with queue._lock:
            if queue.registrant is not None and queue.registrant[0] is self:
                queue.registrant = None
            if self._bell is not None:
                queue.bells = [bell for bell in queue.bells if bell is not self._bell]
                self._bell.close()
        with _registry_lock:
            queue.holders -= 1
        if queue.attributes.lifetime == "last-close":
            _remove(self._name, queue, unless_held=True)

    def after_fork(self) -> bool:
        return False  # the child's copy would be a different queue

    def _check(self) -> None:
        if not self._queue.linked and not self._continues:
            raise QueueGone

    def _checked(self, step: Callable[[], R]) -> R:
        def whole() -> R:
            self._check()
            return step()

        return self._queue.alone(whole)


class MemoryBackend(Backend):
    name = NAME
    capabilities = CAPABILITIES

    def create(self, name: str, request: Request) -> Channel:
        queue = MemoryQueue(request)
        with _registry_lock:
            if name in _queues:
                raise QueueExists
            queue.holders += 1
            _queues[name] = queue
        return MemoryChannel(name, queue, request)

    def attach(self, name: str, request: Request) -> Channel:
        with _registry_lock:
            queue = _queues.get(name)
            if queue is None:
                raise QueueNotFound
            queue.holders += 1
        return MemoryChannel(name, queue, request)

    def exists(self, name: str) -> bool:
        return name in _queues

    def unlink(self, name: str) -> None:
        queue = _queues.get(name)
        if queue is None or not _remove(name, queue):
            raise QueueNotFound

    def names(self) -> list[str]:
        return list(_queues)


# The queues of this process. A forked child starts with none: its copies would be other queues with the same names.

_queues: dict[str, MemoryQueue] = {}
_registry_lock = NativeRLock()


def _remove(name: str, queue: MemoryQueue, *, unless_held: bool = False) -> bool:
    with _registry_lock:
        if _queues.get(name) is not queue or (unless_held and queue.holders):
            return False
        del _queues[name]
    queue.linked = False
    queue.alone(queue.wake_all)
    return True


hold_over_forks(_registry_lock, in_child=_queues.clear)


@hookimpl
def ipcq_backend() -> Backend:
    return MemoryBackend()
