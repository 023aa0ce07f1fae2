"""``ipcq ls``: the queues that exist."""

import click

import ipcq
from ipcq._cli._exits import complain, line_of
from ipcq._cli._look import look
from ipcq._cli._options import backend_option, json_option, other_users_option, quiet_option
from ipcq._cli._output import say_json, say_table
from ipcq.errors import BackendUnknown, MessageQueueError, QueueNotFound

KEYS = ("name", "backend", "messages", "max_messages", "max_message_size", "mode")
HEADINGS = ("name", "backend", "messages", "capacity", "size limit", "mode")


@click.command("ls")
@json_option("Print one JSON object for each queue, on a line of its own.")
@backend_option("List the queues of this backend alone.")
@other_users_option
@quiet_option
def command(as_json: bool, backend: str, other_users: bool, quiet: bool) -> None:
    """List the queues of this machine.

    Shows name, backend, messages in the queue, capacity in messages ('-' where bytes alone bound it), largest message
    in bytes, and mode: a table on a terminal, tab-separated lines without headings in a pipe. What cannot be listed or
    opened is noted on stderr.
    """
    if backend != "auto" and backend not in {each.name for each in ipcq.backends()}:
        raise BackendUnknown("`ipcq backends` lists those that are installed", backend=backend)
    queues = ipcq.queues()
    rows = []
    notes = [f"backend {each!r}: {why}" for each, why in queues.unlisted.items() if backend in ("auto", each)]
    for each in queues:
        if backend not in ("auto", each.backend):
            continue
        try:
            row = look(each.name, each.backend, other_users=other_users)
        except QueueNotFound:
            continue  # it went in the meantime
        except MessageQueueError as error:
            row = {**dict.fromkeys(KEYS), "name": each.name, "backend": each.backend, "error": line_of(error)}
            notes.append(line_of(error))
        rows.append(row)
    if as_json:
        for row in rows:
            say_json({"error": None, **row})
    elif rows:
        say_table(HEADINGS, [[row[key] for key in KEYS] for row in rows], folding={"name"})
    if not quiet:
        for note in notes:
            complain(note)
