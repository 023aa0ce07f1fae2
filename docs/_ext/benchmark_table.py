"""The tables of measured figures, from the reports that are kept in benchmarks/results: for the page, and the README.

``nox -s benchmarks -- peers --keep`` measures, keeps the report, and writes the README's lines anew.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ipcq._bench import _report
from ipcq._bench._report import digits, figure

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

#: The report of which the README's lines are made.
README_FROM = "cpython-3.11.json"

#: Where they stand in the README.
PLACE = re.compile(r"(<!-- measured: [^\n]*-->\n)(.*?)(\n<!-- /measured -->)", re.DOTALL)

#: The lines: what is said of each workload.
SAID = {
    "64B": "Messages of 64 B, one producer and one consumer",
    "1MiB": "Messages of 1 MiB",
    "dict": "Small dicts, as MessagePack",
    "2P2C": "64 B, two producers and two consumers",
    "ping-pong": "A round trip of 64 B",
}


def read(name: str) -> Any:
    """Read a report that is kept."""
    return _report.read(str(RESULTS / name))


def five_lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Make the README's lines."""
    workloads = {each["name"]: each for each in report["workloads"]}
    for name, said in SAID.items():
        workload = workloads[name]
        ours, best = workload["results"][0], workload["to_best_peer"]
        base, peer = digits(ours["to_base"]["median"]), digits(best["median"])
        yield (
            f"- {said}: {figure(ours['median'])} {workload['unit']}, {base} × {report['base']}, "
            f"{peer} × the best peer ({workload['best_peer']})."
        )
