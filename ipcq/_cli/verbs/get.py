"""``ipcq get``: take items out of a queue and print them."""

from time import monotonic

import click

from ipcq._cli._options import backend_option, name_argument, option_of_open, seconds_option
from ipcq._cli._printer import Printer, printing_options
from ipcq._cli._taker import Taker


@click.command("get")
@name_argument
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Take N items.  [default: 1]")
@click.option("--all", "drain", is_flag=True, help="Take items until the queue is empty.")
@click.option("--follow", is_flag=True, help="Take items as they arrive, until the queue is shut down.")
@click.option("--latest", is_flag=True, help="Take the newest item, and drop the older ones of its priority.")
@seconds_option(
    "--wait",
    "Wait up to SECONDS in total, for the queue to appear and for items.  [default: no wait; with --follow, no limit "
    "for items]",
)
@printing_options
@backend_option("Look for the queue on this backend.")
@option_of_open("other_users")
def command(
    name: str,
    count: int | None,
    drain: bool,
    follow: bool,
    latest: bool,
    wait: float | None,
    as_json: bool,
    null: bool,
    raw: bool,
    allow_pickle: bool,
    backend: str,
    other_users: bool,
) -> None:
    """Take items out of the queue NAME and print them, one per line.

    Prints text and bytes unchanged, and any other item as JSON. A message that cannot be decoded is reported on stderr
    with its bytes in base64; the other items are still printed, and the exit code is 1.

    \b
    ipcq get /jobs
    ipcq get /jobs --json --wait 3
    ipcq get /jobs --follow --json | jq .id
    ipcq get /images --raw > picture.png
    """
    if (count is not None) + drain + follow > 1:
        raise click.UsageError("--count, --all and --follow are mutually exclusive.")
    if latest and (count is not None or drain):
        raise click.UsageError("--latest takes one item, or with --follow one at a time: leave out --count and --all.")
    printer = Printer(as_json=as_json, null=null, raw=raw, allow_pickle=allow_pickle)
    # One deadline for both waits: for the queue to appear, and for items.
    until = None if wait is None else monotonic() + wait
    with printer.open(name, backend, wait=wait, other_users=other_users) as queue:
        taker = Taker(queue, printer, latest=latest)
        if follow:
            taker.follow(until)
        elif drain:
            taker.drain(until)
        else:
            taker.take(count or 1, until)
