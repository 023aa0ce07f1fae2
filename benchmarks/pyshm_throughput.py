"""The backend pyshm through the public API against shmqueue: 64 B, one producer, one consumer, as much room for each.

Run ``python benchmarks/pyshm_throughput.py`` where shmqueue is installed (``pip install shmqueue==0.0.2``; nothing else
of ipcq needs it). Wanted are median ratios of 5 or more under the file's lock and of 1.2 or more under shmlock, and
5 ms or less of processor time in 2 s of a get that waits. The control is shmqueue a second time: how far its ratio is
from 1 says how much the machine's noise is worth.
"""

import argparse
import json
import statistics
import subprocess
import sys
from functools import partial

import harness

ROOM = 1 << 16
NAME = "/ipcq-benchmark"
SHARED = "ipcq-benchmark"


def shmqueue(role: str, name: str, count: int) -> None:
    import shmqueue

    queue = shmqueue.ShmQueue(name, buffer_size=ROOM)
    if role == "produce":
        harness.produce(queue.put, count)
    else:
        harness.consume(queue.get, count)
    queue.shutdown()


def pyshm(role: str, name: str, count: int, serializer: str = "msgpack") -> None:
    import ipcq

    with ipcq.open(name, "pyshm", create=False, serializer=serializer) as queue:
        if role == "produce":
            harness.produce(queue.put, count)
        else:
            harness.consume(queue.get, count)


IMPLEMENTATIONS = {
    "shmqueue": shmqueue,
    "shmqueue again": shmqueue,
    "file": pyshm,
    "file, raw": partial(pyshm, serializer="raw"),
    "shmlock": pyshm,
}


def measure(implementation: str, counts: dict[str, int]) -> float:
    count = counts[implementation.replace(",", " ").split(maxsplit=1)[0]]
    if implementation.startswith("shmqueue"):
        import shmqueue

        held = shmqueue.ShmQueue(SHARED, buffer_size=ROOM)
        try:
            return harness.sample(__file__, implementation, SHARED, count).rate
        finally:
            held.shutdown()
    import ipcq

    lock = implementation.split(",", maxsplit=1)[0]
    with ipcq.open(NAME, "pyshm", exclusive=True, buffer_size=ROOM, lock=lock) as queue:
        try:
            return harness.sample(__file__, implementation, NAME, count).rate
        finally:
            queue.unlink()


IDLE = """
import resource, sys, ipcq
with ipcq.open(sys.argv[1], "pyshm", exclusive=True, lock=sys.argv[2]) as queue:
    queue.put(1)
    queue.get()
    before = resource.getrusage(resource.RUSAGE_SELF)
    try:
        queue.get(timeout=2)
    except ipcq.QueueEmpty:
        pass
    after = resource.getrusage(resource.RUSAGE_SELF)
    queue.unlink()
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
"""


def idle(lock: str) -> float:
    """Return the processor time of a get that waits for 2 s, in milliseconds."""
    run = subprocess.run([sys.executable, "-c", IDLE, NAME, lock], capture_output=True, text=True, check=True)
    return float(run.stdout) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=50_000, help="messages in a sample under the file's lock")
    parser.add_argument("--slow", type=int, default=5_000, help="messages in a sample of the others")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--role", choices=("produce", "consume"), help=argparse.SUPPRESS)
    parser.add_argument("--implementation", help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        IMPLEMENTATIONS[given.implementation](given.role, given.name, given.count)
        return
    counts = {"file": given.count, "shmqueue": given.slow, "shmlock": given.slow}
    rates = harness.rounds({name: partial(measure, name, counts) for name in IMPLEMENTATIONS}, given.rounds)
    report = {
        name: {"rate": statistics.median(of), "ratio to shmqueue": harness.paired(of, rates["shmqueue"])}
        for name, of in rates.items()
    }
    waiting = {lock: statistics.median(idle(lock) for _ in range(3)) for lock in ("file", "shmlock")}
    if given.json:
        results = {"machine": harness.machine(), "rounds": given.rounds, "results": report, "idle ms in 2 s": waiting}
        json.dump(results, sys.stdout, indent=2)
        return
    print(*harness.machine().values(), f"{given.rounds} rounds, messages of {harness.SIZE} B", sep=" · ")
    for name, figures in report.items():
        low, median, high = figures["ratio to shmqueue"]
        print(f"{name:<18}{figures['rate']:>12,.0f}/s   {median:.2f} x shmqueue ({low:.2f} to {high:.2f})")
    for lock, spent in waiting.items():
        print(f"a get that waits for 2 s, {lock:<10}{spent:>6.1f} ms of processor time")


if __name__ == "__main__":
    main()
