"""``ipcq work``: run a command for each message of a queue."""

import shutil
import sys

import click

import ipcq
from ipcq._abilities.dead_letters import dead_command
from ipcq._cli import _items
from ipcq._cli._children import Children
from ipcq._cli._exits import Failure, complain
from ipcq._cli._options import (
    backend_option,
    json_option,
    name_argument,
    option_of_open,
    quiet_option,
    seconds_option,
)
from ipcq._cli._placeholders import has_placeholder
from ipcq._cli._progress import Progress
from ipcq._cli._signals import raise_for_signal, record_signals
from ipcq._cli._work_report import Report
from ipcq._cli._worker import Plan, Worker
from ipcq.errors import Unsupported

#: Retries on a queue that has no `max_deliveries`.
DEFAULT_RETRIES = 5

#: What a command gets on standard input: the bytes for an item.
INPUTS = {
    "text": lambda item: _items.as_text(item) + b"\n",
    "json": lambda item: _items.as_json(item) + b"\n",
    "raw": bytes,
}

#: The standard output of commands if ours has events: stderr.
STDERR = 2


@click.command("work")
@name_argument
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENT]...")
@click.option("--jobs", type=click.IntRange(1), metavar="N", default=1, show_default=True, help="Commands at a time.")
@click.option(
    "--hold",
    type=click.FloatRange(1),
    metavar="SECONDS",
    help="Give a message to another worker if this process stops for SECONDS.  [default: only if it ends]",
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    metavar="N",
    help="Run a command that fails N more times.  [default: as the queue's --max-deliveries allows, or 5]",
)
@seconds_option("--delay", "Wait SECONDS before the first retry, and each time twice as long.  [default: 1]", 1.0)
@click.option("--all", "until_done", is_flag=True, help="End when all messages are done.")
@click.option(
    "--input",
    "input_format",
    type=click.Choice(list(INPUTS)),
    default="text",
    show_default=True,
    help="Write items to standard input as `ipcq get` prints them, as JSON, or as raw bytes.",
)
@seconds_option("--wait", "Wait up to SECONDS for the queue to appear.  [default: no wait]")
@option_of_open("allow_pickle", help="Decode pickles. A pickle can run any code: trust all producers.")
@json_option("Print one JSON object per event; the output of the commands goes to stderr.")
@backend_option("Look for the queue on this backend.")
@option_of_open("other_users")
@quiet_option
def command(
    name: str,
    words: tuple[str, ...],
    jobs: int,
    hold: float | None,
    retries: int | None,
    delay: float,
    until_done: bool,
    input_format: str,
    wait: float | None,
    allow_pickle: bool,
    as_json: bool,
    backend: str,
    other_users: bool,
    quiet: bool,
) -> None:
    """Run COMMAND for each message of the queue NAME, which was created with --leases.

    The message is the standard input of the command. In its arguments, {} is the message, and {user.id} a part of it.
    Exit code 0 acknowledges the message. Otherwise it is given back, and the command is run again after a growing
    delay; after the last retry the message is a dead letter (`ipcq dead`). Ends when the queue is shut down and empty.

    The first Ctrl-C or SIGTERM lets running commands end, the second kills them and gives their messages back. If this
    process is killed, its commands are killed too, and other workers get their messages at once.

    \b
    ipcq work /jobs -- ./resize.sh
    ipcq work /mails --jobs 4 --retries 10 -- sendmail {to}
    """
    if sys.platform == "win32":
        raise Unsupported("this verb needs fork, which Windows lacks")
    if input_format == "raw" and allow_pickle:
        raise click.UsageError("--input raw and --allow-pickle are mutually exclusive: raw bytes are not decoded.")
    if not has_placeholder(words[0]) and shutil.which(words[0]) is None:
        raise click.UsageError(f"There is no command {words[0]!r}.")
    with (
        Children() as children,
        _items.deep_items(),
        ipcq.open(
            name,
            backend,
            create=False,
            wait=wait,
            write=False,
            serializer="raw" if input_format == "raw" else "msgpack",
            allow_pickle=allow_pickle,
            other_users=other_users,
        ) as queue,
        record_signals() as stop,  # not before, because a signal has to end the wait for the queue
        Progress("", silent=quiet or as_json) as progress,
    ):
        plan = Plan(
            words=words,
            text_of=INPUTS[input_format],
            jobs=jobs,
            hold=hold,
            max_failures=_max_failures(retries, queue.max_deliveries),
            delay=delay,
            until_done=until_done,
            output=STDERR if as_json else None,
        )
        report = Report(dead_command(queue.name, queue.backend), progress, as_json=as_json, quiet=quiet)
        Worker(queue, children, stop, plan, report).run()
        progress.close()
        if not quiet:
            complain(report.summary)
    if stop.number:
        raise_for_signal(stop.number)
    if report.has_errors:
        raise Failure  # each one has been reported


def _max_failures(retries: int | None, max_deliveries: int | None) -> int:
    """Return the failures after which a message is a dead letter: the least that the user or the queue allows."""
    bounds = [] if retries is None else [retries + 1]
    bounds += [] if max_deliveries is None else [max_deliveries]
    return min(bounds, default=DEFAULT_RETRIES + 1)
