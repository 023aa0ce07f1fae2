"""Contestants of the standard library, for `ipcq bench --compare`."""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from ipcq._bench.contestant import Declined, ReadEnd, WriteEnd
from ipcq._bench.queues import BYTES_ALONE, Queues
from ipcq._bench.workload import Workload
from ipcq.testing.processes import SPAWN


class MultiprocessingQueue(Queues):
    """The standard library's queue, which starts a thread in each producer."""

    name = "multiprocessing.Queue"

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[Any]]:
        # Bounded like all contestants: otherwise a producer of large messages would only fill its own memory.
        queues = [SPAWN.Queue(workload.depth) for _ in range(workload.queues)]
        try:
            yield queues
        finally:
            for queue in queues:
                queue.close()

    def writer(self, address: Any, workload: Workload) -> WriteEnd:
        def finish() -> None:
            address.close()
            address.join_thread()

        return WriteEnd(put=address.put, finish=finish)

    def reader(self, address: Any, workload: Workload) -> ReadEnd:
        return ReadEnd(get=address.get)


class Pipe(Queues):
    """A bare pipe: no framing, so both sides must know the size, and concurrent large messages interleave."""

    name = "os.pipe"

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[Any]]:
        if workload.objects:
            raise Declined(BYTES_ALONE)
        ends = [SPAWN.Pipe(duplex=False) for _ in range(workload.queues)]
        with ExitStack() as stack:
            for end in sum(ends, ()):
                stack.enter_context(end)
            yield ends

    def writer(self, address: Any, workload: Workload) -> WriteEnd:
        # A blocking write writes all bytes, so no loop is needed.
        return WriteEnd(put=partial(os.write, address[1].fileno()), finish=address[1].close)

    def reader(self, address: Any, workload: Workload) -> ReadEnd:
        end, read, size = address[0].fileno(), os.read, workload.size

        def get() -> bytes:
            message = read(end, size)
            if len(message) == size:
                return message
            parts = [message]
            missing = size - len(message)
            while missing:
                parts.append(read(end, missing))
                missing -= len(parts[-1])
            return b"".join(parts)

        return ReadEnd(get=get, finish=address[0].close)


class SocketPair(Queues):
    """A bare pair of SOCK_SEQPACKET sockets, with the largest buffer that the kernel allows."""

    name = "socketpair"

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[Any]]:
        if workload.objects:
            raise Declined(BYTES_ALONE)
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workload.queues)]
        with ExitStack() as stack:
            for end in sum(pairs, ()):
                stack.enter_context(end)
            for write, _ in pairs:
                write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, (1 << 30) - 1)
                if write.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) < 2 * workload.size:
                    raise Declined("net.core.wmem_max is too small for a packet of that size")
            yield pairs

    def writer(self, address: Any, workload: Workload) -> WriteEnd:
        return WriteEnd(put=self._waiting(address[0], writing=True), finish=address[0].close)

    def reader(self, address: Any, workload: Workload) -> ReadEnd:
        receive = self._waiting(address[1], writing=False)
        size = workload.size
        return ReadEnd(get=lambda: receive(size), finish=address[1].close)

    def _waiting(self, end: socket.socket, *, writing: bool) -> Callable[[Any], Any]:
        """Return a non-blocking call that polls when it would block: faster than blocking calls."""
        call, poll, now = end.send if writing else end.recv, poll_for(end, writing=writing), socket.MSG_DONTWAIT

        def waiting(data: Any) -> Any:
            while True:
                try:
                    return call(data, now)
                except BlockingIOError:
                    poll()

        return waiting


def poll_for(end: Any, *, writing: bool) -> Callable[[], object]:
    """Return a function that waits until an end is writable or readable."""
    import select

    poll = select.poll()
    poll.register(end, select.POLLOUT if writing else select.POLLIN)
    return poll.poll


#: Contestants by their name for ``--compare``.
REFERENCES: dict[str, Callable[[], Queues]] = {
    "multiprocessing.Queue": MultiprocessingQueue,
    "os.pipe": Pipe,
    "socketpair": SocketPair,
}
