"""A channel to one queue."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

from ipcq.backend import (
    Capabilities,
    Channel,
    Notice,
    Persistence,
    Received,
    Request,
    Scope,
    Stats,
    check_daemon_threads,
    notice_taken,
)
from ipcq.errors import QueueGone, QueueShutDown
from ipcq_memory import _names
from ipcq_memory._queue import Doorbell, MemoryQueue

R = TypeVar("R")

CAPABILITIES: Final = Capabilities(
    scope=Scope.PROCESS,
    persistence=Persistence.PROCESS,
    priorities=True,
    exact_qsize=True,
    pollable=True,
    ends_on_fileno=True,
    notify=True,
    leases=True,
    death_notice=True,
    delays=True,
    drop_oldest=True,
    peek=True,
    shutdown=True,
    atomic_batch=True,
    listing=True,
    last_close=True,
    modes=True,
    after_unlink=True,
)


class MemoryChannel(Channel):
    def __init__(self, name: str, queue: MemoryQueue, request: Request) -> None:
        self.attributes = queue.attributes
        leases = queue.attributes.leases
        self.capabilities = replace(
            CAPABILITIES,
            priorities=queue.attributes.priorities,
            leases=leases,
            death_notice=leases,
            delays=leases,
        )
        self._name = name
        self._queue = queue
        self._continues = request.after_unlink == "continue"
        self._bell: Doorbell | None = None

    def try_put(self, data: bytes, priority: int, /) -> bool:
        return self._queue.alone(self._put, data, priority)

    def try_put_many(self, batch: Sequence[bytes], priority: int = 0, /) -> int:
        def put_all() -> int:
            stored = 0
            # Create the number before the put, because that allocates.
            for number, data in enumerate(batch, 1):
                try:
                    if not self._put(data, priority):
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

    def try_put_dropping(self, data: bytes, priority: int, /) -> int | None:
        def put() -> int | None:
            queue = self._queue
            if queue.down:
                raise QueueShutDown
            tells = queue.registrant is not None and not queue.size()
            dropped = queue.store_dropping(data, priority)
            if tells and dropped is not None:
                queue.tell()
            return dropped

        return self._anew(put)

    def try_get_latest(self) -> Received | None:
        def get() -> Received | None:
            queue = self._queue
            if queue.size():
                return queue.take_latest()
            if queue.ended():
                raise QueueShutDown
            return None

        return self._anew(get)

    def _anew(self, step: Callable[[], R]) -> R:
        return self._queue.alone(lambda: self._queue.anew(self._whole(step)))

    def _whole(self, step: Callable[[], R]) -> Callable[[], R]:
        def whole() -> R:
            self._check()
            return step()

        return whole

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
        if queue.ended():
            raise QueueShutDown
        return None

    def wait_readable(self, since: float, until: float, /) -> None:
        queue = self._queue
        queue.wait(lambda: queue.size() > 0 or queue.ended(), queue.readers, until)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        queue = self._queue
        queue.wait(lambda: queue.has_space(size) or queue.down, queue.writers, until)

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
            if received is None and self._queue.ended():
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
                queue.end()
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
        return bool(queue.size()) or queue.ended() or not (queue.linked or self._continues)

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
        with _names.lock:
            queue.holders -= 1
        if queue.attributes.lifetime == "last-close":
            _names.remove(self._name, queue, unless_held=True)

    def after_fork(self) -> bool:
        return False  # the child's copy would be a different queue

    def _check(self) -> None:
        if not self._queue.linked and not self._continues:
            raise QueueGone

    def _checked(self, step: Callable[[], R]) -> R:
        return self._queue.alone(self._whole(step))
