"""``ipcq put``: put items from arguments and stdin into a queue."""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from json import JSONDecodeError
from typing import Any

import click

import ipcq
from ipcq._cli import _items
from ipcq._cli._creation import (
    backend_options_option,
    check_persistent,
    limit_options,
    open_existing,
    require_persistence,
)
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
from ipcq._cli._streams import stdin, stdin_is_terminal
from ipcq._opening.options import DEFAULTS
from ipcq.backend import HIGHEST_PRIORITY
from ipcq.errors import MessageQueueError, MessageTooLarge, QueueFull

#: After a put has waited for this time, a note appears on stderr.
DELAY_SECONDS = 1.0


@click.command("put")
@name_argument
@click.argument("items", nargs=-1, metavar="[ITEM | -]...")
@click.option("--json", "as_json", is_flag=True, help="Parse each line or ITEM as JSON; skip blank lines.")
@null_option("Split stdin at NUL instead of newline.")
@click.option("--raw", is_flag=True, help="Put all of stdin, or each ITEM, as one message of exactly these bytes.")
@click.option(
    "--priority",
    type=click.IntRange(0, HIGHEST_PRIORITY),
    metavar="N",
    default=0,
    help="Priority of the items; the highest is taken first.  [default: 0]",
)
@seconds_option(
    "--wait",
    "Wait up to SECONDS for space for each item; 0 does not wait.  [default: no limit]",
    default=math.inf,
)
@click.option(
    "--drop-oldest",
    is_flag=True,
    help="If the queue is full, drop its oldest items instead of waiting, from the lowest priority up to N.",
)
@backend_option("Look for the queue, or create it, on this backend.")
@click.option("--no-create", is_flag=True, help="Do not create the queue; exit with 5 if it does not exist.")
@limit_options
@backend_options_option
@option_of_open("serializer", help="Serialize items with msgpack (the default), msgspec or pickle.")
@option_of_open("allow_pickle", help="Allow --serializer pickle.")
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
    drop_oldest: bool,
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
    """Put items into the queue NAME. Create the queue if it does not exist.

    Each ITEM is one text item. '-', or no ITEM if stdin is not a terminal, reads items from stdin, one per line. Each
    item is put as soon as it is read. A later error does not undo earlier puts; it reports their number.

    \b
    ipcq put /jobs hello "two words"
    echo '{"id": 1}' | ipcq put /jobs --json -
    find . -print0 | ipcq put /files --null -
    ipcq put /images --raw - < picture.png
    """
    if raw and as_json:
        raise click.UsageError("--raw and --json are mutually exclusive.")
    if raw and serializer is not None:
        raise click.UsageError("--raw and --serializer are mutually exclusive: raw bytes are not serialized.")
    put = _put_of(drop_oldest, wait, quiet)
    if not items:
        if stdin_is_terminal():
            raise click.UsageError("Nothing to put: pass ITEMs, or '-' to type them, one per line.")
        items = ("-",)
    options_of_open = {
        "read": False,
        "max_messages": max_messages,
        "max_message_size": max_message_size,
        "serializer": "raw" if raw else serializer or DEFAULTS["serializer"],
        "allow_pickle": allow_pickle,
        "other_users": other_users,
        **options,
    }
    existing = open_existing(name, backend, **options_of_open)
    if existing is None:
        with require_persistence():
            queue = ipcq.open(name, backend, create=not no_create, priorities=priority > 0, **options_of_open)
    else:
        queue = existing
    with queue:
        if existing is None:
            check_persistent(queue)
        source = _Source(items, queue.max_message_size, as_json=as_json, null=null, raw=raw)
        stored = dropped = 0
        try:
            for item in source:
                dropped += put(queue, item, priority)
                stored += 1
        except (MessageQueueError, Failure, OSError) as error:
            subject = "it" if source.place in str(error) else source.place
            error.add_note(f"{subject} was not put; {_count(stored)} put before it")
            raise
        except KeyboardInterrupt as error:
            if not quiet:
                error.add_note(f"{_count(stored)} put")
            raise
        _report_dropped(dropped, quiet)


def _count(stored: int) -> str:
    return f"{stored} item{'s' if stored != 1 else ''}"


def _report_dropped(dropped: int, quiet: bool) -> None:
    if dropped and not quiet:
        complain(f"{_count(dropped)} dropped to make room")


def _put_of(drop_oldest: bool, wait: float, quiet: bool) -> Callable[[ipcq.Queue[Any], Any, int], int]:
    """Return what puts an item with a priority, and returns how many it dropped."""
    if drop_oldest and wait != math.inf:
        raise click.UsageError("--drop-oldest and --wait are mutually exclusive: a put that drops does not wait.")

    def put(queue: ipcq.Queue[Any], item: Any, priority: int) -> int:
        if drop_oldest:
            return queue.put(item, priority=priority, drop_oldest=True)
        _put(queue, item, priority, wait, quiet)
        return 0

    return put


def _put(queue: ipcq.Queue[Any], item: Any, priority: int, wait: float, quiet: bool) -> None:
    if wait <= DELAY_SECONDS or quiet:
        queue.put(item, timeout=timeout_of(wait), priority=priority)
        return
    try:
        queue.put(item, timeout=DELAY_SECONDS, priority=priority)
    except QueueFull:
        complain(f"queue {queue.name!r} is full, waiting for space (--wait 0 fails instead)")
        queue.put(item, timeout=timeout_of(wait - DELAY_SECONDS), priority=priority)


class _Source:
    """Yields the items from arguments and stdin. `place` describes the current one for errors."""

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
            # One byte more than the limit is enough to reject the input.
            yield self._item(stdin().read(self._limit + 1))
            return
        # read1 returns available data, so each line of a slow pipe is put on arrival. BinaryIO does not declare it, but
        # sys.stdin.buffer has it.
        read: Callable[[int], bytes] = stdin().read1  # type: ignore[attr-defined]
        separator = b"\0" if self._null else b"\n"
        limit = None if self._as_json else self._limit
        for number, record in enumerate(_items.records(read, separator, limit), 1):
            self.place = f"{'record' if self._null else 'line'} {number} of the input"
            # Skip blank lines between JSON values; as text, a blank line is an item.
            if not self._as_json or record.strip():
                yield self._item(record)
        self.place = "the rest of the input"

    def _item(self, data: bytes) -> Any:
        if not self._as_json and len(data) > self._limit:
            # Checked here, because the queue would report the truncated length.
            raise MessageTooLarge(
                f"{self.place} has more than the {self._limit} bytes that the queue takes", limit=self._limit
            )
        try:
            return self._parse(data)
        except UnicodeDecodeError as error:
            raise Failure(f"{self.place} is not UTF-8 ({error}): --raw puts bytes unchanged") from error
        except JSONDecodeError as error:
            raise Failure(f"{self.place} is not JSON: {error.msg} at column {error.colno}") from error
        except (ValueError, RecursionError) as error:
            raise Failure(f"{self.place} cannot be read as JSON: {error}") from error
