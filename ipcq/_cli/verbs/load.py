"""``ipcq load``: what `drain` wrote back into a queue."""

import math
import os
from contextlib import ExitStack
from typing import BinaryIO

import click

from ipcq._cli._dump import Dump
from ipcq._cli._exits import Failure, complain
from ipcq._cli._options import (
    backend_option,
    json_option,
    name_argument,
    option_of_open,
    quiet_option,
    seconds_option,
)
from ipcq._cli._output import say, say_json, shown
from ipcq._cli._progress import Progress
from ipcq._cli._putter import Putter
from ipcq._cli._rescue import load_command
from ipcq._cli._signals import end_by, noted_signals
from ipcq._cli._streams import stdin
from ipcq._cli._target import Limits, check_size, open_target, target_options
from ipcq.errors import MessageQueueError


@click.command("load")
@name_argument
@click.argument("file", type=click.Path(allow_dash=True), metavar="FILE | -")
@click.option("--skip", type=click.IntRange(0), metavar="N", default=0, help="Leave out the first N messages.")
@seconds_option(
    "--wait",
    "How long each message may wait for space; 0 does not wait. By default as long as it takes.",
    default=math.inf,
)
@click.option("--no-create", is_flag=True, help="Fail with 5 if there is no such queue, instead of creating it.")
@target_options
@json_option("Print what was done as one JSON object.")
@backend_option("Where to look for the queue, and to create it.")
@option_of_open("other_users")
@quiet_option
def command(
    name: str,
    file: str,
    skip: int,
    wait: float,
    no_create: bool,
    limits: Limits,
    as_json: bool,
    backend: str,
    other_users: bool,
    quiet: bool,
) -> None:
    """Put the messages of a FILE that `ipcq drain` wrote into the queue NAME, with their priorities.

    A FILE of lines of JSON will do too: each line becomes an item, as with `ipcq put --json`.

    If there is no such queue it is created with the mode and the limits of the one that was drained. Options replace
    them. A limit that the backend cannot have is left out, and stderr says so; a queue that would be too small for the
    messages is refused before any is put. An existing queue must have the limits that options ask for.

    If it ends early, by an error or by Ctrl-C, it says how to go on. In a rescue file of `ipcq drain`, `move` or
    `copy`, each message that is put is marked, also when it comes through a pipe; once all are, the file is removed.

    \b
    ipcq load /jobs jobs.messages
    ipcq load /jobs jobs.messages --skip 1200
    ipcq load /jobs jobs.messages --max-messages 5000
    """
    with ExitStack() as stack:
        source = stdin() if file == "-" else stack.enter_context(open(file, "rb", buffering=0))
        stop = stack.enter_context(noted_signals())
        # Raw files and stdin's buffer have different calls that hand over what is there.
        read = source.read1 if file == "-" else source.read  # type: ignore[attr-defined]

        def read_on(size: int) -> bytes:
            with stop.raising(1):  # whoever writes to a pipe may take for ever
                if stop.number:
                    end_by(stop.number)
                data: bytes = read(size)
                return data

        dump = Dump(read_on)
        stack.callback(lambda: dump.close(done=False))
        queue = stack.enter_context(
            open_target(
                name,
                backend,
                limits,
                dump.queue,
                messages=dump.messages,
                create=not no_create,
                serializer="msgpack" if dump.json else "raw",
                other_users=other_users,
            )
        )
        if file == "-":  # if FILE is a file, it is still there after a message that does not fit
            check_size(queue, limits, dump.queue.get("max_message_size"))
        progress = stack.enter_context(Progress("messages put", silent=quiet))
        load = Load(
            dump,
            Putter(queue, stop, progress, wait=wait, quiet=quiet),
            progress,
            size=_size(source),
            priorities=not limits.drops_priorities,
        )
        try:
            load.run(skip)
        except (MessageQueueError, Failure, OSError, KeyboardInterrupt, SystemExit) as error:
            progress.close()
            note = f"{_count(progress.count)} put; go on with --skip {skip + progress.count}"
            if dump.is_kept:
                paths = " and ".join(load_command(name, kept.path) for kept in dump.kept)
                note = f"{_count(progress.count)} put; the others are kept, go on with {paths}"
            if isinstance(error, SystemExit):
                complain(note)  # no line of its own tells it
            else:
                error.add_note(note)
            raise
        if load.left_out == skip:
            dump.close(done=True)
    if load.left_out < skip:
        raise Failure(f"there are {_count(load.left_out)}, fewer than --skip {skip}")
    if as_json:
        say_json({"name": queue.name, "backend": queue.backend, "messages": progress.count, "skipped": skip})
    elif not quiet:
        say(f"{_count(progress.count)} put into {shown(queue.name)}")


def _size(source: BinaryIO) -> int | None:
    """Return how many bytes there are to read, where that is known."""
    try:
        return os.fstat(source.fileno()).st_size or None
    except OSError:
        return None


def _count(messages: int) -> str:
    return f"{messages} message{'s' if messages != 1 else ''}"


class Load:
    """Puts the messages of a file, one at a time."""

    def __init__(self, dump: Dump, putter: Putter, progress: Progress, *, size: int | None, priorities: bool) -> None:
        self.left_out = 0
        self._dump = dump
        self._putter = putter
        self._progress = progress
        self._size = size
        self._priorities = priorities

    def run(self, skip: int) -> None:
        """Put all but the first ones."""
        for item, priority in ((item, 0) for item in self._dump.items()) if self._dump.json else self._dump:
            if self.left_out < skip:
                self.left_out += 1
            else:
                self._putter.put(item, priority if self._priorities else 0, self._show)
                self._progress.count += 1
            self._dump.mark()
            self._show()

    def _show(self) -> None:
        self._progress.show(None if self._size is None else self._dump.bytes / self._size)
