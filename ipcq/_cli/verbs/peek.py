"""``ipcq peek``: print the next item without taking it."""

from time import monotonic, sleep
from typing import Any

import click

import ipcq
from ipcq._cli._exits import Failure
from ipcq._cli._options import backend_option, name_argument, option_of_open, seconds_option
from ipcq._cli._printer import Printer, printing_options, report_undecodable
from ipcq.errors import DecodeError, QueueEmpty

#: Time between two polls: a peek cannot block.
POLL_SECONDS = 0.02


@click.command("peek")
@name_argument
@seconds_option("--wait", "Wait up to SECONDS in total, for the queue to appear and for an item.  [default: no wait]")
@printing_options
@backend_option("Look for the queue on this backend.")
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
    """Print the next item of the queue NAME without taking it.

    If the backend does not support peek, the error names one that does.

    \b
    ipcq peek /jobs --json
    """
    printer = Printer(as_json=as_json, null=null, raw=raw, allow_pickle=allow_pickle)
    until = monotonic() + (wait or 0.0)
    with printer.open(name, backend, wait=wait, other_users=other_users) as queue:
        try:
            item = _poll(queue, until)
        except DecodeError as error:
            report_undecodable(error, "the message stays in the queue")
            raise Failure from error
        printer.write(printer.text(item))


def _poll(queue: ipcq.Queue[Any], until: float) -> Any:
    while True:
        try:
            return queue.peek()
        except QueueEmpty:
            if monotonic() >= until:
                raise
        sleep(POLL_SECONDS)
