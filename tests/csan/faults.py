"""Seeds one fault after another into a copy of the C core, and requires that the program named with it fails.

    python faults.py OUT [WORD ...]

This tests the tests. The faults are in faults.diff, so that the core itself holds none of them. One whose lines are no
longer found exactly once fails the run, since a fault that nobody seeds proves nothing. With words, only those faults
are tried whose names have one of them.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
CORE = HERE.parents[1] / "backends" / "ipcq_shm" / "csrc"
#: What each program is run with, so that it ends soon: segments that mean harm, seconds.
ARGUMENTS = {"cases": ["500"], "leases": [], "waking": [], "threads": ["4"], "crash": []}
#: What only queues with leases run.
LEASING = ("work.c", "transition.c", "expiry.c", "dead.c", "lease.c")
#: Seconds for one program. They end by themselves, also where they wait for what never comes.
PATIENCE = 300


class Fault(NamedTuple):
    name: str
    file: str
    program: str
    changes: list[tuple[str, str]]


def faults() -> list[Fault]:
    """Read faults.diff."""
    found = []
    for name, file, program, body in re.findall(
        r"^# (.+): (\w+\.[ch]), ([\w-]+)\n((?:(?:[-+].*)?\n)+)", (HERE / "faults.diff").read_text(), re.MULTILINE
    ):
        parts = [part.splitlines() for part in body.strip("\n").split("\n\n")]
        changes = [(lines(part, "-"), lines(part, "+")) for part in parts]
        found.append(Fault(name, file, program, changes))
    return found


def lines(part: list[str], sign: str) -> str:
    # What is changed may begin and end within a line.
    return "\n".join(line[1:] for line in part if line.startswith(sign)).strip()


def complaint(fault: Fault, out: Path) -> str:
    """Return why a fault proves nothing, or nothing."""
    place = out.resolve() / re.sub(r"\W", "-", fault.name)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(CORE, place / "csrc")
    source = place / "csrc" / fault.file
    text = source.read_text()
    for right, wrong in fault.changes:
        if text.count(right) != 1:
            return f": {fault.file} has {text.count(right)} times\n{right}"
        text = text.replace(right, wrong)
    source.write_text(text)
    program = place / fault.program
    # What is wrong may be what a compiler would complain about, too.
    settings = [f"CORE={place / 'csrc'}", f"OUT={place}", "MORE=-Wno-error"]
    if run(["make", "--silent", "-C", str(HERE), *settings, str(program)], place / "make.log") != 0:
        return f": it does not compile\n{(place / 'make.log').read_text()}"
    if run([str(program), *arguments(fault)], place / "run.log") == 0:
        return f": it saw nothing wrong\n{(place / 'run.log').read_text()}"
    return ""


def arguments(fault: Fault) -> list[str]:
    """Return what the program is run with, so that it comes to the fault soon."""
    program = fault.program.partition("-")[0]
    return ["leases"] if program == "crash" and fault.file in LEASING else ARGUMENTS[program]


def run(command: list[str], log: Path) -> int:
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output, process_group=0) as process:
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise


def main(out: Path, words: list[str]) -> None:
    """Try them, as many at once as there are processors."""
    chosen = [fault for fault in faults() if not words or any(word in fault.name for word in words)]
    missed = not chosen
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for fault, verdict in zip(chosen, pool.map(lambda fault: complaint(fault, out), chosen), strict=True):
            print(f"faults: {fault.program} {'MISSED' if verdict else 'caught'}: {fault.name}{verdict}", flush=True)
            missed |= bool(verdict)
    if missed:
        sys.exit("faults: what is missed could as well be in the core")
    print(f"faults: all {len(chosen)} were caught")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
