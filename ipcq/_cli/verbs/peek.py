"""``ipcq peek``: the next item, left where it is."""

from time import monotonic, sleep
from typing import Any

import click

import ipcq
from ipcq._cli._exits import Failure
from ipcq._cli._options import backend_option, name_argument, option_of_open, seconds_option
from ipcq._cli._printer import Printer, complain_of, printing_options
from ipcq.errors import DecodeError, QueueEmpty

#: Seconds between two looks: nothing wakes who only looks.
BEAT = 0.02


@click.command("peek")
@name_argument
@seconds_option("--wait", "How long to wait in all, for the queue to appear and for an item. By default not at all.")
@printing_options
@backend_option("Where to look for the queue.")
@option_of_open("other_users")
def command(
    name: str,
    wait: float | None,
    as_json: bool,
    null: bool,
    raw: bool,
    allow_pickle: bool,
    backend: str,
    other_users: bool,
) -> None:
    """Print the item of the queue NAME that the next get would take, and leave it there.

    Where the backend cannot look at a message without taking it, the error names one that can.

    \b
    ipcq peek /jobs --json
    """
    printer = Printer(as_json=as_json, null=null, raw=raw, allow_pickle=allow_pickle)
    until = monotonic() + (wait or 0.0)
    with printer.open(name, backend, wait=wait, other_users=other_users) as queue:
        try:
            item = _look(queue, until)
        except DecodeError as error:
            complain_of(error, "it stays in the queue")
            raise Failure from error
        printer.write(printer.text(item))


def _look(queue: ipcq.Queue[Any], until: float) -> Any:
    while True:
        try:
            return queue.peek()
        except QueueEmpty:
            if monotonic() >= until:
                raise
        sleep(BEAT)
