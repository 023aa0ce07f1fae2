"""The drop-in replacement for shmqueue compared with shmqueue 0.0.2, with equal buffers.

Goal: at least 50 times as fast as shmqueue. The last column is `ipcq` itself on the same backend.
"""

import warnings
from typing import Any

import harness
from rivals import ShmQueue

from ipcq._bench.contestant import OURS
from ipcq._bench.queues import Ipcq
from ipcq._bench.workload import Workload
from ipcq._distribution import DISTRIBUTION

ROOM = 1 << 20


class DropIn(ShmQueue):
    """The contestant of shmqueue with the replacement's import."""

    kind = OURS
    distribution = DISTRIBUTION

    def _open(self, name: str, workload: Workload) -> Any:
        from ipcq.compat import shmqueue

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles, which shmqueue loads too
            return shmqueue.ShmQueue(name, buffer_size=self._buffer_size or workload.room)


if __name__ == "__main__":
    harness.main(
        __doc__,
        [
            DropIn("compat.shmqueue", buffer_size=ROOM),
            ShmQueue(buffer_size=ROOM),
            Ipcq("shm", buffer_size=ROOM),
        ],
        ["64B", "1KiB", "dict", "2P2C", "4P1C", "ping-pong", "wake-up"],
    )
