"""``ipcq stress``: a storm of kills over a queue, and a verdict."""

import secrets
import sys
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

import ipcq
from ipcq._cli._creation import backend_options_option, short_lived
from ipcq._cli._exits import Failure
from ipcq._cli._options import backend_option, json_option, option_of_open, quiet_option, seconds_option
from ipcq._cli._output import say, say_json
from ipcq._cli._progress import Progress
from ipcq._cli._signals import stopped_by_signals
from ipcq.errors import Unsupported

if TYPE_CHECKING:
    from ipcq.testing.storm import Report

#: Modes of a storm, as `ipcq.testing.storm` has them; named here so that help needs no more than this file.
MODES = ("get", "batches", "stops", "forks", "names")

#: What the serializer adds to a message, in bytes, is less.
OVERHEAD = 12


@click.command("stress")
@backend_option("Where to create the queue.")
@click.option(
    "--kills", type=click.IntRange(1), metavar="N", default=2000, show_default=True, help="Processes to kill."
)
@seconds_option("--seconds", "End after so long, with fewer kills if need be.", default=float("inf"))
@click.option(
    "--mode",
    "modes",
    type=click.Choice([*MODES, "all"]),
    multiple=True,
    default=("get",),
    show_default=True,
    help="What the storm is like; may be repeated, and is then one storm for each.",
)
@click.option(
    "--producers", type=click.IntRange(1), metavar="N", default=4, show_default=True, help="Processes that put."
)
@click.option(
    "--consumers", type=click.IntRange(1), metavar="N", default=4, show_default=True, help="Processes that get."
)
@click.option(
    "--size",
    type=click.IntRange(64),
    metavar="BYTES",
    default=500,
    show_default=True,
    help="The largest message, in bytes.",
)
@option_of_open("max_messages", default=4, show_default=True)
@seconds_option("--patience", "How long nobody may get on before that is a hang.  [default: 10]", default=10.0)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Strike as the run did that printed this seed.")
@backend_options_option
@json_option("Print the result as one JSON object for each mode.")
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
    """Kill producers and consumers of a queue at random, and check that nothing but what the dead had in hand is lost.

    Unrelated processes put numbered messages into a new queue and take them out. Again and again one of them is killed
    by SIGKILL at a random instant and replaced by another. Each writes down what it does, and at the end that has to
    be what one queue can have done: nothing twice, torn, invented or out of order, and lost at most what each killed
    consumer had taken. Exits with 1 if it is not so, or if nobody gets on for ten seconds, and then shows where every
    process stood. The queue is removed in any case.

    \b
    ipcq stress --backend shm --kills 2000
    ipcq stress --mode all --kills 500 --json
    """
    if sys.platform == "win32":
        raise Unsupported("a storm needs processes that can be forked, which Windows has not")
    # Here, because Windows has not what it needs either.
    from ipcq.testing.storm import stress

    seed = secrets.randbits(32) if seed is None else seed
    limits = {"max_messages": max_messages, "max_message_size": size + OVERHEAD, **options}
    sound = True
    with stopped_by_signals():
        backend = _chosen(backend, limits)
        if not (as_json or quiet):
            say(f"queue     on {backend}, {producers} producers, {consumers} consumers, --seed {seed}")
        for mode in dict.fromkeys(MODES if "all" in modes else modes):
            with Progress("kills", silent=as_json or quiet) as progress:
                shown = _Shown(progress, kills, seconds)
                report = stress(
                    backend,
                    mode=mode,  # type: ignore[arg-type]  # click has checked it
                    kills=kills,
                    seconds=seconds,
                    seed=seed,
                    producers=producers,
                    consumers=consumers,
                    size=size,
                    patience=patience,
                    show=shown,
                    **limits,
                )
            if as_json:
                say_json({"backend": backend, **_facts(report)})
            else:
                _tell(report)
            sound = sound and report.ok
    if not sound:
        raise Failure  # the verdict has said it


class _Shown:
    """Shows how far a storm is: by its kills, or by its time where that is over first."""

    def __init__(self, progress: Progress, kills: int, seconds: float) -> None:
        self._progress = progress
        self._kills = kills
        self._seconds = seconds
        self._began = monotonic()

    def __call__(self, count: int) -> None:
        self._progress.count = count
        passed = (monotonic() - self._began) / self._seconds if self._seconds else 1.0
        self._progress.show(max(count / self._kills, passed))


def _chosen(backend: str, limits: Mapping[str, Any]) -> str:
    """Return the backend on which such a queue is created.

    Raises:
        Unsupported: Processes cannot meet there.
    """
    name = f"/ipcq-stress-{secrets.token_hex(8)}"
    with short_lived(), ipcq.open(name, backend, exclusive=True, **limits) as queue:
        queue.unlink()
        if queue.capabilities.scope < ipcq.Scope.HOST:
            raise Unsupported(
                "its queues live inside one process, and a storm needs several: choose another backend",
                backend=queue.backend,
            )
        return queue.backend


def _sentence(report: "Report") -> str:
    if report.ok:
        return f"ok: nothing was promised and not kept; failures in less than {report.bound:.2%} of kills (95 %)"
    return f"FAILED: {'; '.join(report.faults)}"


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
        **verdict.wrong,
        "put_off": verdict.put_off,
        "stall": round(verdict.stall, 6),
        "slowest_open": round(report.slowest_open, 6),
        "bound": report.bound,
        "stacks": report.stacks,
    }


def _tell(report: "Report") -> None:
    facts = _facts(report)
    inside = f", {report.inside:,} seen inside a critical section"
    stops = f", {report.stops:,} stops" if report.stops else ""
    say(f"{report.mode:<9} {report.kills:,} kills in {report.seconds:.1f} s{inside}{stops}")
    if report.mode == "names":
        say(f"opening   {report.slowest_open * 1000:.1f} ms at most, beside the kills")
    else:
        say(f"messages  {facts['accepted']:,} accepted, {facts['received']:,} received, {facts['unknown']:,} unknown")
        say(f"wrong     {', '.join(f'{count} {what}' for what, count in report.verdict.wrong.items())}")
        say(f"lost      {facts['lost']:,}, where killed consumers may have had {facts['losable']:,}")
        say(f"stall     {report.verdict.stall * 1000:.1f} ms at most in which nobody got on")
    say(f"verdict   {facts['verdict']}")
    if report.stacks:
        say(report.stacks)
