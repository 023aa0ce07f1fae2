"""``ipcq get``: out of a queue onto stdout."""

from time import monotonic

import click

from ipcq._cli._options import backend_option, name_argument, option_of_open, seconds_option
from ipcq._cli._printer import Printer, printing_options
from ipcq._cli._taker import Taker


@click.command("get")
@name_argument
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="How many items to take, 1 by default.")
@click.option("--all", "drain", is_flag=True, help="Take items until the queue is empty.")
@click.option("--follow", is_flag=True, help="Take items as they come, until the queue is shut down.")
@seconds_option(
    "--wait",
    "How long to wait in all, for the queue to appear and for items. By default not at all; with --follow without end "
    "for items.",
)
@printing_options
@backend_option("Where to look for the queue.")
@option_of_open("other_users")
def command(
    name: str,
    count: int | None,
    drain: bool,
    follow: bool,
    wait: float | None,
    as_json: bool,
    null: bool,
    raw: bool,
    allow_pickle: bool,
    backend: str,
    other_users: bool,
) -> None:
    """Take items out of the queue NAME and print them, one on each line.

    Text is printed as it is, bytes as they are, and any other item as JSON. A message that cannot be decoded is
    reported on stderr with its bytes in base64; the others are still printed, and the exit code is 1.

    \b
    ipcq get /jobs
    ipcq get /jobs --json --wait 3
    ipcq get /jobs --follow --json | jq .id
    ipcq get /images --raw > picture.png
    """
    if (count is not None) + drain + follow > 1:
        raise click.UsageError("--count, --all and --follow exclude each other.")
    printer = Printer(as_json=as_json, null=null, raw=raw, allow_pickle=allow_pickle)
    # One deadline for everything: what the queue takes to appear is not left for the items.
    until = None if wait is None else monotonic() + wait
    with printer.open(name, backend, wait=wait, other_users=other_users) as queue:
        taker = Taker(queue, printer)
        if follow:
            taker.follow(until)
        elif drain:
            taker.drain(until)
        else:
            taker.count(count or 1, until)
