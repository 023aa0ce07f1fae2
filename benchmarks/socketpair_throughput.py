"""The backend socketpair through the public API against a pair of sockets by itself: 64 B, one producer, one consumer.

Run ``python benchmarks/socketpair_throughput.py``; wanted is a median ratio of 0.7 or more. The control is the pair a
second time: how far its ratio is from 1 says how much the machine's noise is worth. ``--idle`` measures instead what a
get that waits costs.
"""

import argparse
import json
import os
import select
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import harness

NAME = "/ipcq-benchmark"

#: Seconds of waiting that are measured.
IDLE = 2.0


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


def ipcq(role: str, name: str, count: int, serializer: str = "msgpack") -> None:
    import ipcq

    with ipcq.open(name, "socketpair", create=False, serializer=serializer) as queue:
        if role == "produce":
            harness.produce(queue.put, count)
        else:
            harness.consume(queue.get, count)


#: What the queue of each contestant is created with. Without limits a get also has to be ready for a descriptor; with
#: max_messages a put takes the file lock.
LIMITS: Mapping[str, Mapping[str, Any]] = {
    "ipcq": {},
    "ipcq raw": {},
    "ipcq, 4 KiB at most": {"max_message_size": 4096},
    "ipcq raw, 4 KiB at most": {"max_message_size": 4096},
    "ipcq, 256 messages": {"max_messages": 256, "max_message_size": 128},
}

IMPLEMENTATIONS: Mapping[str, Callable[[str, str, int], None]] = {
    "pair": pair,
    "pair again": pair,
    **{name: partial(ipcq, serializer="raw") if "raw" in name else ipcq for name in LIMITS},
}


def measure(implementation: str, count: int) -> float:
    if implementation not in LIMITS:
        write, read = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with write, read:
            # The same buffer as ipcq takes.
            write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, (1 << 30) - 1)
            for role, end in (("produce", write), ("consume", read)):
                os.environ[role] = str(end.fileno())
            return harness.sample(__file__, implementation, NAME, count, inherited=(write.fileno(), read.fileno())).rate
    import ipcq

    with ipcq.open(NAME, "socketpair", exclusive=True, **LIMITS[implementation]) as queue:
        try:
            return harness.sample(__file__, implementation, NAME, count).rate
        finally:
            queue.unlink()


def idle() -> float:
    """Return the seconds of processor time that a waiting get takes."""
    import ipcq

    with ipcq.open(NAME, "socketpair", exclusive=True) as queue:
        threading.Timer(IDLE, queue.put, ("end",)).start()
        time.sleep(0.1)  # the thread's start is none of it
        began = time.process_time()
        queue.get()
        return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=200_000, help="messages in a sample")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--idle", action="store_true", help="measure what a waiting get costs")
    parser.add_argument("--role", choices=("produce", "consume"), help=argparse.SUPPRESS)
    parser.add_argument("--implementation", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        IMPLEMENTATIONS[given.implementation](given.role, given.name, given.count)
        return
    if given.idle:
        costs = [idle() * 1000 for _ in range(given.rounds)]
        low, median, high = min(costs), statistics.median(costs), max(costs)
        print(f"a get that waits {IDLE} s takes {median:.2f} ms of the processor ({low:.2f} to {high:.2f})")
        return
    contestants = {name: partial(measure, name, given.count) for name in IMPLEMENTATIONS}
    rates = harness.rounds(contestants, given.rounds)
    report = {
        name: {"rate": statistics.median(of), "ratio to the pair": harness.paired(of, rates["pair"])}
        for name, of in rates.items()
    }
    if given.json:
        json.dump({"machine": harness.machine(), "rounds": given.rounds, "results": report}, sys.stdout, indent=2)
        return
    print(
        *harness.machine().values(), f"{given.rounds} rounds of {given.count:,} messages of {harness.SIZE} B", sep=" · "
    )
    for name, figures in report.items():
        low, median, high = figures["ratio to the pair"]
        print(f"{name:<26}{figures['rate']:>12,.0f}/s   {median:.2f} x the pair ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
