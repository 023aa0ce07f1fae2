"""ipcq compared with its peers and with the limits of the hardware, in all workloads.

`nox -s benchmarks` installs the peers in the versions of the dependency group
`bench`; a missing peer has an empty column. The system's limits slow down
posix_ipc and baseplate; to raise them:
sudo sysctl fs.mqueue.msg_max=1000 fs.mqueue.msgsize_max=65536
"""

import harness
from floors import FLOORS, Floor
from rivals import RIVALS, FasterFifo, installed

from ipcq._bench.contestant import Contestant
from ipcq._bench.queues import Ipcq
from ipcq._bench.references import REFERENCES


def contestants() -> list[Contestant]:
    # Ratios are to the first peer.
    base, *references = [reference() for reference in REFERENCES.values()]
    rivals: list[Contestant] = []
    for name, (rival, _) in RIVALS.items():
        rivals.append(rival() if installed(name) else harness.Absent(name))
        if name == "faster-fifo" and installed(name):
            rivals.append(FasterFifo("faster-fifo, raw", raw=True))
    return [Ipcq("shm"), base, *rivals, *references, *map(Floor, FLOORS)]


if __name__ == "__main__":
    harness.main(__doc__, contestants())
