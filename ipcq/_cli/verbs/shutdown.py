"""``ipcq shutdown``: end queues for everybody who has them open."""

import click

import ipcq
from ipcq._cli._each import do_each
from ipcq._cli._options import backend_option, json_option, names_argument, option_of_open, quiet_option


@click.command("shutdown")
@names_argument
@click.option("--immediate", is_flag=True, help="Drop what is in the queue.")
@json_option("Print one JSON object for each NAME, on a line of its own.")
@backend_option("Where to look for the queues.")
@option_of_open("other_users")
@quiet_option
def command(
    names: tuple[str, ...], immediate: bool, as_json: bool, backend: str, other_users: bool, quiet: bool
) -> None:
    """Shut queues down: nothing goes in any more, and consumers end once they have taken what is there.

    It is for good; the queue itself stays until `ipcq rm`. If one fails the others are still shut down.
    """

    def shut_down(name: str) -> bool:
        # Dropping what is there is taking it.
        with ipcq.open(name, backend, create=False, read=immediate, other_users=other_users) as queue:
            queue.shutdown(immediate)
        return True

    do_each(names, shut_down, "shut down", "shut_down", as_json=as_json, quiet=quiet)
