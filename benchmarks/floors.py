"""The limits of the hardware and the kernel: floors.c, compiled when needed, as contestants without a queue."""

import atexit
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from ipcq._bench.contestant import FLOOR, Declined, Failed, Sample
from ipcq._bench.workload import Workload

SOURCE = Path(__file__).with_name("floors.c")

#: For each floor, the arguments of floors.c by the name of the workload.
FLOORS = {
    "spinning on shared memory, C": {"ping-pong": ["spin"]},
    "futex, C": {"ping-pong": ["futex"], "wake-up": ["wake"]},
    "pipe, C": {"ping-pong": ["pipe"]},
    "memcpy, C": {size: ["memcpy"] for size in ("64B", "1KiB", "64KiB", "1MiB")},
}


class Floor:
    """A measurement of floors.c."""

    kind = FLOOR
    version = ""

    def __init__(self, name: str) -> None:
        self.name = name

    def sample(self, workload: Workload, seconds: float) -> Sample:
        if workload.name not in FLOORS[self.name]:
            raise Declined("it does not measure this workload")
        arguments = [*FLOORS[self.name][workload.name], str(seconds), str(workload.size)]
        done = subprocess.run([program(), *arguments], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise Failed(f"floors.c ended with {done.returncode}: {done.stderr.strip()}")
        return Sample(float(done.stdout))


@cache
def program() -> str:
    """Compile floors.c, and return the program's path."""
    place = Path(tempfile.mkdtemp(prefix="ipcq-floors-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    compiler = os.environ.get("CC", "cc")
    try:
        subprocess.run([compiler, "-std=c11", "-O2", "-o", place / "floors", SOURCE], check=True)
    except OSError as error:
        raise Declined(f"no C compiler: {error}") from None
    return str(place / "floors")
