"""The backend mqueue through the public API against posix_ipc itself: 64 B, one producer, one consumer, equal limits.

Run ``python benchmarks/mqueue_throughput.py``; wanted is a median ratio of 0.8 or more. The control is posix_ipc a
second time: how far its ratio is from 1 says how much the machine's noise is worth.
"""

import argparse
import json
import select
import statistics
import sys
from functools import partial

import harness

LIMITS = {"max_messages": 10, "max_message_size": 8192}
NAME = "/ipcq-benchmark"


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


def ipcq(role: str, name: str, count: int, serializer: str = "msgpack") -> None:
    import ipcq

    with ipcq.open(name, "mqueue", create=False, serializer=serializer) as queue:
        if role == "produce":
            harness.produce(queue.put, count)
        else:
            harness.consume(queue.get, count)


IMPLEMENTATIONS = {
    "posix_ipc": posix_ipc,
    "posix_ipc again": posix_ipc,
    "posix_ipc polled": posix_ipc_polled,
    "ipcq": ipcq,
    "ipcq raw": partial(ipcq, serializer="raw"),
}


def measure(implementation: str, count: int) -> float:
    import ipcq

    with ipcq.open(NAME, "mqueue", exclusive=True, **LIMITS) as queue:
        try:
            return harness.sample(__file__, implementation, NAME, count).rate
        finally:
            queue.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--count", type=int, default=200_000, help="messages in a sample")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", choices=("produce", "consume"), help=argparse.SUPPRESS)
    parser.add_argument("--implementation", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        IMPLEMENTATIONS[given.implementation](given.role, given.name, given.count)
        return
    contestants = {name: partial(measure, name, given.count) for name in IMPLEMENTATIONS}
    rates = harness.rounds(contestants, given.rounds)
    report = {
        name: {"rate": statistics.median(of), "ratio to posix_ipc": harness.paired(of, rates["posix_ipc"])}
        for name, of in rates.items()
    }
    if given.json:
        json.dump({"machine": harness.machine(), "rounds": given.rounds, "results": report}, sys.stdout, indent=2)
        return
    print(
        *harness.machine().values(), f"{given.rounds} rounds of {given.count:,} messages of {harness.SIZE} B", sep=" · "
    )
    for name, figures in report.items():
        low, median, high = figures["ratio to posix_ipc"]
        print(f"{name:<18}{figures['rate']:>12,.0f}/s   {median:.2f} x posix_ipc ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
