"""A complete comparison: all workloads, and the facts about the machine."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ipcq._bench.comparison import play
from ipcq._bench.contestant import Contestant
from ipcq._bench.machine import load, machine
from ipcq._bench.queues import Again
from ipcq._bench.report import entry, heading
from ipcq._bench.workload import Workload

Beginning = Callable[[Workload, int, Contestant], None]
End = Callable[[dict[str, Any]], None]


def compare(
    contestants: Sequence[Contestant],
    workloads: Sequence[Workload],
    *,
    rounds: int,
    seconds: float,
    begin: Beginning,
    end: End,
) -> dict[str, Any]:
    """Measure the contestants, the first one twice, and return the report.

    Args:
        contestants: Ours first.
        workloads: The workloads.
        rounds: Samples per contestant and workload.
        seconds: Approximate duration of a sample.
        begin: Called before each sample.
        end: Called with the results of each workload.
    """
    everybody = [contestants[0], Again(contestants[0]), *contestants[1:]]
    report = heading(everybody, machine(), rounds, seconds)
    before = load()
    for workload in workloads:
        results = play(everybody, workload, rounds, seconds, partial(begin, workload))
        report["workloads"].append(entry(workload, results))
        end(report["workloads"][-1])
    report["load"] = None if before is None else [before, load()]
    return report
