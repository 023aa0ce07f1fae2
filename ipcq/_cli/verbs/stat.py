"""``ipcq stat``: show everything about one queue."""

from dataclasses import asdict
from typing import Any

import click

import ipcq
from ipcq._cli._exits import complain
from ipcq._cli._facts import notes_on
from ipcq._cli._options import backend_option, json_option, name_argument, option_of_open
from ipcq._cli._output import capabilities_of, flat, print_json, print_table


@click.command("stat")
@name_argument
@json_option("Print one JSON object.")
@backend_option("Look for the queue on this backend.")
@option_of_open("other_users")
def command(name: str, as_json: bool, backend: str, other_users: bool) -> None:
    """Show attributes, statistics and capabilities of the queue NAME.

    Takes no messages. '-' is a figure that the backend does not know. Notes on stderr report why the queue is not on
    the best backend, as far as its attributes show, and whether `ipcq ls` cannot list it.
    """
    with ipcq.open(name, backend, create=False, write=False, other_users=other_users) as queue:
        facts: dict[str, Any] = {
            "name": queue.name,
            "backend": queue.backend,
            "attributes": {
                "mode": f"{queue.mode:04o}",
                "max_messages": queue.max_messages,
                "max_message_size": queue.max_message_size,
                "buffer_size": queue.buffer_size,
                "priorities": queue.priorities,
                "leases": queue.capabilities.leases,
                "max_deliveries": queue.max_deliveries,
                "lifetime": queue.lifetime,
                "options": queue.options,
            },
            "stats": asdict(queue.stats()),
            "capabilities": capabilities_of(queue.capabilities),
        }
        notes = list(notes_on(queue))
    for note in notes:
        complain(note)
    if as_json:
        print_json(facts)
        return
    print_table(("what", "value"), flat(facts), folding={"value"})
