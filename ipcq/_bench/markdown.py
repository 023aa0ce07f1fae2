"""A report as Markdown tables."""

from collections.abc import Iterator, Mapping
from typing import Any

from ipcq._bench.contestant import FLOOR, OURS, PEER
from ipcq._bench.report import Report, digits, figure, of_kind, result_of, times


def markdown(report: Report) -> Iterator[str]:
    """Yield the lines: medians, ratios, CPU time, and reasons for missing figures."""
    yield measured_on(report)
    yield ""
    names = of_kind(report, OURS, PEER)
    ours = names[0]
    yield f"| | {' | '.join(names)} | to {report['base']} | to the best of these peers | the same twice |"
    yield f"|---|{'---:|' * len(names)}---|---|---|"
    for workload in report["workloads"]:
        cells = [cell(result_of(workload, name)) for name in names]
        first = result_of(workload, ours) or {"to_base": None}
        against = f" ({workload['best_peer']})" if workload["best_peer"] else ""
        yield (
            f"| {workload['title']}, {workload['unit']} | {' | '.join(cells)} | {times(first['to_base'])} "
            f"| {times(workload['to_best_peer'])}{against} | {times(workload['control'])} |"
        )
    yield from processor_time(report, names)
    yield from floors(report)
    yield from gaps(report)


def measured_on(report: Report) -> str:
    """Return a paragraph about the machine and the method."""
    machine = report["machine"]
    load = "" if report.get("load") is None else f"; load {' to '.join(str(each) for each in report['load'])}"
    return (
        f"{machine['python']}, {machine['system']}, {machine['processor']}, {machine['usable_cpus']} processors{load}. "
        f"Medians of {report['rounds']} rounds of {digits(report['seconds'])} s. Ratios are paired by round, with the "
        "lowest and the highest; above 1 is faster."
    )


def cell(result: Mapping[str, Any] | None) -> str:
    """Return the table cell of one contestant."""
    if result is None or result["declined"]:
        return "–"
    return "failed" if result["failed"] else figure(result["median"])


def processor_time(report: Report, names: list[str]) -> Iterator[str]:
    """Yield a second table: CPU time of all processes per message."""
    rows = [
        (workload["title"], [result_of(workload, name) for name in names])
        for workload in report["workloads"]
        if any(result["cpu"] is not None for result in workload["results"])
    ]
    if not rows:
        return
    yield ""
    yield "Processor time of all processes for each message, in µs:"
    yield ""
    yield f"| | {' | '.join(names)} |"
    yield f"|---|{'---:|' * len(names)}"
    for title, results in rows:
        yield f"| {title} | {' | '.join(figure(result['cpu'] if result else None) for result in results)} |"


def floors(report: Report) -> Iterator[str]:
    """Yield the limits of hardware and kernel, if measured."""
    names = of_kind(report, FLOOR)
    lines = [
        f"- {workload['title']}: {figure(result['median'])} {workload['unit']} by {name}"
        for workload in report["workloads"]
        for name in names
        if (result := result_of(workload, name)) and result["median"] is not None
    ]
    if lines:
        yield ""
        yield "Floors, measured by a program in C in the same rounds:"
        yield ""
        yield from lines


def gaps(report: Report) -> Iterator[str]:
    """Yield reasons for missing figures."""
    reasons: dict[str, list[str]] = {}
    for name in of_kind(report, OURS, PEER):
        for workload in report["workloads"]:
            result = result_of(workload, name) or {"declined": None, "failed": None}
            if result["declined"]:
                reasons.setdefault(f"{name} is left out: {result['declined']}", []).append(workload["title"])
            if result["failed"]:
                reasons.setdefault(f"{name} failed: {result['failed']}", []).append(workload["title"])
    if reasons:
        yield ""
        yield from (f"- {reason} ({'; '.join(titles)})" for reason, titles in reasons.items())
