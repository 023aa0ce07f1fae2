"""``ipcq rm``: remove queues."""

import click

import ipcq
from ipcq._cli._each import do_each
from ipcq._cli._options import backend_option, json_option, names_argument, quiet_option
from ipcq._cli._output import shown
from ipcq._cli._streams import asks
from ipcq.errors import MessageQueueError, QueueNotFound


@click.command("rm")
@names_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option("Print one JSON object for each NAME, on a line of its own.")
@backend_option("Where to look for the queues.")
@quiet_option
def command(names: tuple[str, ...], yes: bool, as_json: bool, backend: str, quiet: bool) -> None:
    """Remove queues, and the messages that are in them.

    Programs that have a queue open are told within a second. Asks before each one unless --yes; without a terminal to
    ask on, --yes is needed. If one fails the others are still removed.
    """
    if not yes and not asks():
        raise click.UsageError("There is no terminal to ask on: say --yes to remove without asking.")
    do_each(names, lambda name: _remove(name, backend, yes), "removed", "removed", as_json=as_json, quiet=quiet)


def _remove(name: str, backend: str, yes: bool) -> bool:
    if not yes:
        if not ipcq.exists(name, backend):
            raise QueueNotFound(queue=name)
        if not click.confirm(f"Remove queue {shown(name)}{_contents(name, backend)}?", err=True):
            return False
    ipcq.unlink(name, backend)
    return True


def _contents(name: str, backend: str) -> str:
    """Say what would be lost, where that can be seen."""
    try:
        with ipcq.open(name, backend, create=False, write=False) as queue:
            size = queue.qsize()
    except MessageQueueError:
        return ""  # whoever may not look may still remove
    return f" on {queue.backend} with {size} message{'s' if size != 1 else ''}"
