"""The result of a comparison as one JSON object, from which all other output is made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ipcq._bench.comparison import Result, best, ratio
from ipcq._bench.contestant import CONTROL, PEER, Contestant
from ipcq._bench.workload import Workload

#: Version of the object. Readers reject any other.
FORMAT = 1

Report = Mapping[str, Any]


def heading(
    contestants: Sequence[Contestant], machine: Mapping[str, Any], rounds: int, seconds: float
) -> dict[str, Any]:
    """Return the part of the report that is common to all workloads."""
    return {
        "format": FORMAT,
        "machine": dict(machine),
        "rounds": rounds,
        "seconds": seconds,
        "base": base_of(contestants).name,
        "contestants": [{"name": each.name, "kind": each.kind, "version": each.version} for each in contestants],
        "workloads": [],
    }


def base_of(contestants: Sequence[Contestant]) -> Contestant:
    """Return the contestant that ratios refer to: the first peer, or the first contestant if there is no peer."""
    return next((each for each in contestants if each.kind == PEER), contestants[0])


def entry(workload: Workload, results: Sequence[Result]) -> dict[str, Any]:
    """Return the results of a workload.

    Ratios compare each contestant with the first peer, and the first contestant with the best peer. Above 1 is better.
    """
    base = base_of([result.contestant for result in results])
    (against,) = (result for result in results if result.contestant is base)
    first = results[0]
    champion = best(results, workload, PEER)
    control = next((result for result in results if result.contestant.kind == CONTROL), None)
    return {
        "name": workload.name,
        "title": workload.title,
        "unit": workload.unit,
        "rising": workload.rising,
        "best_peer": champion.contestant.name if champion else None,
        "to_best_peer": _ratio(first, champion, workload),
        "control": _ratio(control, first, workload),
        "results": [_told(result, against, workload) for result in results],
    }


def _told(result: Result, against: Result, workload: Workload) -> dict[str, Any]:
    values = result.values
    return {
        "contestant": result.contestant.name,
        "median": result.middle("value"),
        "low": min(values, default=None),
        "high": max(values, default=None),
        "p99": result.middle("tail"),
        "cpu": result.middle("cpu"),
        "messages": sum(sample.messages for sample in result.samples),
        "samples": [sample.value for sample in result.samples],
        "to_base": _ratio(result, against, workload),
        "declined": result.declined or None,
        "failed": result.failed or None,
    }


def _ratio(one: Result | None, other: Result | None, workload: Workload) -> dict[str, float] | None:
    found = ratio(one.values, other.values, workload) if one and other else None
    return asdict(found) if found else None


def read(path: str) -> Report:
    """Read a report.

    Raises:
        ValueError: The file is not a report, or has another format.
    """
    report = json.loads(Path(path).read_text("utf-8"))
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ValueError(f"{path} is not a report of format {FORMAT}")
    return report


def failures(report: Report) -> list[str]:
    """Return a line for each failure."""
    return [
        f"{result['contestant']}, {workload['title']}: {result['failed']}"
        for workload in report["workloads"]
        for result in workload["results"]
        if result["failed"]
    ]


def of_kind(report: Report, *kinds: str) -> list[str]:
    """Return the names of the contestants of the given kinds."""
    return [each["name"] for each in report["contestants"] if each["kind"] in kinds]


def result_of(workload: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return the result of a contestant in a workload; None if it did not take part."""
    found: Mapping[str, Any] | None = next((each for each in workload["results"] if each["contestant"] == name), None)
    return found


def figure(value: float | None) -> str:
    """Return a figure with three significant digits, and a letter for thousands or millions."""
    if value is None:
        return "–"
    for scale, letter in ((1e6, " M"), (1e3, " k")):
        if value >= scale * 0.9995:
            return f"{digits(value / scale)}{letter}"
    return digits(value)


def digits(value: float) -> str:
    """Return a number with three significant digits, without an exponent."""
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def times(found: Mapping[str, float] | None) -> str:
    """Return a ratio with its lowest and highest value."""
    if found is None:
        return "–"
    return f"{digits(found['median'])} × ({digits(found['low'])} to {digits(found['high'])})"
