"""``ipcq tail``: the items of a queue as they come.

Without taking, all that can be seen of a queue is its next item. So this looks at it again and again, and prints each
item that becomes the next one because somebody took those before it. Where the queue counts what was taken, the count
is the item's number: it tells equal items apart, and how many went by between two looks.
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
from ipcq._cli._printer import Printer, complain_of, printing_options
from ipcq._cli._signals import rest
from ipcq._cli._taker import Taker
from ipcq.errors import DecodeError, QueueEmpty, QueueShutDown, Unsupported


@click.command("tail")
@name_argument
@click.option("--consume", is_flag=True, help="Take the items: nobody else gets them.")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="End after so many items.")
@seconds_option(
    "--wait",
    "How long to follow in all, waiting for the queue to appear included. By default without end, but not for the "
    "queue.",
)
@interval_option(0.1, "How often to look, without --consume.")
@printing_options
@backend_option("Where to look for the queue.")
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
    """Print the items of the queue NAME as they come, and leave them to those who take them.

    Only the next item of a queue can be seen without taking it. So an item is printed when those before it have been
    taken, not when it is put; while nobody takes, nothing moves. What was taken between two looks is counted on stderr
    where the queue keeps count.

    With --consume each item is taken, as `ipcq get --follow` does: it works on every backend, and nobody else gets what
    is printed.

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
            Watch(queue, printer, quiet=quiet).follow(until, count, interval)
        except Unsupported as error:
            error.add_note("or let --consume take each item that is printed")
            raise


class Watch:
    """Looks at the next item again and again, and prints it when it is another one."""

    def __init__(self, queue: ipcq.Queue[Any], printer: Printer, *, quiet: bool) -> None:
        self._queue = queue
        self._printer = printer
        self._quiet = quiet
        self._printed = 0
        self._undecodable = 0
        # Of the last one: how many were taken before it, None where the queue does not count, and its bytes.
        self._number: int | None = None
        self._bytes: bytes | None = None

    def follow(self, until: float | None, wanted: int | None, interval: float) -> None:
        """Look until the time or the queue ends or there were as many as wanted."""
        try:
            while True:
                self._look()
                now = monotonic()
                if self._printed == wanted:
                    break
                if until is not None and now >= until:
                    if not self._printed:
                        raise QueueEmpty(queue=self._queue.name, backend=self._queue.backend)
                    break
                rest(interval if until is None else min(interval, until - now))
        except QueueShutDown:
            pass
        if self._undecodable:
            raise Failure  # each of them has its line already

    def _look(self) -> None:
        number = self._queue.stats().gets
        undecodable = None
        seen: bytes | None = None
        try:
            seen = self._printer.text(self._queue.peek())
        except DecodeError as error:
            undecodable, seen = error, error.data
        except QueueEmpty:
            pass
        if number != self._queue.stats().gets:
            return  # it may be before or after this one that was taken; the next look counts it
        self._count_missed(number, there=seen is not None)
        if seen is not None and (number, seen) != (self._number, self._bytes):
            self._printed += 1
            if undecodable is None:
                self._printer.write(seen)
            else:
                self._undecodable += 1
                complain_of(undecodable, "it stays in the queue")
        self._number, self._bytes = number, seen

    def _count_missed(self, number: int | None, *, there: bool) -> None:
        if number is None or self._number is None:
            return
        missed = number - self._number - (self._bytes is not None)
        if missed > 0 and not self._quiet:
            complain(f"{missed} {'items were' if missed > 1 else 'item was'} taken between two looks")
