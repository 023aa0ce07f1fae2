"""Queues inside one process: the strict reference for all backends, and a test double for users.

It fulfils each clause of the contract in the simplest way, and the other backends are compared with it.
"""

from typing import Final

from ipcq.backend import Backend, Channel, Request
from ipcq.errors import QueueExists, QueueNotFound
from ipcq.hooks import hookimpl
from ipcq_memory import _names
from ipcq_memory._channel import CAPABILITIES, MemoryChannel
from ipcq_memory._leases import LeaseMemoryChannel, LeaseQueue
from ipcq_memory._queue import MemoryQueue

NAME: Final = "memory"


class MemoryBackend(Backend):
    name = NAME
    capabilities = CAPABILITIES

    def create(self, name: str, request: Request) -> Channel:
        queue = LeaseQueue(request) if request.leases else MemoryQueue(request)
        with _names.lock:
            if name in _names.queues:
                raise QueueExists
            queue.holders += 1
            _names.queues[name] = queue
        return _channel(name, queue, request)

    def attach(self, name: str, request: Request) -> Channel:
        with _names.lock:
            queue = _names.queues.get(name)
            if queue is None:
                raise QueueNotFound
            queue.holders += 1
        return _channel(name, queue, request)

    def exists(self, name: str) -> bool:
        return name in _names.queues

    def unlink(self, name: str) -> None:
        queue = _names.queues.get(name)
        if queue is None or not _names.remove(name, queue):
            raise QueueNotFound

    def names(self) -> list[str]:
        return list(_names.queues)


def _channel(name: str, queue: MemoryQueue, request: Request) -> Channel:
    if isinstance(queue, LeaseQueue):
        return LeaseMemoryChannel(name, queue, request)
    return MemoryChannel(name, queue, request)


@hookimpl
def ipcq_backend() -> Backend:
    return MemoryBackend()
