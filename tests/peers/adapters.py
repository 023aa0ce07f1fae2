"""Adapters that give queues of other libraries the interface of a storm: `put`, `get`, `shutdown` and `close`.

A file replaces a missing shutdown: if it exists, the queue is shut down. A call that cannot wait is retried until the
timeout. Queues without a name are created when this module is imported, in the process from which all processes of a
storm are forked.
"""

import multiprocessing
import os
import pickle
import queue
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property  # noqa: TID251  # no process is forked here while another thread reads one
from pathlib import Path
from typing import Any

import cloudtoid_interprocess
import faster_fifo
import shmlock
import shmqueue
import subetha
from shmlock import shmlock_monkey_patch
from shmqueue.exceptions import ShmQueueEmpty, ShmQueueFull

import ipcq

#: Interval in seconds at which a get checks whether the queue was shut down.
SLICE = 0.2

CAPACITY = 4

_forked = multiprocessing.get_context("fork").Queue(CAPACITY)
_fifo = faster_fifo.Queue(max_size_bytes=CAPACITY * 600, maxsize=CAPACITY)


class Adapter:
    """A handle whose queue is shut down by a file."""

    def __init__(self, flag: str) -> None:
        self._flag = Path(flag)

    def take(self, timeout: float) -> object:
        raise NotImplementedError

    def get(self, timeout: float) -> object:
        deadline = time.monotonic() + timeout
        while True:
            # Checked before the take: a message that is put after a failed take must not be left behind.
            shut = self._flag.exists()
            left = max(0.0, deadline - time.monotonic())
            try:
                return self.take(min(left, SLICE))
            except queue.Empty:
                if shut and self.empty():
                    raise ipcq.QueueShutDown from None
                if left <= SLICE:
                    raise

    def keep(self) -> None:
        """Keep the queue open while other processes come and go."""

    def empty(self) -> bool:
        return True  # the take has found that, if the library cannot tell

    def shutdown(self) -> None:
        self._flag.touch()

    def close(self) -> None:
        pass


class Multiprocessing(Adapter):
    """`multiprocessing.Queue`."""

    def put(self, message: bytes, timeout: float) -> None:
        _forked.put(message, timeout=timeout)

    def take(self, timeout: float) -> object:
        return _forked.get(timeout=timeout)

    def empty(self) -> bool:
        return _forked.empty()


class FasterFifo(Adapter):
    """`faster_fifo.Queue`."""

    def put(self, message: bytes, timeout: float) -> None:
        _fifo.put(message, timeout=timeout)

    def take(self, timeout: float) -> object:
        return _fifo.get(timeout=timeout)

    def empty(self) -> bool:
        return _fifo.empty()


class ShmQueue(Adapter):
    """`shmqueue.ShmQueue`."""

    def __init__(self, flag: str, name: str) -> None:
        super().__init__(flag)
        self._queue = shmqueue.ShmQueue(name, buffer_size=4096)

    def put(self, message: bytes, timeout: float) -> None:
        try:
            self._queue.put(message, timeout=timeout)
        except ShmQueueFull as error:
            raise queue.Full from error

    def take(self, timeout: float) -> object:
        try:
            # It treats a timeout of 0 as no timeout.
            return self._queue.get(timeout=timeout) if timeout else self._queue.get(block=False)
        except ShmQueueEmpty as error:
            raise queue.Empty from error

    def empty(self) -> bool:
        return self._queue.empty()


class Cloudtoid(Adapter):
    """`cloudtoid_interprocess`; a process opens only the end that it uses."""

    def __init__(self, flag: str, name: str) -> None:
        super().__init__(flag)
        # Each message of 200 bytes has a header of 16.
        self._address = name, CAPACITY * 224, str(Path(flag).parent)
        self._ends = ExitStack()

    def keep(self) -> None:
        self._subscriber  # noqa: B018 - the first access opens it

    def put(self, message: bytes, timeout: float) -> None:
        insist(lambda: self._publisher.try_send(message), timeout, queue.Full)

    def take(self, timeout: float) -> object:
        message = self._subscriber.receive(timeout)
        if message is None:
            raise queue.Empty
        return message

    def close(self) -> None:
        self._ends.close()

    @cached_property
    def _publisher(self) -> Any:
        return self._ends.enter_context(cloudtoid_interprocess.Publisher(*self._address))

    @cached_property
    def _subscriber(self) -> Any:
        return self._ends.enter_context(cloudtoid_interprocess.Subscriber(*self._address))


class Subetha(Adapter):
    """`subetha.SpscRing`: one producer, one consumer, and slots of 64 bytes, padded with zeros."""

    def __init__(self, flag: str, name: str) -> None:
        super().__init__(flag)
        path = f"{flag}-{name}"
        # The first process keeps the queue while others come and go.
        self._ring = (subetha.SpscRing.open if Path(path).exists() else subetha.SpscRing)(path, CAPACITY)

    def put(self, message: bytes, timeout: float) -> None:
        insist(lambda: self._ring.push(bytes([len(message)]) + message), timeout, queue.Full)

    def take(self, timeout: float) -> object:
        slot = insist(self._ring.pop, timeout, queue.Empty)
        return slot[1 : 1 + slot[0]]

    def close(self) -> None:
        self._ring.__exit__(None, None, None)


class UnderShmLock(Adapter):
    """A list in a file that is accessed under `shmlock.ShmLock`: it shows what shmlock does after a crash."""

    def __init__(self, flag: str, name: str) -> None:
        super().__init__(flag)
        shmlock_monkey_patch.remove_shm_from_resource_tracker(name, print_warning=False)
        self._content = Path(f"{flag}-content")
        self._lock = shmlock.ShmLock(name, poll_interval=0.001)

    def put(self, message: bytes, timeout: float) -> None:
        self._until(lambda content: len(content) < CAPACITY and (content.append(message) or True), timeout, queue.Full)

    def take(self, timeout: float) -> object:
        return self._until(lambda content: content and content.pop(0), timeout, queue.Empty)

    def empty(self) -> bool:
        # Without the lock, which may be left taken. The file is empty while a process writes it.
        content = self._content.read_bytes()
        return bool(content) and not pickle.loads(content)

    def _until(self, step: Any, timeout: float, otherwise: type[Exception]) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            # To shmlock, 0 means no timeout, and False means one try.
            if self._lock.acquire(timeout=max(0.0, deadline - time.monotonic()) or False):
                try:
                    content = pickle.loads(self._content.read_bytes()) if self._content.exists() else []
                    done = step(content)
                    self._content.write_bytes(pickle.dumps(content))
                finally:
                    self._lock.release()
                if done:
                    return done
            if time.monotonic() >= deadline:
                raise otherwise
            time.sleep(0.0005)


def insist(attempt: Callable[[], Any], timeout: float, otherwise: type[Exception]) -> Any:
    """Retry until an attempt returns a true value, and return it."""
    deadline = time.monotonic() + timeout
    while not (done := attempt()):
        if time.monotonic() >= deadline:
            raise otherwise
        os.sched_yield()
    return done


def open_multiprocessing(flag: str) -> Adapter:
    return Multiprocessing(flag)


def open_faster_fifo(flag: str) -> Adapter:
    return FasterFifo(flag)


def open_shmqueue(flag: str, name: str) -> Adapter:
    return ShmQueue(flag, name)


def open_shmlock(flag: str, name: str) -> Adapter:
    return UnderShmLock(flag, name)


def open_cloudtoid(flag: str, name: str) -> Adapter:
    return Cloudtoid(flag, name)


def open_subetha(flag: str, name: str) -> Adapter:
    return Subetha(flag, name)
