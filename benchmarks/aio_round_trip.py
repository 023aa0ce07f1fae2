"""`ipcq.aio` compared with pyzmq's asyncio sockets: ping-pong between two processes.

Goal: a round trip at least twice as fast as pyzmq's.
"""

from typing import Any

import harness
from rivals import Pyzmq, installed

from ipcq._bench.contestant import ReadEnd, WriteEnd
from ipcq._bench.queues import Ipcq
from ipcq._bench.workload import Workload


class Aio(Ipcq):
    """`ipcq.aio`."""

    awaited = True

    def __init__(self, backend: str) -> None:
        super().__init__(backend, f"ipcq.aio {backend}")

    def _open(self, name: str, workload: Workload) -> Any:
        import ipcq.aio

        return ipcq.aio.Queue(super()._open(name, workload))

    def writer(self, address: str, workload: Workload) -> WriteEnd:
        queue = self._open(address, workload)
        return WriteEnd(put=queue.put, finish=queue.queue.close)

    def reader(self, address: str, workload: Workload) -> ReadEnd:
        queue = self._open(address, workload)
        return ReadEnd(get=queue.get, finish=queue.queue.close)


class PyzmqAsyncio(Pyzmq):
    """pyzmq's sockets for asyncio."""

    name = "pyzmq asyncio"
    awaited = True

    def context(self) -> Any:
        import zmq.asyncio

        return zmq.asyncio.Context()


if __name__ == "__main__":
    harness.main(
        __doc__,
        [
            *map(Aio, ("shm", "mqueue", "socketpair", "pyshm")),
            PyzmqAsyncio() if installed("pyzmq") else harness.Absent("pyzmq asyncio"),
            Ipcq("shm", "ipcq shm, synchronous"),
        ],
        ["ping-pong"],
    )
