"""The backend pyshm through the public API against shmqueue: 64 B, one producer, one consumer, as much room for each.

Run ``python benchmarks/pyshm_throughput.py`` where shmqueue is installed (``pip install shmqueue==0.0.2``; nothing else
of ipcq needs it). Wanted are median ratios of 5 or more under the file's lock and of 1.2 or more under shmlock, and
5 ms or less of processor time in 2 s of a get that waits. The control is shmqueue a second time: how far its ratio is
from 1 says how much the machine's noise is worth.
"""

from functools import partial

import harness

ROOM = 1 << 16
SHARED = "ipcq-benchmark"


def shmqueue(role: str, name: str, count: int) -> None:
    import shmqueue

    queue = shmqueue.ShmQueue(name, buffer_size=ROOM)
    if role == "produce":
        harness.produce(queue.put, count)
    else:
        harness.consume(queue.get, count)
    queue.shutdown()


CONTESTANTS = {
    "shmqueue": shmqueue,
    "shmqueue again": shmqueue,
    "file": partial(harness.ipcq, backend="pyshm"),
    "file, raw": partial(harness.ipcq, backend="pyshm", serializer="raw"),
    "shmlock": partial(harness.ipcq, backend="pyshm"),
}


def measure(name: str, count: int) -> float:
    lock, _, _ = name.partition(",")
    if lock == "file":
        return harness.sample_ipcq(__file__, name, count, "pyshm", buffer_size=ROOM, lock=lock)
    count //= 10  # the others are that much slower
    if lock == "shmlock":
        return harness.sample_ipcq(__file__, name, count, "pyshm", buffer_size=ROOM, lock=lock)
    import shmqueue

    held = shmqueue.ShmQueue(SHARED, buffer_size=ROOM)
    try:
        return harness.sample(__file__, name, SHARED, count).rate
    finally:
        held.shutdown()


if __name__ == "__main__":
    harness.compare(__doc__, CONTESTANTS, measure, waiting=["pyshm", "pyshm?lock=shmlock"], count=50_000)
