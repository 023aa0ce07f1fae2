"""``ipcq load``: what `drain` wrote back into a queue."""

import math
import os
from contextlib import ExitStack
from time import monotonic
from typing import Any, BinaryIO

import click

import ipcq
from ipcq._cli._creation import check_that_it_lasts, exists, lasting
from ipcq._cli._dump import Dump
from ipcq._cli._exits import Failure, complain
from ipcq._cli._options import (
    backend_option,
    json_option,
    name_argument,
    other_users_option,
    quiet_option,
    seconds_option,
)
from ipcq._cli._output import say, say_json, shown
from ipcq._cli._progress import PATIENCE, Progress
from ipcq._cli._signals import Stop, end_by, noted_signals
from ipcq._cli._streams import stdin
from ipcq.errors import MessageQueueError, QueueFull

#: Seconds in which a signal is noticed while space is waited for.
BEAT = 0.1


@click.command("load")
@name_argument
@click.argument("file", type=click.Path(allow_dash=True), metavar="FILE | -")
@click.option("--skip", type=click.IntRange(0), metavar="N", default=0, help="Leave out the first N messages.")
@seconds_option(
    "--wait", "How long each message waits for space, 0 not at all. By default as long as it takes.", default=math.inf
)
@click.option("--no-create", is_flag=True, help="Fail with 5 if there is no such queue, instead of creating it.")
@json_option("Print what was done as one JSON object.")
@backend_option("Where to look for the queue, and to create it.")
@other_users_option
@quiet_option
def command(
    name: str,
    file: str,
    skip: int,
    wait: float,
    no_create: bool,
    as_json: bool,
    backend: str,
    other_users: bool,
    quiet: bool,
) -> None:
    """Put the messages of a FILE that `ipcq drain` wrote into the queue NAME, with their priorities.

    A FILE of lines of JSON will do too: each line becomes an item, as with `ipcq put --json`.

    If there is no such queue it is created with the mode and the limits of the one that was drained. Whatever ends the
    verb early, Ctrl-C included, it says with which --skip to go on.

    \b
    ipcq load /jobs jobs.messages
    ipcq load /jobs jobs.messages --skip 1200
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
        there = exists(name, backend)
        limits = {} if there else {limit: value for limit, value in dump.queue.items() if value is not None}
        stack.enter_context(lasting())
        queue = stack.enter_context(
            ipcq.open(
                name,
                backend,
                create=not no_create,
                read=False,
                serializer="msgpack" if dump.json else "raw",
                other_users=other_users,
                **limits,
            )
        )
        if not there:
            check_that_it_lasts(queue)
        progress = stack.enter_context(Progress("messages put", silent=quiet))
        load = Load(queue, dump, stop, progress, size=_size(source), quiet=quiet)
        try:
            load.run(skip, wait)
        except (MessageQueueError, Failure, OSError, KeyboardInterrupt, SystemExit) as error:
            progress.close()
            note = f"{_count(progress.count)} put; go on with --skip {skip + progress.count}"
            if isinstance(error, SystemExit):
                complain(note)  # no line of its own tells it
            else:
                error.add_note(note)
            raise
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

    def __init__(
        self,
        queue: ipcq.Queue[Any],
        dump: Dump,
        stop: Stop,
        progress: Progress,
        *,
        size: int | None,
        quiet: bool,
    ) -> None:
        self.left_out = 0
        self._queue = queue
        self._dump = dump
        self._stop = stop
        self._progress = progress
        self._size = size
        self._told = quiet

    def run(self, skip: int, wait: float) -> None:
        """Put all but the first ones."""
        for item, priority in ((item, 0) for item in self._dump.items()) if self._dump.json else self._dump:
            if self.left_out < skip:
                self.left_out += 1
            else:
                self._put(item, priority, monotonic() + wait)
                self._progress.count += 1
            self._show()

    def _put(self, item: Any, priority: int, deadline: float) -> None:
        """Wait for space in short pieces, so that a signal ends it between two tries and never within one."""
        began = monotonic()
        while True:
            if self._stop.number:
                end_by(self._stop.number)
            left = max(0.0, deadline - monotonic())
            try:
                return self._queue.put(item, timeout=min(left, BEAT), priority=priority)
            except QueueFull:
                if left <= BEAT:
                    raise
            self._show()
            self._tell(monotonic() - began)

    def _show(self) -> None:
        self._progress.show(None if self._size is None else self._dump.bytes / self._size)

    def _tell(self, waited: float) -> None:
        if waited > PATIENCE and not self._told and not self._progress.shown:
            self._told = True
            complain(f"queue {self._queue.name!r} is full, waiting for space (--wait 0 fails instead)")
