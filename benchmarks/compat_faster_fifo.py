"""The drop-in replacement for faster-fifo compared with faster-fifo.

Goal: at least 3 times as fast in each workload.
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


class DropIn(FasterFifo):
    """The contestant of faster-fifo with the replacement's queues."""

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
        [DropIn("ipcq.compat.faster_fifo"), *peers, DropIn("ipcq.compat.faster_fifo, raw", raw=True)],
        ["64B", "1KiB", "batch", "dict", "4P1C", "2P2C", "ping-pong", "wake-up", "idle"],
    )
