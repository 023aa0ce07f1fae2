"""``ipcq tail``: print the items of a queue as they become next.

Without taking messages, only the next item of a queue is visible. So tail polls it, and prints each item that becomes
the next one because consumers took those before it. If the queue counts gets, that count numbers the items: it
distinguishes equal items, and shows how many were missed between two polls.
"""

from time import monotonic
from typing import Any

import click

import ipcq
from ipcq._cli._exits import Failure, complain
from ipcq._cli._options import (
    backend_option,
    interval_option,
    name_argument,
    option_of_open,
    quiet_option,
    seconds_option,
)
from ipcq._cli._printer import Printer, printing_options, report_undecodable
from ipcq._cli._signals import sleep_in_slices
from ipcq._cli._taker import Taker
from ipcq.errors import DecodeError, QueueEmpty, QueueShutDown, Unsupported


@click.command("tail")
@name_argument
@click.option("--consume", is_flag=True, help="Take the items, so that no other consumer gets them.")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Stop after N items.")
@seconds_option(
    "--wait",
    "Stop after SECONDS in total, including the wait for the queue to appear.  [default: no limit, and no wait for the "
    "queue]",
)
@interval_option(0.1, "Poll interval without --consume.")
@printing_options
@backend_option("Look for the queue on this backend.")
@option_of_open("other_users")
@quiet_option
def command(
    name: str,
    consume: bool,
    count: int | None,
    wait: float | None,
    interval: float,
    as_json: bool,
    null: bool,
    raw: bool,
    allow_pickle: bool,
    backend: str,
    other_users: bool,
    quiet: bool,
) -> None:
    """Print the items of the queue NAME as they become next, without taking them.

    Only the next item of a queue is visible without taking it. So an item is printed when those before it have been
    taken, not when it is put; without consumers, nothing moves. If the queue counts gets, stderr shows how many items
    were missed between two polls.

    With --consume each item is taken, as with `ipcq get --follow`. This works on every backend, and no other consumer
    gets the printed items.

    \b
    ipcq tail /jobs --json | jq .id
    ipcq tail /jobs --consume
    """
    printer = Printer(as_json=as_json, null=null, raw=raw, allow_pickle=allow_pickle)
    until = None if wait is None else monotonic() + wait
    with printer.open(name, backend, wait=wait, other_users=other_users) as queue:
        if consume:
            Taker(queue, printer).follow(until, count)
            return
        try:
            Poller(queue, printer, quiet=quiet).follow(until, count, interval)
        except Unsupported as error:
            error.add_note("or pass --consume to take each printed item")
            raise


class Poller:
    """Polls the next item, and prints it when it changes."""

    def __init__(self, queue: ipcq.Queue[Any], printer: Printer, *, quiet: bool) -> None:
        self._queue = queue
        self._printer = printer
        self._quiet = quiet
        self._printed = 0
        self._undecodable = 0
        # The last item: the number of gets before it (None if the queue does not count gets), and its bytes.
        self._number: int | None = None
        self._bytes: bytes | None = None

    def follow(self, until: float | None, count: int | None, interval: float) -> None:
        """Poll until the deadline, the shutdown of the queue, or `count` items."""
        try:
            while True:
                self._poll()
                now = monotonic()
                if self._printed == count:
                    break
                if until is not None and now >= until:
                    if not self._printed:
                        raise QueueEmpty(queue=self._queue.name, backend=self._queue.backend)
                    break
                sleep_in_slices(interval if until is None else min(interval, until - now))
        except QueueShutDown:
            pass
        if self._undecodable:
            raise Failure  # each one has been reported

    def _poll(self) -> None:
        number = self._queue.stats().gets
        undecodable = None
        text: bytes | None = None
        try:
            text = self._printer.text(self._queue.peek())
        except DecodeError as error:
            undecodable, text = error, error.data
        except QueueEmpty:
            pass
        if number != self._queue.stats().gets:
            return  # a get happened before or after the peek; the next poll counts it
        self._count_missed(number, has_item=text is not None)
        if text is not None and (number, text) != (self._number, self._bytes):
            self._printed += 1
            if undecodable is None:
                self._printer.write(text)
            else:
                self._undecodable += 1
                report_undecodable(undecodable, "the message stays in the queue")
        self._number, self._bytes = number, text

    def _count_missed(self, number: int | None, *, has_item: bool) -> None:
        if number is None or self._number is None:
            return
        missed = number - self._number - (self._bytes is not None)
        if missed > 0 and not self._quiet:
            complain(f"missed {missed} item{'s' if missed > 1 else ''} between two polls")
