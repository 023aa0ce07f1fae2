"""A report as an SVG chart: one panel per workload, one bar per contestant, on a logarithmic scale.

The SVG is written by hand. To be legible on light and dark pages, it needs an embedded style sheet, which no plotting
library writes. And ``ipcq bench --plot`` must work without other packages. Each bar is labelled with its name and its
figure, so no information depends on colour.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

from ipcq._bench.contestant import CONTROL
from ipcq._bench.report import Report, figure, of_kind

COLUMNS = 2
WIDTH = 500
MARGIN = 16
NAMES = 180
FIGURES = 70
BAR = 12
PITCH = 17
HEAD = 42
FOOT = 18

STYLE = """
svg { --page: #ffffff; --text: #1f2328; --faint: #59636e; --line: #d1d9e0; --ours: #0969da; --peer: #8c959f; }
@media (prefers-color-scheme: dark) {
  svg { --page: #0d1117; --text: #e6edf3; --faint: #9198a1; --line: #3d444d; --ours: #4493f8; --peer: #6e7681; }
}
text { font: 12px system-ui, sans-serif; fill: var(--text); }
.title { font-weight: 600; font-size: 13px; }
.faint { fill: var(--faint); font-size: 11px; }
.page { fill: var(--page); }
.line { stroke: var(--line); }
.ours { fill: var(--ours); }
.peer { fill: var(--peer); }
.floor { fill: none; stroke: var(--peer); stroke-dasharray: 3 2; }
"""


def svg(report: Report) -> str:
    """Draw a report."""
    kinds = {each["name"]: each["kind"] for each in report["contestants"]}
    twice = of_kind(report, CONTROL)
    panels = []
    for workload in report["workloads"]:
        shown = [each for each in workload["results"] if each["median"] and each["contestant"] not in twice]
        shown.sort(key=lambda each: each["median"], reverse=workload["rising"])
        if shown:
            panels.append((workload, shown))
    rows = [panels[index : index + COLUMNS] for index in range(0, len(panels), COLUMNS)]
    heights = [HEAD + FOOT + PITCH * max(len(shown) for _, shown in row) for row in rows]
    width, height = COLUMNS * WIDTH + MARGIN, sum(heights) + 2 * MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(caption(report))}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    top = MARGIN
    for row, tall in zip(rows, heights, strict=True):
        for column, (workload, shown) in enumerate(row):
            lines += panel(workload, shown, kinds, MARGIN + column * WIDTH, top)
        top += tall
    return "\n".join([*lines, "</svg>", ""])


def caption(report: Report) -> str:
    """Return the title of the chart."""
    machine = report["machine"]
    return f"Queues between processes, side by side: {machine['python']}, {machine['processor']}"


def panel(
    workload: Mapping[str, Any], shown: list[Mapping[str, Any]], kinds: Mapping[str, str], left: int, top: int
) -> Iterator[str]:
    """Draw one workload."""
    values = [each["median"] for each in shown]
    # Whole powers of ten at both ends, so that the axis is readable.
    low = math.floor(math.log10(min(values)) - 0.1)
    high = max(math.ceil(math.log10(max(values))), low + 1)
    long = WIDTH - MARGIN - NAMES - FIGURES

    def across(value: float) -> float:
        return round((math.log10(value) - low) / (high - low) * long, 1)

    more = "more is better" if workload["rising"] else "less is better"
    begin, bottom = left + NAMES, top + HEAD + PITCH * len(shown)
    yield f'<text class="title" x="{left}" y="{top + 14}">{escape(workload["title"])}</text>'
    yield f'<text class="faint" x="{left}" y="{top + 30}">{workload["unit"]}, {more}</text>'
    step = 1 + (high - low) // 6
    for power in range(low, high + 1, step):
        x = begin + across(10.0**power)
        yield f'<line class="line" x1="{x}" x2="{x}" y1="{top + HEAD - 4}" y2="{bottom}"/>'
        yield f'<text class="faint" x="{x}" y="{bottom + 12}" text-anchor="middle">{tick(power)}</text>'
    for number, each in enumerate(shown):
        y = top + HEAD + PITCH * number
        name, wide = escape(each["contestant"]), across(each["median"])
        yield f'<text x="{begin - 6}" y="{y + BAR - 2}" text-anchor="end">{name}</text>'
        yield f'<rect class="{kinds[each["contestant"]]}" x="{begin}" y="{y}" width="{wide}" height="{BAR}"/>'
        yield f'<text class="faint" x="{begin + wide + 5}" y="{y + BAR - 2}">{figure(each["median"])}</text>'


def tick(power: int) -> str:
    """Return a short label for a power of ten."""
    return (
        figure(10.0**power).replace(".00", "").replace(".0", "").replace(" ", "") if power >= 0 else f"{10.0**power:g}"
    )
