"""ipcq beside its peers, and above the floors of the hardware: all workloads.

The versions of the peers are those of the dependency group `bench`, which
`nox -s benchmarks` installs; one that is missing has an empty column. posix_ipc
and baseplate are as fast as the limits of this user let them be; for the best
that they can do: sudo sysctl fs.mqueue.msg_max=1000 fs.mqueue.msgsize_max=65536
"""

import harness
from floors import FLOORS, Floor
from rivals import RIVALS, FasterFifo, installed

from ipcq._bench.contestant import Contestant
from ipcq._bench.queues import Ipcq
from ipcq._bench.references import REFERENCES


def contestants() -> list[Contestant]:
    # The first peer is what ratios are to.
    base, *references = [reference() for reference in REFERENCES.values()]
    rivals: list[Contestant] = []
    for name, (rival, _) in RIVALS.items():
        rivals.append(rival() if installed(name) else harness.Absent(name))
        if name == "faster-fifo" and installed(name):
            rivals.append(FasterFifo("faster-fifo, raw", raw=True))
    return [Ipcq("shm"), base, *rivals, *references, *map(Floor, FLOORS)]


if __name__ == "__main__":
    harness.main(__doc__, contestants())
