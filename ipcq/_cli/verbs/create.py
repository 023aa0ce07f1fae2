"""``ipcq create``: a new queue."""

from collections.abc import Mapping
from typing import Any

import click

import ipcq
from ipcq._cli._creation import backend_options_option, check_that_it_lasts, lasting, limit_options, noted_choice
from ipcq._cli._exits import complain
from ipcq._cli._look import facts_of, unlisted
from ipcq._cli._options import (
    backend_option,
    json_option,
    name_argument,
    option_of_open,
    quiet_option,
    timeout_of,
)
from ipcq._cli._output import say, say_json, shown
from ipcq._opening.options import DEFAULTS
from ipcq.errors import QueueExists


@click.command("create")
@name_argument
@click.option("--exist-ok", is_flag=True, help="Take a queue that exists as it is, if it has the limits asked for.")
@limit_options
@option_of_open("buffer_size")
@option_of_open("priorities")
@option_of_open("mode", default=f"{DEFAULTS['mode']:04o}", show_default=True)
@option_of_open("require", help="What the queue must be able to do, as in persistence:kernel; may be repeated.")
@backend_option("Where to create the queue.")
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
    mode: int,
    require: tuple[str, ...],
    backend: str,
    options: Mapping[str, Any],
    open_timeout: float,
    other_users: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Create the queue NAME, or fail if there is one.

    Limits that you do not give are the backend's choice. A queue that would vanish with this command, because its
    backend keeps queues only as long as somebody has them open, is refused. If your options rule out the best backend,
    a line on stderr says which one was chosen, why, and with what limits. A --mode that grants access to other users
    does that, unless --other-users says that they all trust each other.

    \b
    ipcq create /jobs --max-messages 8 --max-message-size 1024
    ipcq create /jobs --exist-ok --require priorities --require persistence:kernel
    ipcq create /jobs --mode 0660 --other-users
    """
    try:
        with (
            lasting(),
            noted_choice() as notes,
            ipcq.open(
                name,
                backend,
                exclusive=not exist_ok,
                max_messages=max_messages,
                max_message_size=max_message_size,
                buffer_size=buffer_size,
                priorities=priorities,
                mode=mode,
                require=require,
                other_users=other_users,
                open_timeout=timeout_of(open_timeout),
                **options,
            ) as queue,
        ):
            check_that_it_lasts(queue)
            facts = facts_of(queue)
            if notes:  # else the backend was named, or is the best
                notes += unlisted(queue)
    except QueueExists as error:
        error.detail = "the queue already exists: --exist-ok takes it as it is, `ipcq rm` removes it"
        raise
    for note in () if quiet else notes:
        complain(note)
    if as_json:
        say_json(facts)
    elif not quiet:
        capacity = "" if queue.max_messages is None else f"{queue.max_messages:,} messages of "
        say(f"{shown(queue.name)} on {queue.backend}: {capacity}at most {queue.max_message_size:,} bytes")
