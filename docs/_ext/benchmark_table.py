"""What the documentation and the README show of measured figures, all of it made of one file: benchmarks/summary.json.

``nox -s benchmarks -- summary`` measures, and writes that file and the README's lines anew. The file has the reports of
`ipcq bench --json` by the names of the scripts that made them, without the samples of each round.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ipcq._bench.contestant import FLOOR, OURS, PEER
from ipcq._bench.markdown import markdown
from ipcq._bench.report import FORMAT, Report, digits, figure, of_kind, result_of, times

SUMMARY = Path(__file__).parents[2] / "benchmarks" / "summary.json"

#: A report with fewer rounds or shorter samples is marked as a trial wherever it is shown.
ROUNDS, SECONDS = 5, 0.3

#: What the summary leaves out of each result.
LEFT_OUT = {"samples", "messages", "p99"}

#: Characters of a line in the summary, about: what fits goes onto one line.
WIDTH = 400

#: Where the figures stand in the README.
PLACE = re.compile(r"(<!-- measured: [^\n]*-->\n)(.*?)(\n<!-- /measured -->)", re.DOTALL)

#: The README's lines: what is said of each workload.
SAID = {
    "64B": "Messages of 64 B, one producer and one consumer",
    "1MiB": "Messages of 1 MiB",
    "dict": "Small dicts, as MessagePack",
    "2P2C": "64 B, two producers and two consumers",
    "ping-pong": "A round trip of 64 B",
}


# What is written


def short(report: Report) -> dict[str, Any]:
    """Return what the documentation needs of a report."""
    floors = of_kind(report, FLOOR)
    workloads = []
    for workload in report["workloads"]:
        # A floor of something else has nothing to say here.
        results = [each for each in workload["results"] if each["contestant"] not in floors or each["median"]]
        shorter = [{key: value for key, value in each.items() if key not in LEFT_OUT} for each in results]
        workloads.append({**workload, "results": shorter})
    return rounded({**report, "workloads": workloads})


def rounded(value: Any) -> Any:
    """Return the same with each figure rounded to four significant digits; three are shown."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list) else value


def dump(value: Any, indent: str = "") -> str:
    """Return JSON with one result on each line, so that a diff can be read."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) <= WIDTH or not isinstance(value, dict | list):
        return line
    deeper = indent + " "
    if isinstance(value, dict):
        parts = [f"{deeper}{json.dumps(key)}: {dump(each, deeper)}" for key, each in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(deeper + dump(each, deeper) for each in value) + f"\n{indent}]"


# What is shown


def read(name: str) -> Report:
    """Read the report of a script of benchmarks/.

    Raises:
        ValueError: It has another format.
    """
    report: Report = json.loads(SUMMARY.read_text("utf-8"))[name]
    if report["format"] != FORMAT:
        raise ValueError(f"{SUMMARY}: {name!r} is no report of format {FORMAT}")
    return report


def is_trial(report: Report) -> bool:
    """Tell whether too little was measured to rely on the figures."""
    return bool(report["rounds"] < ROUNDS or report["seconds"] < SECONDS)


def trial(report: Report) -> str:
    """Say that this is a trial."""
    return (
        f"These figures come from a trial run ({report['rounds']} rounds of {report['seconds']} s, on a "
        "machine that had other work): do not rely on them."
    )


def page(report: Report) -> Iterator[str]:
    """Make the tables of a page."""
    yield from warning(report)
    yield from markdown(report)


def ratios(report: Report) -> Iterator[str]:
    """Make a table of one contestant beside the one that it replaces."""
    yield from warning(report)
    (ours,), base = of_kind(report, OURS), report["base"]
    yield f"| | `{ours}` | `{base}` | ratio |"
    yield "|---|---:|---:|---|"
    for workload in report["workloads"]:
        mine, other = result_of(workload, ours), result_of(workload, base)
        if not mine or not other:
            raise ValueError(f"{workload['title']}: {ours} or {base} took no part")
        cells = figure(mine["median"]), figure(other["median"]), times(mine["to_base"])
        yield f"| {workload['title']}, {workload['unit']} | {' | '.join(cells)} |"


def warning(report: Report) -> Iterator[str]:
    if is_trial(report):
        yield from ("```{warning}", trial(report), "```", "")


def versions(report: Report) -> list[str]:
    """Name the peers that were measured, with their versions."""
    peers = [each for each in report["contestants"] if each["kind"] == PEER]
    return list(dict.fromkeys(f"{library(each['name'])} {each['version']}".strip() for each in peers))


def library(contestant: str) -> str:
    """Return the name without the suffix that tells two uses of one library apart."""
    return contestant.partition(",")[0]


def readme(report: Report) -> Iterator[str]:
    """Make the README's lines: figures, unless they are of a trial, and who was measured."""
    if is_trial(report):
        yield "The figures of this version have not been measured yet; that needs a machine with nothing else to do."
    else:
        workloads = {each["name"]: each for each in report["workloads"]}
        yield from (line(said, workloads[name], report["base"]) for name, said in SAID.items())
        yield ""
        yield "Above 1 ×, ipcq is faster; below, the other one is."
    yield ""
    yield f"Measured beside ipcq: {', '.join(versions(report))}."


def line(said: str, workload: Mapping[str, Any], base: str) -> str:
    """Tell one workload."""
    ours, best = workload["results"][0], library(workload["best_peer"])
    against = (
        [] if best == base else [f"{digits(workload['to_best_peer']['median'])} × {best}, the fastest peer at this"]
    )
    ratios = " and ".join([f"{digits(ours['to_base']['median'])} × {base}", *against])
    return f"- {said}: {figure(ours['median'])} {workload['unit']}; {ratios}."


def written_anew(text: str) -> str:
    """Return the README with its figures made of the summary."""
    lines = "\n".join(readme(read("peers")))
    return PLACE.sub(lambda place: f"{place[1]}{lines}{place[3]}", text)
