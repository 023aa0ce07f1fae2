"""``ipcq get``: out of a queue onto stdout."""

from collections.abc import Callable
from time import monotonic
from typing import IO, Any

import click

import ipcq
from ipcq._cli import _items
from ipcq._cli._exits import Failure, complain, line_of
from ipcq._cli._options import (
    backend_option,
    json_option,
    name_argument,
    null_option,
    other_users_option,
    seconds_option,
    timeout_of,
)
from ipcq._cli._streams import stdout
from ipcq.errors import DecodeError, QueueEmpty, QueueShutDown

NOTHING: Any = object()


@click.command("get")
@name_argument
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="How many items to take, 1 by default.")
@click.option("--all", "drain", is_flag=True, help="Take items until the queue is empty.")
@click.option("--follow", is_flag=True, help="Take items as they come, until the queue is shut down.")
@seconds_option(
    "--wait",
    "How long to wait in all, for the queue to appear and for items. By default not at all; with --follow without end "
    "for items.",
)
@json_option("Print one JSON value on each line.")
@null_option("End each item with NUL instead of a newline.")
@click.option("--raw", is_flag=True, help="Print each message's bytes unchanged, and nothing between them.")
@backend_option("Where to look for the queue.")
@click.option("--allow-pickle", is_flag=True, help="Decode pickles: they run code that whoever put them chose.")
@other_users_option
def command(
    name: str,
    count: int | None,
    drain: bool,
    follow: bool,
    wait: float | None,
    as_json: bool,
    null: bool,
    raw: bool,
    backend: str,
    allow_pickle: bool,
    other_users: bool,
) -> None:
    """Take items out of the queue NAME and print them, one on each line.

    Text is printed as it is, bytes as they are, and any other item as JSON. A message that cannot be decoded is
    reported on stderr with its bytes in base64; the others are still printed, and the exit code is 1.

    \b
    ipcq get /jobs
    ipcq get /jobs --json --wait 3
    ipcq get /jobs --follow --json | jq .id
    ipcq get /images --raw > picture.png
    """
    if (count is not None) + drain + follow > 1:
        raise click.UsageError("--count, --all and --follow exclude each other.")
    if raw and as_json:
        raise click.UsageError("--raw and --json exclude each other.")
    if raw and allow_pickle:
        raise click.UsageError("--raw and --allow-pickle exclude each other: raw bytes are not decoded.")
    # One deadline for everything: what the queue takes to appear is not left for the items.
    until = None if wait is None else monotonic() + wait
    show = bytes if raw else _items.as_json if as_json else _items.as_text
    out = stdout()
    end = b"\0" if null else b"" if raw else b"\n"
    with (
        _items.deep_items(),
        ipcq.open(
            name,
            backend,
            create=False,
            wait=wait,
            write=False,
            serializer="raw" if raw else "msgpack",
            allow_pickle=allow_pickle,
            other_users=other_users,
        ) as queue,
    ):
        run = _Run(queue, out, show, end)
        if follow:
            run.follow(until)
        elif drain:
            run.drain(until)
        else:
            run.count(count or 1, until)
    if run.undecoded:
        raise Failure  # each of them has its line already


class _Run:
    """Takes items and prints them, and keeps account of both."""

    def __init__(self, queue: ipcq.Queue[Any], out: IO[bytes], show: Callable[[Any], bytes], end: bytes) -> None:
        self.taken = 0
        self.undecoded = 0
        self._queue = queue
        self._out = out
        self._show = show
        self._end = end

    def count(self, wanted: int, until: float | None) -> None:
        while self.taken < wanted:
            try:
                self._move(_left(until, 0.0))
            except (QueueEmpty, QueueShutDown) as error:
                if wanted > 1:
                    error.add_note(f"{self.taken} of {wanted} items were there")
                raise

    def drain(self, until: float | None) -> None:
        self._move(_left(until, 0.0))
        while True:
            try:
                self._move(0.0)
            except (QueueEmpty, QueueShutDown):
                return

    def follow(self, until: float | None) -> None:
        while True:
            try:
                self._move(_left(until, None))
            except QueueShutDown:
                return
            except QueueEmpty:
                if self.taken:
                    return
                raise

    def _move(self, timeout: float | None) -> None:
        """Take one item and print it; whatever happens in between, the item is somewhere to be found."""
        item = NOTHING
        try:
            item = self._queue.get(timeout=timeout)
            self.taken += 1
            self._out.write(self._show(item) + self._end)
            # At once: whoever reads should not wait for the next item to see this one.
            self._out.flush()
        except DecodeError as error:
            self.taken += 1
            self.undecoded += 1
            complain(
                f"{line_of(error)}; it was taken, its {len(error.data)} bytes in base64: {_items.base64(error.data)}"
            )
        except BaseException:
            if item is not NOTHING:
                kept = _items.as_json(item).decode("utf-8")
                complain(f"stopped before this item of {self._queue.name!r} was printed, and it is taken: {kept}")
            raise


def _left(until: float | None, otherwise: float | None) -> float | None:
    """Return what is left of the time, in seconds, as a timeout."""
    return otherwise if until is None else timeout_of(max(0.0, until - monotonic()))
