"""``ipcq shutdown``: shut queues down for all processes."""

import click

import ipcq
from ipcq._cli._for_each import for_each_name
from ipcq._cli._options import backend_option, json_option, names_argument, option_of_open, quiet_option


@click.command("shutdown")
@names_argument
@click.option("--immediate", is_flag=True, help="Drop the messages in the queue.")
@json_option("Print one JSON object per NAME.")
@backend_option("Look for the queues on this backend.")
@option_of_open("other_users")
@quiet_option
def command(
    names: tuple[str, ...], immediate: bool, as_json: bool, backend: str, other_users: bool, quiet: bool
) -> None:
    """Shut queues down: puts fail, and consumers end once the queue is empty.

    A shutdown is permanent. The queue stays until `ipcq rm`. A failure does not stop the other shutdowns.
    """

    def shut_down(name: str) -> bool:
        # Dropping messages requires read access.
        with ipcq.open(name, backend, create=False, read=immediate, other_users=other_users) as queue:
            queue.shutdown(immediate)
        return True

    for_each_name(names, shut_down, "shut down", "shut_down", as_json=as_json, quiet=quiet)
