"""``ipcq create``: create a queue."""

from collections.abc import Mapping
from typing import Any

import click

import ipcq
from ipcq._cli._creation import (
    backend_choice_notes,
    backend_options_option,
    check_persistent,
    limit_options,
    require_persistence,
)
from ipcq._cli._exits import complain
from ipcq._cli._facts import facts_of, unlisted
from ipcq._cli._options import (
    backend_option,
    json_option,
    name_argument,
    option_of_open,
    quiet_option,
    timeout_of,
)
from ipcq._cli._output import print_json, print_line, shown
from ipcq._opening.options import DEFAULTS
from ipcq.errors import QueueExists


@click.command("create")
@name_argument
@click.option("--exist-ok", is_flag=True, help="Accept an existing queue if its limits match the options.")
@limit_options
@option_of_open("buffer_size")
@option_of_open("priorities")
@option_of_open("leases")
@option_of_open("max_deliveries")
@option_of_open("mode", default=f"{DEFAULTS['mode']:04o}", show_default=True)
@option_of_open("require", help="Require a capability, as in persistence:kernel. Repeatable.")
@backend_option("Create the queue on this backend.")
@backend_options_option
@option_of_open("open_timeout", default=DEFAULTS["open_timeout"], show_default=True)
@option_of_open("other_users")
@json_option("Print the queue as one JSON object.")
@quiet_option
def command(
    name: str,
    exist_ok: bool,
    max_messages: int | None,
    max_message_size: int | None,
    buffer_size: int | None,
    priorities: bool,
    leases: bool,
    max_deliveries: int | None,
    mode: int,
    require: tuple[str, ...],
    backend: str,
    options: Mapping[str, Any],
    open_timeout: float,
    other_users: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Create the queue NAME; fail if it exists.

    The backend chooses limits that are not given. A queue that would vanish with this command, because its backend
    keeps queues only while a process has them open, is refused. If the options rule out the best backend, stderr shows
    the chosen one, its limits and the reason. A --mode that grants access to other users has this effect, unless
    --other-users declares that they all trust each other.

    \b
    ipcq create /jobs --max-messages 8 --max-message-size 1024
    ipcq create /jobs --exist-ok --require priorities --require persistence:kernel
    ipcq create /jobs --mode 0660 --other-users
    """
    try:
        with (
            require_persistence(),
            backend_choice_notes() as notes,
            ipcq.open(
                name,
                backend,
                exclusive=not exist_ok,
                max_messages=max_messages,
                max_message_size=max_message_size,
                buffer_size=buffer_size,
                priorities=priorities,
                leases=leases,
                max_deliveries=max_deliveries,
                mode=mode,
                require=require,
                other_users=other_users,
                open_timeout=timeout_of(open_timeout),
                **options,
            ) as queue,
        ):
            check_persistent(queue)
            facts = facts_of(queue)
            if notes:  # otherwise the backend was named or is the best
                notes += unlisted(queue)
    except QueueExists as error:
        error.detail = "the queue already exists: --exist-ok accepts it, `ipcq rm` removes it"
        raise
    for note in () if quiet else notes:
        complain(note)
    if as_json:
        print_json(facts)
    elif not quiet:
        capacity = "" if queue.max_messages is None else f"{queue.max_messages:,} messages of "
        print_line(f"{shown(queue.name)} on {queue.backend}: {capacity}at most {queue.max_message_size:,} bytes")
