"""``ipcq bench``: measure ipcq on this machine, side by side with the standard library."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import click

import ipcq
from ipcq._bench.contestant import Contestant
from ipcq._bench.markdown import markdown, measured_on
from ipcq._bench.plot import svg
from ipcq._bench.queues import Ipcq, new_name
from ipcq._bench.references import REFERENCES
from ipcq._bench.report import digits, failures, figure, times
from ipcq._bench.run import compare
from ipcq._bench.workload import WORKLOADS, Workload
from ipcq._cli._creation import allow_short_lived
from ipcq._cli._exits import USAGE, Failure, complain
from ipcq._cli._options import complete_backend, json_option, quiet_option
from ipcq._cli._output import print_json, print_line, print_table
from ipcq._cli._progress import Progress
from ipcq._cli._signals import stopped_by_signals
from ipcq._opening.address import suggestion
from ipcq.errors import Unsupported

Verb = TypeVar("Verb", bound=Callable[..., Any])

HEADINGS = ("workload", "contestant", "median", "lowest", "highest", "unit", "CPU µs", "ratio", "from", "to", "why not")

#: Value of ``--compare`` for no peer.
NO_PEER = "none"

#: The command that measures other libraries, with its place.
MEASURE_OTHERS = "`nox -s benchmarks` in a checkout of ipcq"


def measuring_options(verb: Verb) -> Verb:
    """Add the options for measuring and output, the arguments of `measure`."""
    for option in (
        quiet_option,
        click.option(
            "--plot", type=click.Path(dir_okay=False, writable=True), metavar="FILE.svg", help="Also draw a chart."
        ),
        click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown tables."),
        json_option("Print the result as one JSON object."),
        click.option(
            "--seconds",
            type=click.FloatRange(0.001, 60),
            metavar="SECONDS",
            default=0.4,
            show_default=True,
            help="Duration of one sample.",
        ),
        click.option(
            "--workload",
            "chosen",
            multiple=True,
            type=click.Choice(list(WORKLOADS)),
            metavar="WORKLOAD",
            help=f"Run only this workload. Repeatable. One of {', '.join(WORKLOADS)}.",
        ),
    ):
        verb = option(verb)
    return verb


def rounds_option(default: int) -> Callable[[Verb], Verb]:
    """Add ``--rounds``."""
    return click.option(
        "--rounds",
        type=click.IntRange(1),
        metavar="N",
        default=default,
        show_default=True,
        help="Samples per contestant and workload.",
    )


@click.command("bench")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="BACKEND",
    shell_complete=complete_backend,
    help="Measure this backend. Repeatable.  [default: where `auto` creates]",
)
@click.option(
    "--compare",
    "peers",
    metavar="PEER,...",
    default="multiprocessing.Queue",
    show_default=True,
    help=f"Compare with these of the standard library: {', '.join(REFERENCES)}; or {NO_PEER}.",
)
@rounds_option(3)
@measuring_options
def command(backends: tuple[str, ...], peers: str, **how: Any) -> None:
    """Measure ipcq's backends on this machine, side by side with Python's standard library.

    Unrelated processes move messages, one contestant after the other, in rounds. Figures are the median, lowest and
    highest of the rounds, and the ratio to the first PEER, paired by round. The first contestant takes part twice: the
    difference between its two ratios is noise. Every run checks that each message arrives once and in order. Exits
    with 1 if a contestant fails.

    To measure other libraries, run `nox -s benchmarks` in a checkout of ipcq.
    """
    contestants = [*map(ipcq_on, backends or ["auto"]), *requested_peers(peers)]
    judge(measure(contestants, **how))


def ipcq_on(backend: str) -> Contestant:
    """Return ipcq on a backend; `auto` is resolved.

    Raises:
        Unsupported: Queues of the backend are confined to one process.
    """
    with allow_short_lived(), ipcq.open(new_name(), backend, exclusive=True) as queue:
        queue.unlink()
        if queue.capabilities.scope < ipcq.Scope.HOST:
            raise Unsupported(
                "its queues live inside one process, but the benchmark needs several: choose another backend",
                backend=queue.backend,
            )
        return Ipcq(queue.backend)


def requested_peers(peers: str) -> list[Contestant]:
    """Return the requested peers.

    Raises:
        Failure: A peer is unknown.
    """
    names = [each for each in peers.replace(" ", "").split(",") if each and each != NO_PEER]
    for name in names:
        if name not in REFERENCES:
            hint = suggestion(name, REFERENCES)
            raise Failure(f"unknown peer {name!r}: {hint}; other libraries are measured by {MEASURE_OTHERS}", USAGE)
    return [REFERENCES[name]() for name in dict.fromkeys(names)]


def measure(
    contestants: Sequence[Contestant],
    *,
    rounds: int,
    seconds: float,
    chosen: Sequence[str],
    as_json: bool,
    as_markdown: bool,
    plot: str | None,
    quiet: bool,
) -> dict[str, Any]:
    """Measure, print progress and result, and return the report.

    Args:
        contestants: Ours first.
        rounds: Samples per contestant and workload.
        seconds: Duration of a sample.
        chosen: Names of workloads; empty for all.
        as_json: Print the report as JSON.
        as_markdown: Print the report as Markdown tables.
        plot: Path for a chart, or None.
        quiet: Print only the result.
    """
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown are mutually exclusive.")
    workloads = [each for each in WORKLOADS.values() if not chosen or each.name in chosen]
    shown = BenchProgress(len(workloads) * rounds * (len(contestants) + 1), rounds, silent=quiet)
    with stopped_by_signals(), shown.progress:
        report = compare(contestants, workloads, rounds=rounds, seconds=seconds, begin=shown.begin, end=shown.end)
    if plot is not None:
        Path(plot).write_text(svg(report), "utf-8")
    if as_json:
        print_json(report)
    elif as_markdown:
        for line in markdown(report):
            print_line(line)
    else:
        print_table(HEADINGS, list(rows(report)), folding={"workload", "why not"})
        if not quiet:
            complain(measured_on(report))
    return report


def judge(report: Mapping[str, Any]) -> None:
    """Check that no contestant failed.

    Raises:
        Failure: One did.
    """
    if failed := failures(report):
        raise Failure("; ".join(failed))


class BenchProgress:
    """Shows progress: a bar on a terminal, a line per workload elsewhere."""

    def __init__(self, samples: int, rounds: int, *, silent: bool) -> None:
        self.progress = Progress("", silent=silent)
        self._silent = silent
        self._samples = samples
        self._rounds = rounds
        self._begun = 0
        self._workload_began = monotonic()

    def begin(self, workload: Workload, number: int, contestant: Contestant) -> None:
        """Show the sample that begins."""
        text = f"{workload.title}: {contestant.name}, round {number + 1} of {self._rounds}"
        self.progress.show_text(self._begun / self._samples, text)
        self._begun += 1

    def end(self, entry: Mapping[str, Any]) -> None:
        """Print the result of a workload, unless there is a bar."""
        now = monotonic()
        elapsed, self._workload_began = now - self._workload_began, now
        if self._silent or self.progress.shown or sys.stderr is None:
            return
        first = entry["results"][0]
        ratio = "" if first["to_base"] is None else f", {times(first['to_base'])}"
        complain(f"{entry['title']}: {figure(first['median'])} {entry['unit']}{ratio}; took {elapsed:.0f} s")


def rows(report: Mapping[str, Any]) -> Any:
    """Yield the rows of the table."""
    for workload in report["workloads"]:
        for result in workload["results"]:
            ratio = result["to_base"] or dict.fromkeys(("median", "low", "high"))
            yield (
                workload["title"],
                result["contestant"],
                *(number(result[each]) for each in ("median", "low", "high")),
                workload["unit"],
                *(number(each) for each in (result["cpu"], ratio["median"], ratio["low"], ratio["high"])),
                result["declined"] or (result["failed"] and f"failed: {result['failed']}"),
            )


def number(value: float | None) -> str | None:
    """Return a figure with three significant digits."""
    return None if value is None else digits(value)
