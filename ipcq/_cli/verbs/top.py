"""``ipcq top``: watch all queues."""

import sys
from contextlib import ExitStack
from datetime import datetime
from time import monotonic
from typing import Any

import click

import ipcq
from ipcq._cli._exits import complain
from ipcq._cli._facts import QueueAt, facts_about_all, facts_of
from ipcq._cli._keyboard import Keyboard
from ipcq._cli._options import backend_option, interval_option, json_option, option_of_open, place_argument
from ipcq._cli._output import print_json, print_table, rich_table, shown
from ipcq._cli._signals import stopped_by_signals

KEYS = (
    "name",
    "backend",
    "messages",
    "max_messages",
    "puts_per_second",
    "gets_per_second",
    "change_per_second",
    "waits_per_second",
    "leased",
    "delayed",
    "dead",
)
HEADINGS = (
    "name",
    "backend",
    "depth",
    "capacity",
    "put/s",
    "get/s",
    "change/s",
    "waits/s",
    "leased",
    "delayed",
    "dead",
)

#: Figures of `ipcq.Stats` that are shown as they are; None on a queue without leases.
STATES = ("leased", "delayed", "dead")

#: Counters of `ipcq.Stats` that only grow, and the keys of their rates.
COUNTERS = {"puts": "puts_per_second", "gets": "gets_per_second", "waits": "waits_per_second"}


@click.command("top")
@place_argument
@interval_option(1.0, "Poll interval.")
@click.option("--once", is_flag=True, help="Print the table once, after one interval.")
@json_option("Print one JSON object per queue and interval.")
@backend_option("Show only queues on this backend.")
@option_of_open("other_users")
def command(interval: float, once: bool, as_json: bool, backend: str, other_users: bool) -> None:
    """Show depth and rates of all queues of this machine, or of PLACE, until q or Ctrl-C.

    PLACE is the URL of a directory or a server, as in redis://host/0, for a backend that has places.

    Rates refer to the last interval. If a backend does not count puts and gets, put/s and get/s are '-', and change/s,
    the change of the depth, is the only rate. waits/s is how often a producer or consumer had to wait. leased, delayed
    and dead count the messages that are in the queue and not ready; '-' on a queue without leases. Takes no messages.

    Prints a live table on a terminal if rich is installed; otherwise one line per queue and interval.
    """
    sampler = Sampler(backend, other_users=other_users)
    screen = Screen() if sys.stdout.isatty() and not (once or as_json) else None
    with ExitStack() as stack:
        stack.enter_context(stopped_by_signals())
        try:
            keyboard = stack.enter_context(Keyboard())
            live = screen is not None and screen.open(stack)
            rows, notes = sampler.sample()
            printed: set[str] = set()
            while True:
                if screen is not None and live:
                    screen.show(rows, notes)
                else:
                    for note in notes:
                        if note not in printed:
                            printed.add(note)
                            complain(note)
                if keyboard.pressed(b"q", interval):
                    return
                rows, notes = sampler.sample()
                if not live:
                    _print(rows, as_json=as_json)
                if once:
                    return
        except KeyboardInterrupt:
            return  # the normal way to end top, so not exit code 130


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    now = _now()
    if as_json:
        for row in rows:
            print_json({"time": now.isoformat(timespec="milliseconds"), **row})
    elif rows:
        clock = now.strftime("%H:%M:%S")
        print_table(("time", *HEADINGS), [(clock, *_cells(row)) for row in rows], folding={"name"})


def _now() -> datetime:
    return datetime.now().astimezone()


def _cells(row: dict[str, Any]) -> list[object]:
    return [round(figure) if isinstance(figure, float) else figure for figure in (row[key] for key in KEYS)]


class Sampler:
    """Samples all queues, and computes rates since the last sample."""

    def __init__(self, backend: str, *, other_users: bool) -> None:
        self._backend = backend
        self._other_users = other_users
        self._before: dict[tuple[str, str], tuple[float, dict[str, int | None]]] = {}

    def sample(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return a row for each queue, and notes for those that cannot be listed or opened."""
        after: dict[tuple[str, str], tuple[float, dict[str, int | None]]] = {}

        def facts_with_rates(each: QueueAt) -> dict[str, Any]:
            with ipcq.open(each.name, each.backend, create=False, write=False, other_users=self._other_users) as queue:
                facts, stats = facts_of(queue), queue.stats()
            key = (each.name, each.backend)
            now = monotonic()
            figures = {"messages": facts["messages"], **{counter: getattr(stats, counter) for counter in COUNTERS}}
            after[key] = now, figures
            states = {state: getattr(stats, state) for state in STATES}
            return {**facts, **states, **_rates(figures, now, *self._before.get(key, (now, {})))}

        rows, notes = facts_about_all(self._backend, facts_with_rates)
        self._before = after
        return [{"error": None, **dict.fromkeys(KEYS), **row} for row in rows], notes


def _rates(
    figures: dict[str, int | None], now: float, then: float, before: dict[str, int | None]
) -> dict[str, float | None]:
    """Return rates per second; None if unknown, none at all if the queue was replaced by a new one."""

    def rate(figure: str) -> float | None:
        now_value, before_value = figures[figure], before.get(figure)
        return (
            None if now_value is None or before_value is None else round((now_value - before_value) / (now - then), 3)
        )

    rates = {key: rate(counter) for counter, key in COUNTERS.items()}
    if any(each is not None and each < 0 for each in rates.values()):
        return {}
    return {**rates, "change_per_second": rate("messages")}


class Screen:
    """A full-screen table, drawn by rich."""

    def __init__(self) -> None:
        self._live: Any = None

    def open(self, stack: ExitStack) -> bool:
        """Take over the terminal until the stack is closed. Return False if rich is not installed."""
        try:
            from rich.live import Live
        except ImportError:
            return False
        self._live = stack.enter_context(Live(screen=True, auto_refresh=False))
        return True

    def show(self, rows: list[dict[str, Any]], notes: list[str]) -> None:
        """Draw the table and the notes."""
        from rich.console import Group
        from rich.text import Text

        cells = [[shown(cell) for cell in _cells(row)] for row in rows]
        lines = [Text(f"{_now():%H:%M:%S}   {len(rows)} queues   q quits", style="dim"), Text()]
        table = rich_table(HEADINGS, cells, [len(heading) for heading in HEADINGS])
        self._live.update(Group(*lines, table, *(Text(shown(note), style="yellow") for note in notes)), refresh=True)
