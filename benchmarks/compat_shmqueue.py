"""The face of shmqueue against shmqueue 0.0.2 itself, with as much room for each.

Wanted: at least 50 times shmqueue. The last column is what the face stands on.
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


class Face(ShmQueue):
    """The peer's plan with the other import."""

    kind = OURS
    distribution = DISTRIBUTION

    def _open(self, name: str, workload: Workload) -> Any:
        from ipcq.compat import shmqueue

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it reads pickles, as shmqueue does
            return shmqueue.ShmQueue(name, buffer_size=self._buffer_size or workload.room)


if __name__ == "__main__":
    harness.main(
        __doc__,
        [
            Face("compat.shmqueue", buffer_size=ROOM),
            ShmQueue(buffer_size=ROOM),
            Ipcq("shm", buffer_size=ROOM),
        ],
        ["64B", "1KiB", "dict", "2P2C", "4P1C", "ping-pong", "wake-up"],
    )
