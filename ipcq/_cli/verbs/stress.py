"""``ipcq stress``: kill processes that use a queue, and check its guarantees."""

import secrets
import sys
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

import ipcq
from ipcq._cli._creation import allow_short_lived, backend_options_option
from ipcq._cli._exits import Failure
from ipcq._cli._options import backend_option, json_option, option_of_open, quiet_option, seconds_option
from ipcq._cli._output import print_json, print_line
from ipcq._cli._progress import Progress
from ipcq._cli._signals import stopped_by_signals
from ipcq._opening import registry
from ipcq.errors import Unsupported

if TYPE_CHECKING:
    from ipcq.testing.storm import Report

#: Modes of `ipcq.testing.storm`, repeated here so that the help need not import it.
MODES = ("get", "batches", "stops", "forks", "names", "lease", "late", "delay")

#: Those that need a queue with leases.
LEASING = ("lease", "late", "delay")

#: Upper bound for what the serializer adds to a message.
OVERHEAD_BYTES = 12


@click.command("stress")
@backend_option("Create the queue on this backend.")
@click.option("--kills", type=click.IntRange(1), metavar="N", default=2000, show_default=True, help="Kill N processes.")
@seconds_option("--seconds", "Stop after SECONDS, even with fewer kills.", default=float("inf"))
@click.option(
    "--mode",
    "modes",
    type=click.Choice([*MODES, "all"]),
    multiple=True,
    default=("get",),
    show_default=True,
    help="Kind of stress. Repeatable: one run for each.",
)
@click.option(
    "--producers", type=click.IntRange(1), metavar="N", default=4, show_default=True, help="Number of producers."
)
@click.option(
    "--consumers", type=click.IntRange(1), metavar="N", default=4, show_default=True, help="Number of consumers."
)
@click.option(
    "--size",
    type=click.IntRange(64),
    metavar="BYTES",
    default=500,
    show_default=True,
    help="Size of the largest message.",
)
@option_of_open("max_messages", default=4, show_default=True)
@seconds_option("--patience", "Report a hang after SECONDS without progress.  [default: 10]", default=10.0)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Repeat the kill times of the run with this seed.")
@backend_options_option
@json_option("Print one JSON object per mode.")
@quiet_option
def command(
    backend: str,
    kills: int,
    seconds: float,
    modes: tuple[str, ...],
    producers: int,
    consumers: int,
    size: int,
    max_messages: int,
    patience: float,
    seed: int | None,
    options: dict[str, str],
    as_json: bool,
    quiet: bool,
) -> None:
    """Kill producers and consumers of a queue at random, and check its guarantees.

    Unrelated processes put numbered messages into a new queue and get them. Again and again, one process is killed by
    SIGKILL at a random instant and replaced. Each process logs its operations. At the end, the logs must be consistent
    with one queue: no message duplicated, torn, invented or out of order, and none lost but those that a killed
    consumer had taken. In the modes lease, late and delay the queue has leases, and none may be lost at all. Exits with
    1 otherwise, or after ten seconds without progress, with the stacks of all processes.
    The queue is always removed.

    \b
    ipcq stress --backend shm --kills 2000
    ipcq stress --mode all --kills 500 --json
    """
    if sys.platform == "win32":
        raise Unsupported("the stress test needs fork, which Windows lacks")
    # Imported here, because it needs modules that Windows lacks.
    from ipcq.testing.storm import stress

    seed = secrets.randbits(32) if seed is None else seed
    limits = {"max_messages": max_messages, "max_message_size": size + OVERHEAD_BYTES, **options}
    all_ok = True
    with stopped_by_signals():
        backend = _resolved(backend, {**limits, "leases": any(mode in LEASING for mode in modes)})
        able = MODES if _has_leases(backend) else [mode for mode in MODES if mode not in LEASING]
        if not (as_json or quiet):
            print_line(f"queue     on {backend}, {producers} producers, {consumers} consumers, --seed {seed}")
        for mode in dict.fromkeys(able if "all" in modes else modes):
            with Progress("kills", silent=as_json or quiet) as progress:
                show = _StressProgress(progress, kills, seconds)
                report = stress(
                    backend,
                    mode=mode,  # type: ignore[arg-type]  # checked by click
                    kills=kills,
                    seconds=seconds,
                    seed=seed,
                    producers=producers,
                    consumers=consumers,
                    size=size,
                    patience=patience,
                    show=show,
                    **limits,
                )
            if as_json:
                print_json({"backend": backend, **_facts(report)})
            else:
                _print_report(report)
            all_ok = all_ok and report.ok
    if not all_ok:
        raise Failure  # the verdict has been printed


class _StressProgress:
    """Shows the progress of a run: by kills or by time, whichever is further."""

    def __init__(self, progress: Progress, kills: int, seconds: float) -> None:
        self._progress = progress
        self._kills = kills
        self._seconds = seconds
        self._began = monotonic()

    def __call__(self, count: int) -> None:
        self._progress.count = count
        elapsed = (monotonic() - self._began) / self._seconds if self._seconds else 1.0
        self._progress.show(max(count / self._kills, elapsed))


def _resolved(backend: str, limits: Mapping[str, Any]) -> str:
    """Return the backend on which such a queue is created.

    Raises:
        Unsupported: Queues of the backend are confined to one process.
    """
    name = f"/ipcq-stress-{secrets.token_hex(8)}"
    with allow_short_lived(), ipcq.open(name, backend, exclusive=True, **limits) as queue:
        queue.unlink()
        if queue.capabilities.scope < ipcq.Scope.HOST:
            raise Unsupported(
                "its queues live inside one process, but the stress test needs several: choose another backend",
                backend=queue.backend,
            )
        return queue.backend


def _has_leases(backend: str) -> bool:
    return registry.backend(backend).capabilities.leases


def _sentence(report: "Report") -> str:
    if report.ok:
        return f"PASS: every guarantee held; fewer than {report.bound:.2%} of kills cause a failure (95 % confidence)"
    return f"FAIL: {'; '.join(report.faults)}"


def _facts(report: "Report") -> dict[str, Any]:
    verdict = report.verdict
    return {
        "ok": report.ok,
        "verdict": _sentence(report),
        "mode": report.mode,
        "seed": report.seed,
        "seconds": round(report.seconds, 3),
        "kills": report.kills,
        "stops": report.stops,
        "inside": report.inside,
        "recoveries": report.recoveries,
        "accepted": verdict.accepted,
        "unknown": verdict.unknown,
        "received": verdict.received,
        "lost": len(verdict.lost),
        "losable": report.losable,
        "redelivered": verdict.redelivered,
        "unrecorded": verdict.unrecorded,
        **verdict.wrong,
        "put_off": verdict.put_off,
        "stall": round(verdict.stall, 6),
        "slowest_open": round(report.slowest_open, 6),
        "bound": report.bound,
        "stacks": report.stacks,
    }


def _print_report(report: "Report") -> None:
    facts = _facts(report)
    inside = f", {report.inside:,} seen inside a critical section"
    stops = f", {report.stops:,} stops" if report.stops else ""
    print_line(f"{report.mode:<9} {report.kills:,} kills in {report.seconds:.1f} s{inside}{stops}")
    if report.mode == "names":
        print_line(f"opening   {report.slowest_open * 1000:.1f} ms at most, during the kills")
    else:
        print_line(
            f"messages  {facts['accepted']:,} accepted, {facts['received']:,} received, {facts['unknown']:,} unknown"
        )
        print_line(f"wrong     {', '.join(f'{count} {what}' for what, count in report.verdict.wrong.items())}")
        print_line(f"lost      {facts['lost']:,}, of at most {facts['losable']:,} that killed consumers may have taken")
        if report.mode in LEASING:
            print_line(f"leases    {facts['redelivered']:,} redelivered, {facts['unrecorded']:,} to killed consumers")
        print_line(f"stall     {report.verdict.stall * 1000:.1f} ms at most without progress")
    print_line(f"verdict   {facts['verdict']}")
    if report.stacks:
        print_line(report.stacks)
