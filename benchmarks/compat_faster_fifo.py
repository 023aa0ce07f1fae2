"""The face of faster-fifo beside faster-fifo.

What it has to reach: 3 times on each.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import harness
from rivals import FasterFifo, installed

from ipcq._bench.contestant import OURS, Contestant, Declined
from ipcq._bench.queues import BYTES_ALONE
from ipcq._bench.workload import Workload
from ipcq._distribution import DISTRIBUTION
from ipcq.compat.faster_fifo import Queue


class Face(FasterFifo):
    """It is used as faster-fifo is, word for word."""

    kind = OURS
    distribution = DISTRIBUTION

    @contextmanager
    def queues(self, workload: Workload) -> Iterator[Sequence[Any]]:
        if self._raw and workload.objects:
            raise Declined(BYTES_ALONE)
        codec = {"dumps": bytes, "loads": bytes} if self._raw else {}
        yield [Queue(max_size_bytes=workload.room, **codec) for _ in range(workload.queues)]


if __name__ == "__main__":
    peers: list[Contestant] = [harness.Absent("faster-fifo")]
    if installed("faster-fifo"):
        peers = [FasterFifo(), FasterFifo("faster-fifo, raw", raw=True)]
    harness.main(
        __doc__,
        [Face("ipcq.compat.faster_fifo"), *peers, Face("ipcq.compat.faster_fifo, raw", raw=True)],
        ["64B", "1KiB", "batch", "dict", "4P1C", "2P2C", "ping-pong", "wake-up", "idle"],
    )
