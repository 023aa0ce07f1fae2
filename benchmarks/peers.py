"""ipcq beside its peers, and above the floors of the hardware: all workloads.

The versions of the peers are those of the dependency group `bench`, which
`nox -s benchmarks` installs; one that is missing has an empty column. posix_ipc
and baseplate are as fast as the limits of this user let them be; for the best
that they can do: sudo sysctl fs.mqueue.msg_max=1000 fs.mqueue.msgsize_max=65536
"""

import json
import sys
from pathlib import Path
from typing import Any

import harness
from floors import FLOORS, Floor

from ipcq._bench._contestant import Contestant
from ipcq._bench._peers import PEERS, FasterFifo, installed
from ipcq._bench._queues import Ipcq

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def contestants() -> list[Contestant]:
    found: list[Contestant] = [Ipcq("shm")]
    for name, peer in PEERS.items():
        found.append(peer() if installed(name) else harness.Absent(name))
        if name == "faster-fifo" and installed(name):
            found.append(FasterFifo("faster-fifo, raw", raw=True))
    return [*found, *map(Floor, FLOORS)]


def keep(report: dict[str, Any]) -> None:
    """Keep the report, of which the documentation makes its table, and write the README's lines."""
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    import benchmark_table

    RESULTS.mkdir(exist_ok=True)
    version = "{}.{}".format(*sys.version_info)
    (RESULTS / f"cpython-{version}.json").write_text(json.dumps(report, indent=1) + "\n")
    if f"cpython-{version}.json" == benchmark_table.README_FROM:
        readme = ROOT / "README.md"
        lines = "\n".join(benchmark_table.five_lines(report))
        readme.write_text(benchmark_table.PLACE.sub(lambda place: f"{place[1]}{lines}{place[3]}", readme.read_text()))


if __name__ == "__main__":
    harness.main(__doc__, contestants(), keep=keep)
