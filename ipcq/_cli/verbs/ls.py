"""``ipcq ls``: list queues."""

import click

from ipcq._cli._exits import complain
from ipcq._cli._facts import facts_about, facts_about_all
from ipcq._cli._options import backend_option, json_option, option_of_open, place_argument, quiet_option
from ipcq._cli._output import print_json, print_table

KEYS = ("name", "backend", "messages", "max_messages", "max_message_size", "mode")
HEADINGS = ("name", "backend", "messages", "capacity", "size limit", "mode")


@click.command("ls")
@place_argument
@json_option("Print one JSON object per queue.")
@backend_option("List only queues on this backend.")
@option_of_open("other_users")
@quiet_option
def command(as_json: bool, backend: str, other_users: bool, quiet: bool) -> None:
    """List the queues of this machine, or those of PLACE.

    PLACE is the URL of a directory or a server, as in redis://host/0, for a backend that has places.

    Shows name, backend, messages in the queue, capacity in messages ('-' if limited by bytes only), size limit of a
    message in bytes, and mode: a table on a terminal, tab-separated lines without headings in a pipe. Notes on stderr
    report what cannot be listed or opened.
    """
    rows, notes = facts_about_all(backend, lambda each: facts_about(each.name, each.backend, other_users=other_users))
    rows = [{"error": None, **dict.fromkeys(KEYS), **row} for row in rows]
    if as_json:
        for row in rows:
            print_json(row)
    elif rows:
        print_table(HEADINGS, [[row[key] for key in KEYS] for row in rows], folding={"name"})
    if not quiet:
        for note in notes:
            complain(note)
