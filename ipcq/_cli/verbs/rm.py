"""``ipcq rm``: remove queues."""

import click

import ipcq
from ipcq._cli._for_each import for_each_name
from ipcq._cli._options import backend_option, json_option, names_argument, quiet_option
from ipcq._cli._output import shown
from ipcq._cli._streams import stdin_is_terminal
from ipcq._redaction import without_credentials
from ipcq.errors import MessageQueueError, QueueNotFound


@click.command("rm")
@names_argument
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option("Print one JSON object per NAME.")
@backend_option("Look for the queues on this backend.")
@quiet_option
def command(names: tuple[str, ...], yes: bool, as_json: bool, backend: str, quiet: bool) -> None:
    """Remove queues with their messages.

    Programs that have a queue open get an error within a second. Asks before each removal; without a terminal, --yes
    is required. A failure does not stop the other removals.
    """
    if not yes and not stdin_is_terminal():
        raise click.UsageError("Not a terminal: pass --yes to remove without asking.")
    for_each_name(names, lambda name: _remove(name, backend, yes), "removed", "removed", as_json=as_json, quiet=quiet)


def _remove(name: str, backend: str, yes: bool) -> bool:
    if not yes:
        if not ipcq.exists(name, backend):
            raise QueueNotFound(queue=name)
        if not click.confirm(f"Remove queue {shown(without_credentials(name))}{_contents(name, backend)}?", err=True):
            return False
    ipcq.unlink(name, backend)
    return True


def _contents(name: str, backend: str) -> str:
    """Return a phrase about the messages that would be lost; empty if the queue cannot be opened."""
    try:
        with ipcq.open(name, backend, create=False, write=False) as queue:
            stats = queue.stats()
            size = queue.qsize() + sum(each or 0 for each in (stats.leased, stats.delayed, stats.dead))
    except MessageQueueError:
        return ""  # a user who may not open the queue may still remove it
    return f" on {queue.backend} with {size} message{'s' if size != 1 else ''}"
