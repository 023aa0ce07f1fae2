"""The backend mqueue through the public API against posix_ipc itself: 64 B, one producer, one consumer, equal limits.

Run ``python benchmarks/mqueue_throughput.py``; wanted is a median ratio of 0.8 or more. The control is posix_ipc a
second time: how far its ratio is from 1 says how much the machine's noise is worth.
"""

import select
from functools import partial

import harness

LIMITS = {"max_messages": 10, "max_message_size": 8192}


def posix_ipc(role: str, name: str, count: int) -> None:
    import posix_ipc

    queue = posix_ipc.MessageQueue(name)
    if role == "produce":
        harness.produce(queue.send, count)
    else:
        harness.consume(lambda: queue.receive()[0], count)


def posix_ipc_polled(role: str, name: str, count: int) -> None:
    """Non-blocking calls and poll, which is faster than blocking ones: the fairest measure of what ipcq adds."""
    import posix_ipc

    queue = posix_ipc.MessageQueue(name)
    queue.block = False
    poll = select.poll()
    poll.register(queue.mqd, select.POLLOUT if role == "produce" else select.POLLIN)

    def send(data: bytes) -> None:
        while True:
            try:
                return queue.send(data)
            except posix_ipc.BusyError:
                poll.poll()

    def receive() -> bytes:
        while True:
            try:
                return queue.receive()[0]
            except posix_ipc.BusyError:
                poll.poll()

    if role == "produce":
        harness.produce(send, count)
    else:
        harness.consume(receive, count)


CONTESTANTS = {
    "posix_ipc": posix_ipc,
    "posix_ipc again": posix_ipc,
    "posix_ipc polled": posix_ipc_polled,
    "ipcq": partial(harness.ipcq, backend="mqueue"),
    "ipcq raw": partial(harness.ipcq, backend="mqueue", serializer="raw"),
}


def measure(name: str, count: int) -> float:
    return harness.sample_ipcq(__file__, name, count, "mqueue", **LIMITS)


if __name__ == "__main__":
    harness.compare(__doc__, CONTESTANTS, measure, waiting=["mqueue"])
