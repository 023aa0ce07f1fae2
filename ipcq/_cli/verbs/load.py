"""``ipcq load``: put the messages of a drained file into a queue."""

import math
import os
from contextlib import ExitStack
from typing import BinaryIO

import click

from ipcq._cli._exits import Failure, complain
from ipcq._cli._message_reader import MessageReader
from ipcq._cli._options import (
    backend_option,
    json_option,
    name_argument,
    option_of_open,
    quiet_option,
    seconds_option,
)
from ipcq._cli._output import print_json, print_line, shown
from ipcq._cli._progress import Progress
from ipcq._cli._putter import Putter
from ipcq._cli._rescue import load_command
from ipcq._cli._signals import raise_for_signal, record_signals
from ipcq._cli._streams import stdin
from ipcq._cli._target import Limits, check_size, open_target, target_options
from ipcq.errors import MessageQueueError


@click.command("load")
@name_argument
@click.argument("file", type=click.Path(allow_dash=True), metavar="FILE | -")
@click.option("--skip", type=click.IntRange(0), metavar="N", default=0, help="Skip the first N messages.")
@seconds_option(
    "--wait",
    "Wait up to SECONDS for space for each message; 0 does not wait.  [default: no limit]",
    default=math.inf,
)
@click.option("--no-create", is_flag=True, help="Do not create the queue; exit with 5 if it does not exist.")
@target_options
@json_option("Print the result as one JSON object.")
@backend_option("Look for the queue, or create it, on this backend.")
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
    """Put the messages of a FILE written by `ipcq drain` into the queue NAME, with their priorities.

    FILE may also be lines of JSON: each line becomes an item, as with `ipcq put --json`.

    If the queue does not exist, it is created with the mode and the limits of the drained one; options override them.
    A limit that the backend does not support is omitted, with a note on stderr. A new queue that is too small for the
    messages is refused before any is put. An existing queue must match the limits given by options.

    If load ends early, by an error or Ctrl-C, it prints how to resume. In a rescue file of `ipcq drain`, `move` or
    `copy`, it marks each message that is put, even if the message comes through a pipe, and removes the file once all
    are marked.

    \b
    ipcq load /jobs jobs.messages
    ipcq load /jobs jobs.messages --skip 1200
    ipcq load /jobs jobs.messages --max-messages 5000
    """
    with ExitStack() as stack:
        source = stdin() if file == "-" else stack.enter_context(open(file, "rb", buffering=0))
        stop = stack.enter_context(record_signals())
        # Return available data without filling `size`: `read` on a raw file, `read1` on stdin's buffer.
        read = source.read1 if file == "-" else source.read  # type: ignore[attr-defined]

        def read_or_stop(size: int) -> bytes:
            with stop.raising(1):  # the writer of a pipe may block this indefinitely
                if stop.number:
                    raise_for_signal(stop.number)
                data: bytes = read(size)
                return data

        reader = MessageReader(read_or_stop)
        stack.callback(lambda: reader.close(done=False))
        queue = stack.enter_context(
            open_target(
                name,
                backend,
                limits,
                reader.queue,
                messages=reader.messages,
                create=not no_create,
                serializer="msgpack" if reader.json else "raw",
                other_users=other_users,
            )
        )
        if file == "-":  # a regular file can be loaded again after a message that does not fit
            check_size(queue, limits, reader.queue.get("max_message_size"))
        progress = stack.enter_context(Progress("messages put", silent=quiet))
        load = Load(
            reader,
            Putter(queue, stop, progress, wait=wait, quiet=quiet),
            progress,
            size=_size(source),
            priorities=not limits.drops_priorities,
        )
        try:
            load.run(skip)
        except (MessageQueueError, Failure, OSError, KeyboardInterrupt, SystemExit) as error:
            progress.close()
            note = f"{_messages(progress.count)} put; resume with --skip {skip + progress.count}"
            if reader.has_rescue_file:
                paths = " and ".join(load_command(name, marker.path) for marker in reader.markers)
                note = f"{_messages(progress.count)} put; the others are kept, resume with {paths}"
            if isinstance(error, SystemExit):
                complain(note)  # SystemExit prints no line, so a note would be lost
            else:
                error.add_note(note)
            raise
        if load.skipped == skip:
            reader.close(done=True)
    if load.skipped < skip:
        raise Failure(f"the file has {_messages(load.skipped)}, fewer than --skip {skip}")
    if as_json:
        print_json({"name": queue.name, "backend": queue.backend, "messages": progress.count, "skipped": skip})
    elif not quiet:
        print_line(f"{_messages(progress.count)} put into {shown(queue.name)}")


def _size(source: BinaryIO) -> int | None:
    """Return the number of bytes to read, or None if unknown."""
    try:
        return os.fstat(source.fileno()).st_size or None
    except OSError:
        return None


def _messages(messages: int) -> str:
    return f"{messages} message{'s' if messages != 1 else ''}"


class Load:
    """Puts the messages or items of a file, one at a time."""

    def __init__(
        self, reader: MessageReader, putter: Putter, progress: Progress, *, size: int | None, priorities: bool
    ) -> None:
        self.skipped = 0
        self._reader = reader
        self._putter = putter
        self._progress = progress
        self._size = size
        self._priorities = priorities

    def run(self, skip: int) -> None:
        """Put all messages but the first `skip`."""
        for item, priority in ((item, 0) for item in self._reader.items()) if self._reader.json else self._reader:
            if self.skipped < skip:
                self.skipped += 1
            else:
                self._putter.put(item, priority if self._priorities else 0, self._show)
                self._progress.count += 1
            self._reader.mark()
            self._show()

    def _show(self) -> None:
        self._progress.show(None if self._size is None else self._reader.bytes / self._size)
