"""Checks the models beside the C core with SPIN: all that must hold, and that each seeded mistake is found.

    python tests/csan/model.py          minutes, 2 GB
    python tests/csan/model.py full     larger queues and more kills: up to an hour, 16 GB

Needs spin and a C compiler.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

CORE = Path(__file__).resolve().parents[2] / "backends" / "ipcq_shm" / "csrc"
TINY = "RECORDS=1"
TWO_PUT = ("PRODUCERS=2", "EACH=1", TINY)
TWO_GET = ("PRODUCERS=1", "EACH=2", TINY)


class Run(NamedTuple):
    """One search."""

    model: str
    what: str
    defines: tuple[str, ...]
    found: str = ""  # what SPIN has to say; empty: that nothing is wrong


DAILY = (
    Run("lock", "three threads, one is killed", ("CRASHES=1",)),
    Run("lock", "three threads, slices that never end", ("CRASHES=0", "NO_SLICES")),
    Run("ring", "two producers, a consumer, one is killed", ("SLICE_QUIET", *TWO_PUT)),
    Run("ring", "a producer, two consumers, one is killed", ("SLICE_QUIET", "PRODUCERS=1", "EACH=1", TINY)),
    Run("lease", "two participants, a message with two deliveries, two are killed", ("MOST=2",)),
    Run(
        "ring", "two producers, a consumer, slices that never end", ("CRASHES=0", "NO_SLICES", "SLICE_QUIET", *TWO_PUT)
    ),
)
MISTAKES = (
    Run("lock", "a kill without slices", ("CRASHES=1", "NO_SLICES"), "invalid end state"),
    Run("lock", "pending after the word", ("CRASHES=1", "MISTAKE_LATE_PENDING"), "invalid end state"),
    *(
        Run("lease", what, ("MOST=2", f"MISTAKE_{name}"), found)
        for name, what, found in (
            ("NO_SERIAL", "settling without comparing the serial number", "assertion violated"),
            ("NO_GENERATION", "taking the next owner of a slot for the holder", "invalid end state"),
            ("COMMIT_FIRST", "counting the delivery after the commit", "assertion violated"),
            ("COUNT_AT_RETURN", "counting the failure when a lease returns", "assertion violated"),
            ("EARLY_END", "ending while a message is leased", "assertion violated"),
        )
    ),
    Run("ring", "a kill without slices", ("NO_SLICES", "SLICE_QUIET", *TWO_GET), "invalid end state"),
    Run(
        "ring",
        "waking before the commit",
        ("CRASHES=0", "NO_SLICES", "SLICE_QUIET", "MISTAKE_WAKE_BEFORE_COMMIT", *TWO_PUT),
        "invalid end state",
    ),
    *(
        Run("ring", what, ("SLICE_QUIET", f"MISTAKE_{name}", *TWO_GET), "assertion violated")
        for name, what in (
            ("COMMIT_BEFORE_COPY", "committing before the copy"),
            ("TAKE_BEFORE_COPY", "taking before the copy"),
            ("HOLD_AFTER_COMMIT", "holding space after the commit"),
            ("HELD_FIRST", "reading what is held before the position"),
            ("REPAIR_BLINDLY", "repairing without compare-and-swap"),
        )
    ),
)
FULL = (
    Run("lease", "two participants, a message with three deliveries, two are killed", ()),
    Run("lock", "three threads, two are killed", ("CRASHES=2",)),
    Run("ring", "a producer of two, two consumers, one is killed", ("SLICE_QUIET", *TWO_GET)),
    Run("ring", "two producers, a consumer, one is killed, slices end at any time", TWO_PUT),
    Run("ring", "two producers, a consumer, two are killed", ("CRASHES=2", "SLICE_QUIET", *TWO_PUT)),
    Run("ring", "a producer of two, two consumers, no slices", ("CRASHES=0", "NO_SLICES", "SLICE_QUIET", *TWO_GET)),
)


def search(run: Run, place: str, memory: int) -> tuple[bool, str]:
    """Return whether a search ended as it has to, and what it says in one line."""
    defines = [f"-D{define}" for define in run.defines]
    subprocess.run(["spin", *defines, "-a", str(CORE / f"{run.model}.pml")], cwd=place, check=True, capture_output=True)
    compiler = shutil.which("gcc") or "cc"
    flags = ["-O2", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={memory}"]
    subprocess.run([compiler, *flags, "-o", "pan", "pan.c"], cwd=place, check=True)
    told = subprocess.run(["./pan", "-m200000", "-w24"], cwd=place, capture_output=True, text=True, check=False).stdout
    states = re.search(r"([\d.e+]+) states, stored", told)
    errors = re.search(r"errors: (\d+)", told)
    if not states or not errors or (not run.found and "Search not completed" in told):
        return False, f"the search did not end:\n{told}"
    said = next((line for line in told.splitlines() if line.startswith("pan:1:")), "")
    right = run.found in said if run.found else errors[1] == "0" and "max search depth" not in told
    return right, f"{int(float(states[1])):>12,} states: {said.removeprefix('pan:1: ') or 'nothing wrong'}"


def main() -> int:
    missing = [program for program in ("spin", "cc") if shutil.which(program) is None]
    if missing:
        print(f"{' and '.join(missing)} is missing: sudo apt-get install spin gcc")
        return 2
    full = sys.argv[1:] == ["full"]
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        for run in (*DAILY, *MISTAKES, *(FULL if full else ())):
            right, said = search(run, place, 16000 if full else 2000)
            wrong += not right
            print(f"{'ok   ' if right else 'WRONG'} {run.model}: {run.what:<64} {said}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
