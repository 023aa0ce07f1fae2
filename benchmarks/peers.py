"""ipcq beside its peers, and above the floors of the hardware: all workloads.

The versions of the peers are those of the dependency group `bench`, which
`nox -s benchmarks` installs; one that is missing has an empty column. posix_ipc
and baseplate are as fast as the limits of this user let them be; for the best
that they can do: sudo sysctl fs.mqueue.msg_max=1000 fs.mqueue.msgsize_max=65536
"""

import harness
from floors import FLOORS, Floor

from ipcq._bench._contestant import Contestant
from ipcq._bench._peers import PEERS, FasterFifo, installed
from ipcq._bench._queues import Ipcq


def contestants() -> list[Contestant]:
    found: list[Contestant] = [Ipcq("shm")]
    for name, peer in PEERS.items():
        found.append(peer() if installed(name) else harness.Absent(name))
        if name == "faster-fifo" and installed(name):
            found.append(FasterFifo("faster-fifo, raw", raw=True))
    return [*found, *map(Floor, FLOORS)]


if __name__ == "__main__":
    harness.main(__doc__, contestants())
