"""The instructions of a put, a get, a lease and an ack, counted by callgrind.

Unlike times, they hardly depend on other load.

Run ``python benchmarks/instructions.py``, which needs valgrind. A figure is the count of a loop of calls in Python,
minus the count of the same loop with no iterations, divided by the number of calls. So it includes the interpreter's
share. Ratios are to the first floor, a bare ring in C (floor_ring.c), in the same run; those of a lease and of an ack
are to its get. They depend only on the compiler and on Python. Dropping the lease is part of the ack.

Instructions in the kernel are not counted. ``--profile DIRECTORY`` compiles ipcq's extensions with symbols, and keeps
callgrind's files in that directory for callgrind_annotate.
"""

import argparse
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

from floors import compiled, extension, python_options
from same_thread import BATCH, FLOOR, FLOORS, ITEMS, SPECIALISED, copy, figures, loops, ours, show

import ipcq
from ipcq._bench.contestant import Declined
from ipcq._bench.machine import machine
from ipcq._bench.queues import new_name

ROOT = Path(__file__).parents[1]
#: The number of batches of messages that are counted together.
BATCHES = 5
VERBS = ("put", "get")
#: The verbs of a queue with leases, and the backends that have some.
LEASING, LENDERS = ("lease", "ack"), ("shm", "memory", "pyshm")
#: The title of a callgrind file, as the counting process sets it.
TITLE = re.compile(r"^desc: Trigger: Client Request: (\S+) (put|get|lease|ack) (\d+) (.*)$", re.MULTILINE)
TOTAL = re.compile(r"^(?:totals|summary): (\d+)$", re.MULTILINE)


# In the process that valgrind runs


def count(workload: str, names: list[str]) -> dict[str, str]:
    """Let callgrind count the contestants' loops; return the reasons of those that were not measured."""
    native = extension()
    declined = {}
    for plan in (*FLOORS, *ours()):
        if names and plan.name not in (FLOOR, *names):
            continue
        try:
            with loops(plan, workload, SPECIALISED) as made:
                for times in (made.batch, 0):
                    for _ in range(BATCHES):
                        native.counted(lambda times=times: made.put(times))
                        made.get(times)
                    native.report(f"{workload} put {times} {plan.name}")
                    for _ in range(BATCHES):
                        made.put(times)
                        native.counted(lambda times=times: made.get(times))
                    native.report(f"{workload} get {times} {plan.name}")
        except Declined as reason:
            declined[plan.name] = str(reason)
    for backend in LENDERS:
        if not names or f"ipcq {backend}" in names:
            count_leases(workload, backend)
    return declined


def borrow(lease: Callable[[], Any], kept: list[Any], times: int) -> None:
    for _ in repeat(None, times):
        kept.append(lease())  # noqa: PERF401  # a comprehension would have code of its own


def settle(kept: list[Any], times: int) -> None:
    for _ in repeat(None, times):
        kept.pop().ack()


def count_leases(workload: str, backend: str) -> None:
    """Let callgrind count loops that lease and acknowledge."""
    native, kept = extension(), []
    borrowing, settling = copy(borrow), copy(settle)
    with ipcq.open(new_name(), backend, exclusive=True, leases=True) as queue:

        def fill(times: int) -> None:
            for _ in range(times):
                queue.put(ITEMS[workload])

        try:
            for _ in range(SPECIALISED // BATCH):
                fill(BATCH)
                borrowing(queue.lease, kept, BATCH)
                settling(kept, BATCH)
            for times in (BATCH, 0):
                for _ in range(BATCHES):
                    fill(times)
                    native.counted(lambda times=times: borrowing(queue.lease, kept, times))
                    settling(kept, times)
                native.report(f"{workload} lease {times} ipcq {backend}")
                for _ in range(BATCHES):
                    fill(times)
                    borrowing(queue.lease, kept, times)
                    native.counted(lambda times=times: settling(kept, times))
                native.report(f"{workload} ack {times} ipcq {backend}")
        finally:
            queue.unlink()


def count_all(names: list[str]) -> None:
    """Count, and print as JSON what was not measured."""
    gc.disable()
    extension().start()
    json.dump({workload: count(workload, names) for workload in ITEMS}, sys.stdout)


# In the process that runs valgrind


def counted_in(place: Path) -> dict[str, dict[str, dict[str, dict[int, int]]]]:
    """Return the counts of the loops by workload, contestant, verb and number of calls."""
    counts: dict[str, dict[str, dict[str, dict[int, int]]]] = {}
    for path in place.glob("callgrind.*"):
        text = path.read_text()
        title, total = TITLE.search(text), TOTAL.search(text)
        if title and total:
            workload, verb, times, name = title.groups()
            counts.setdefault(workload, {}).setdefault(name, {}).setdefault(verb, {})[int(times)] = int(total[1])
    return counts


def a_call(counts: Mapping[int, int]) -> float:
    calls = max(counts)
    return (counts[calls] - counts[0]) / BATCHES / calls


def with_symbols(place: Path) -> Path:
    """Copy the packages to a directory in `place`, with extensions compiled with symbols; return the directory."""
    copy = place / "packages"
    shutil.rmtree(copy, ignore_errors=True)
    for package in (ROOT / "ipcq", *(ROOT / "backends").glob("ipcq_*")):
        shutil.copytree(package, copy / package.name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        for library in package.glob("*.so"):
            sources = sorted(map(str, (package / "csrc").glob("*.c")))
            options = *python_options(), "-g", f"-I{package / 'csrc'}", f"-I{ROOT / 'ipcq' / 'include'}", "-shared"
            compiled(copy / package.name, library.name, *options, *sources)
    return copy


def run(names: list[str], profile: Path | None) -> dict[str, Any]:
    """Run the counting process, and return the figures."""
    with tempfile.TemporaryDirectory(prefix="ipcq-callgrind-") as scratch:
        place = Path(scratch)
        # Equal hashes in each run, and so equal collisions.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        if profile:
            place = profile
            place.mkdir(parents=True, exist_ok=True)
            for old in place.glob("callgrind.*"):
                old.unlink()
            paths = str(with_symbols(place)), os.environ.get("PYTHONPATH", "")
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        command = ["valgrind", "--quiet", "--vgdb=no", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no"]
        command += [f"--callgrind-out-file={place}/callgrind.%p", sys.executable, __file__, "--count", *names]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        counts = counted_in(place)
    declined = json.loads(done.stdout)
    results: dict[str, Any] = {}
    for workload, by_name in counts.items():
        calls = {name: {verb: a_call(counts) for verb, counts in verbs.items()} for name, verbs in by_name.items()}
        floor = calls[FLOOR]
        order = [plan.name for plan in (*FLOORS, *ours()) if plan.name in calls]
        results[workload] = {
            name: figures(*(calls[name][verb] for verb in VERBS), *(calls[name][verb] / floor[verb] for verb in VERBS))
            for name in order
        }
        for name in order:
            for verb in filter(calls[name].__contains__, LEASING):
                results[workload][name] |= {
                    verb: calls[name][verb],
                    f"{verb} to floor": calls[name][verb] / floor["get"],
                }
        results[workload] |= {name: {"declined": reason} for name, reason in declined[workload].items()}
    return {workload: results[workload] for workload in ITEMS}


def version_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def show_leases(results: Mapping[str, Mapping[str, Any]]) -> None:
    for workload, by_name in results.items():
        print(f"\n{workload + ', instructions':<36}{'lease':>10}{'ack':>10}{'lease/get':>12}{'ack/get':>12}")
        for name, each in by_name.items():
            if "lease" in each:
                ratios = "".join(f"{each[f'{verb} to floor']:>12.2f}" for verb in LEASING)
                print(f"{name:<36}{each['lease']:>10,.0f}{each['ack']:>10,.0f}{ratios}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="contestants to measure besides the first floor (default: all)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", type=Path, metavar="DIRECTORY", help="keep callgrind's files, with symbols")
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        count_all(given.names)
        return
    if shutil.which("valgrind") is None:
        parser.error("valgrind, which counts the instructions, is missing: sudo apt-get install valgrind")
    results = run(given.names, given.profile)
    programs = {"valgrind": "valgrind", "compiler": os.environ.get("CC", "cc")}
    tools = {what: version_of(program, "--version") for what, program in programs.items()}
    if given.json:
        json.dump({"machine": machine(), **tools, "results": results}, sys.stdout, indent=2)
        return
    print(*machine().values(), *tools.values(), sep=" · ")
    show(results, "instructions")
    show_leases(results)


if __name__ == "__main__":
    main()
