"""The backend socketpair through the public API against a pair of sockets by itself: 64 B, one producer, one consumer.

Run ``python benchmarks/socketpair_throughput.py``; wanted is a median ratio of 0.7 or more. The control is the pair a
second time: how far its ratio is from 1 says how much the machine's noise is worth.
"""

import os
import select
import socket
from collections.abc import Mapping
from functools import partial
from typing import Any

import harness


def pair(role: str, _: str, count: int) -> None:
    """Non-blocking calls and poll, on the end that was inherited under the number in the environment."""
    end = socket.socket(fileno=int(os.environ[role]))
    poll = select.poll()
    poll.register(end, select.POLLOUT if role == "produce" else select.POLLIN)

    def send(data: bytes) -> None:
        while True:
            try:
                return end.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                poll.poll()

    def receive() -> bytes:
        while True:
            try:
                return end.recv(4096, socket.MSG_DONTWAIT)
            except BlockingIOError:
                poll.poll()

    if role == "produce":
        harness.produce(send, count)
    else:
        harness.consume(receive, count)


#: What the queue of each contestant is created with. Without limits a get also has to be ready for a descriptor; with
#: max_messages a put takes the file lock.
LIMITS: Mapping[str, Mapping[str, Any]] = {
    "ipcq": {},
    "ipcq raw": {},
    "ipcq, 4 KiB at most": {"max_message_size": 4096},
    "ipcq raw, 4 KiB at most": {"max_message_size": 4096},
    "ipcq, 256 messages": {"max_messages": 256, "max_message_size": 128},
}

CONTESTANTS: Mapping[str, harness.Contestant] = {
    "pair": pair,
    "pair again": pair,
    **{
        name: partial(harness.ipcq, backend="socketpair", serializer="raw" if "raw" in name else "msgpack")
        for name in LIMITS
    },
}


def measure(name: str, count: int) -> float:
    if name in LIMITS:
        return harness.sample_ipcq(__file__, name, count, "socketpair", **LIMITS[name])
    write, read = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with write, read:
        # The same buffer as ipcq takes.
        write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, (1 << 30) - 1)
        for role, end in (("produce", write), ("consume", read)):
            os.environ[role] = str(end.fileno())
        return harness.sample(__file__, name, harness.NAME, count, inherited=(write.fileno(), read.fileno())).rate


if __name__ == "__main__":
    harness.compare(__doc__, CONTESTANTS, measure, waiting=["socketpair"])
