"""``ipcq put``: from arguments and stdin into a queue."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from json import JSONDecodeError
from typing import Any

import click

import ipcq
from ipcq._cli import _items
from ipcq._cli._creation import backend_options_option, check_that_it_lasts, existing, lasting, limit_options
from ipcq._cli._exits import Failure, complain
from ipcq._cli._options import (
    backend_option,
    name_argument,
    null_option,
    option_of_open,
    quiet_option,
    seconds_option,
    timeout_of,
)
from ipcq._cli._streams import asks, stdin
from ipcq._opening.options import DEFAULTS
from ipcq.backend import HIGHEST_PRIORITY
from ipcq.errors import MessageQueueError, MessageTooLarge, QueueFull

#: How long a put may take before a note says what it is waiting for.
PATIENCE = 1.0


@click.command("put")
@name_argument
@click.argument("items", nargs=-1, metavar="[ITEM | -]...")
@click.option("--json", "as_json", is_flag=True, help="Each line or ITEM is a JSON value; blank lines are skipped.")
@null_option("Items on stdin end with NUL instead of a newline.")
@click.option("--raw", is_flag=True, help="All of stdin, or each ITEM, is one message of exactly these bytes.")
@click.option(
    "--priority", type=click.IntRange(0, HIGHEST_PRIORITY), metavar="N", default=0, help="The highest is taken first."
)
@seconds_option(
    "--wait",
    "How long each item waits for space, 0 not at all. By default as long as it takes, as in a pipe.",
    default=math.inf,
)
@backend_option("Where to look for the queue, and to create it.")
@click.option("--no-create", is_flag=True, help="Fail with 5 if there is no such queue, instead of creating it.")
@limit_options
@backend_options_option
@option_of_open("serializer", help="msgpack (the default), msgspec or pickle.")
@option_of_open("allow_pickle", help="Needed for --serializer pickle.")
@option_of_open("other_users")
@quiet_option
def command(
    name: str,
    items: tuple[str, ...],
    as_json: bool,
    null: bool,
    raw: bool,
    priority: int,
    wait: float,
    backend: str,
    no_create: bool,
    max_messages: int | None,
    max_message_size: int | None,
    options: Mapping[str, Any],
    serializer: str | None,
    allow_pickle: bool,
    other_users: bool,
    quiet: bool,
) -> None:
    """Put items into the queue NAME, and create it if there is none.

    Each ITEM is one item of text. '-' reads items from stdin, one on each line; so does no ITEM at all unless stdin is
    a terminal. Items are put as they come in; what goes wrong later does not take them back, and the error says how
    many are in.

    \b
    ipcq put /jobs hello "two words"
    echo '{"id": 1}' | ipcq put /jobs --json -
    find . -print0 | ipcq put /files --null -
    ipcq put /images --raw - < picture.png
    """
    if raw and as_json:
        raise click.UsageError("--raw and --json exclude each other.")
    if raw and serializer is not None:
        raise click.UsageError("--raw and --serializer exclude each other: raw bytes are not serialized.")
    if not items:
        if asks():
            raise click.UsageError("Nothing to put: give ITEMs, or '-' to type them, one on each line.")
        items = ("-",)
    asked = {
        "read": False,
        "max_messages": max_messages,
        "max_message_size": max_message_size,
        "serializer": "raw" if raw else serializer or DEFAULTS["serializer"],
        "allow_pickle": allow_pickle,
        "other_users": other_users,
        **options,
    }
    there = existing(name, backend, **asked)
    if there is None:
        with lasting():
            queue = ipcq.open(name, backend, create=not no_create, priorities=priority > 0, **asked)
    else:
        queue = there
    with queue:
        if there is None:
            check_that_it_lasts(queue)
        source = _Source(items, queue.max_message_size, as_json=as_json, null=null, raw=raw)
        stored = 0
        try:
            for item in source:
                _store(queue, item, priority, wait, quiet)
                stored += 1
        except (MessageQueueError, Failure, OSError) as error:
            what = "it" if source.place in str(error) else source.place
            error.add_note(f"{what} was not put, {_count(stored)} before it")
            raise
        except KeyboardInterrupt as error:
            if not quiet:
                error.add_note(f"{_count(stored)} put")
            raise


def _count(stored: int) -> str:
    return f"{stored} item{'s were' if stored != 1 else ' was'}"


def _store(queue: ipcq.Queue[Any], item: Any, priority: int, wait: float, quiet: bool) -> None:
    if wait <= PATIENCE or quiet:
        queue.put(item, timeout=timeout_of(wait), priority=priority)
        return
    try:
        queue.put(item, timeout=PATIENCE, priority=priority)
    except QueueFull:
        complain(f"queue {queue.name!r} is full, waiting for space (--wait 0 fails instead)")
        queue.put(item, timeout=timeout_of(wait - PATIENCE), priority=priority)


class _Source:
    """The items, one after the other, as they come in; `place` says which one is at hand."""

    def __init__(self, arguments: tuple[str, ...], limit: int, *, as_json: bool, null: bool, raw: bool) -> None:
        self.place = ""
        self._arguments = arguments
        self._limit = limit
        self._as_json = as_json
        self._null = null
        self._raw = raw
        self._parse: Callable[[bytes], Any] = bytes if raw else _items.from_json if as_json else _items.from_text

    def __iter__(self) -> Iterator[Any]:
        for position, argument in enumerate(self._arguments, 1):
            if argument == "-":
                yield from self._stdin()
            else:
                self.place = f"ITEM {position}"
                yield self._item(os.fsencode(argument))

    def _stdin(self) -> Iterator[Any]:
        self.place = "the input"
        if self._raw and not self._null:
            # One byte more than fits is enough to be refused.
            yield self._item(stdin().read(self._limit + 1))
            return
        # read1 hands over what is there, so that each line of a slow pipe is put when it comes. Python's stdin has it,
        # though not every binary stream.
        read: Callable[[int], bytes] = stdin().read1  # type: ignore[attr-defined]
        separator = b"\0" if self._null else b"\n"
        limit = None if self._as_json else self._limit
        for number, record in enumerate(_items.records(read, separator, limit), 1):
            self.place = f"{'record' if self._null else 'line'} {number} of the input"
            # JSON may be spread with blank lines; as text they are items like any other.
            if not self._as_json or record.strip():
                yield self._item(record)
        self.place = "the rest of the input"

    def _item(self, data: bytes) -> Any:
        if not self._as_json and len(data) > self._limit:
            # Said here and not by the queue, because there may be more of it than was read.
            raise MessageTooLarge(
                f"{self.place} has more than the {self._limit} bytes that the queue takes", limit=self._limit
            )
        try:
            return self._parse(data)
        except UnicodeDecodeError as error:
            raise Failure(f"{self.place} is not UTF-8 ({error}): --raw puts bytes as they are") from error
        except JSONDecodeError as error:
            raise Failure(f"{self.place} is not JSON: {error.msg} at column {error.colno}") from error
        except (ValueError, RecursionError) as error:
            raise Failure(f"{self.place} cannot be read as JSON: {error}") from error
