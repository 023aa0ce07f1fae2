"""The measured figures in the documentation and the README, generated from benchmarks/summary.json.

``nox -s summary`` measures them, and rewrites that file and the README's lines. For each Python, the file has the
reports of `ipcq bench --json` by the name of the script that made them, without the samples of the rounds, and the
reports of benchmarks/same_thread.py and benchmarks/leases.py.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ipcq._bench.contestant import FLOOR, OURS, PEER
from ipcq._bench.markdown import markdown
from ipcq._bench.report import FORMAT, Report, digits, figure, of_kind, result_of, times

SUMMARY = Path(__file__).parents[2] / "benchmarks" / "summary.json"

#: The Pythons on which ipcq is measured: all workloads on the first one, and those of the README on the others.
PYTHONS = "3.11", "3.13"

#: A report with fewer rounds or shorter samples is marked as a trial.
ROUNDS, SECONDS = 5, 0.3

UNMEASURED = "The figures of this version have not been measured yet, because that needs an idle machine."

#: The fields of a result that the summary omits.
OMITTED = {"samples", "messages", "p99"}

#: Approximate width of a line in the summary, in characters; a value that fits takes one line.
WIDTH = 400

#: The part of the README with the figures.
PLACE = re.compile(r"(<!-- measured: [^\n]*-->\n)(.*?)(\n<!-- /measured -->)", re.DOTALL)

#: The README's descriptions of the workloads.
SAID = {
    "64B": "Messages of 64 B, one producer and one consumer",
    "1MiB": "Messages of 1 MiB",
    "dict": "Small dicts, as MessagePack",
    "2P2C": "64 B, two producers and two consumers",
    "ping-pong": "A round trip of 64 B",
}


# Writing the summary


def short(report: Report) -> dict[str, Any]:
    """Return the part of a report that the documentation needs."""
    floors = of_kind(report, FLOOR)
    workloads = []
    for workload in report["workloads"]:
        # Omit floors that do not measure this workload.
        results = [each for each in workload["results"] if each["contestant"] not in floors or each["median"]]
        shorter = [{key: value for key, value in each.items() if key not in OMITTED} for each in results]
        workloads.append({**workload, "results": shorter})
    return rounded({**report, "workloads": workloads})


def rounded(value: Any) -> Any:
    """Return the value with all floats rounded to four significant digits; pages show three."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


def dump(value: Any, indent: str = "") -> str:
    """Return JSON with one result per line, for readable diffs."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) <= WIDTH or not isinstance(value, dict | list):
        return line
    deeper = indent + " "
    if isinstance(value, dict):
        parts = [f"{deeper}{json.dumps(key)}: {dump(each, deeper)}" for key, each in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(deeper + dump(each, deeper) for each in value) + f"\n{indent}]"


# Showing it


def kept() -> dict[str, dict[str, Any]]:
    """Return all reports by Python and name of the script."""
    summary: dict[str, dict[str, Any]] = json.loads(SUMMARY.read_text("utf-8"))
    return {python: summary[python] for python in PYTHONS if python in summary}


def read(name: str, python: str = PYTHONS[0]) -> Report:
    """Read the report of a script of benchmarks/.

    Raises:
        ValueError: The report is missing or has another format.
    """
    report: Report | None = kept().get(python, {}).get(name)
    if report is None or report["format"] != FORMAT:
        raise ValueError(f"{SUMMARY}: {name!r} on {python} is not a report of format {FORMAT}")
    return report


def all_of(name: str) -> list[Report]:
    """Read the reports of a script on each Python on which it was measured."""
    return [read(name, python) for python, reports in kept().items() if name in reports]


def is_trial(report: Report) -> bool:
    """Return whether the measurement was too short for reliable figures."""
    return bool(report["rounds"] < ROUNDS or report["seconds"] < SECONDS)


def trial(report: Report) -> str:
    """Return the warning for a trial."""
    return (
        f"These figures come from a trial run ({report['rounds']} rounds of {report['seconds']} s, on a "
        "busy machine): do not rely on them."
    )


def page(report: Report) -> Iterator[str]:
    """Yield the tables of a page."""
    yield from warning(report)
    yield from markdown(report)


def ratios(report: Report) -> Iterator[str]:
    """Yield a table that compares a contestant with the one that it replaces."""
    yield from warning(report)
    (ours,), base = of_kind(report, OURS), report["base"]
    yield f"| | `{ours}` | `{base}` | ratio |"
    yield "|---|---:|---:|---|"
    for workload in report["workloads"]:
        mine, other = result_of(workload, ours), result_of(workload, base)
        if not mine or not other:
            raise ValueError(f"{workload['title']}: {ours} or {base} was not measured")
        cells = figure(mine["median"]), figure(other["median"]), times(mine["to_base"])
        yield f"| {workload['title']}, {workload['unit']} | {' | '.join(cells)} |"


def same_thread(report: Report) -> Iterator[str]:
    """Yield the tables of puts and gets in one thread."""
    yield f"{report['machine']['python']}, {report['machine']['processor']}. Medians of {report['rounds']} rounds."
    for workload, by_name in report["results"].items():
        yield from ("", f"| {workload} | put, ns | get, ns | put / floor | get / floor |", "|---|---:|---:|---:|---:|")
        for name, each in by_name.items():
            if "declined" not in each:
                cells = (figure(each[column]) for column in ("put", "get", "put to floor", "get to floor"))
                yield f"| {name} | {' | '.join(cells)} |"


#: The columns of the table of leases, by the figures of benchmarks/leases.py.
LEASES = {
    "pairs": "one by one",
    "batches": "100 at a time",
    "processes": "from another process",
    "plain": "put and get of a plain queue",
    "held": "time beside held messages",
}


def leases(report: Report) -> Iterator[str]:
    """Yield the table of leases and acknowledgements."""
    yield f"{report['machine']['python']}, {report['machine']['processor']}. Medians of {report['rounds']} rounds."
    yield from ("", f"| messages/s | {' | '.join(LEASES.values())} |", f"|---|{'---:|' * len(LEASES)}")
    for name, each in report["results"].items():
        if "declined" not in each:
            cells = (figure(each[column]) if column in each else "–" for column in LEASES)
            yield f"| {name} | {' | '.join(cells)} |"


def warning(report: Report) -> Iterator[str]:
    if is_trial(report):
        yield from ("```{warning}", trial(report), "```", "")


def versions(report: Report) -> list[str]:
    """Return the names and versions of the peers that have a figure."""
    results = chain.from_iterable(workload["results"] for workload in report["workloads"])
    measured = {each["contestant"] for each in results if each["median"]}
    peers = [each for each in report["contestants"] if each["kind"] == PEER and each["name"] in measured]
    return list(dict.fromkeys(f"{library(each['name'])} {each['version']}".strip() for each in peers))


def library(contestant: str) -> str:
    """Return the name without the suffix that distinguishes two uses of one library."""
    return contestant.partition(",")[0]


def readme(reports: Sequence[Report]) -> Iterator[str]:
    """Yield the README's lines: the figures, unless one report is a trial, and the measured peers."""
    if any(map(is_trial, reports)):
        yield UNMEASURED
    else:
        for report in reports:
            workloads = {each["name"]: each for each in report["workloads"]}
            yield from (f"On {report['machine']['python']}:", "")
            yield from (line(said, workloads[name], report["base"]) for name, said in SAID.items())
            yield ""
        yield "Above 1 ×, ipcq is faster; below, the other library is."
    yield ""
    yield f"Compared with: {', '.join(dict.fromkeys(chain(*map(versions, reports))))}."


def line(said: str, workload: Mapping[str, Any], base: str) -> str:
    """Return the README's line for one workload."""
    ours, best = workload["results"][0], library(workload["best_peer"])
    against = [] if best == base else [f"{digits(workload['to_best_peer']['median'])} × {best}, the fastest peer here"]
    ratios = " and ".join([f"{digits(ours['to_base']['median'])} × {base}", *against])
    return f"- {said}: {figure(ours['median'])} {workload['unit']}; {ratios}."


def written_anew(text: str) -> str:
    """Return the README with its figures replaced by those of the summary."""
    lines = "\n".join(readme(all_of("peers")))
    return PLACE.sub(lambda place: f"{place[1]}{lines}{place[3]}", text)
