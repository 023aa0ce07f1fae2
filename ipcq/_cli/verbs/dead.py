"""``ipcq dead``: list the dead letters of a queue, requeue them, or drop them."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import click

import ipcq
from ipcq._cli import _items
from ipcq._cli._exits import line_of
from ipcq._cli._options import backend_option, json_option, name_argument, option_of_open, quiet_option
from ipcq._cli._output import print_json, print_line, print_table
from ipcq._cli._streams import stdout
from ipcq.errors import DecodeError, QueueEmpty

HEADINGS = ("number", "priority", "deliveries", "bytes", "reason", "item")

#: Longer items are cut in the table; JSON has them whole.
MAX_ITEM_CHARACTERS = 60


@click.command("dead")
@name_argument
@click.option("--requeue", is_flag=True, help="Make them ready again, at their old place and without failures.")
@click.option("--drop", is_flag=True, help="Remove them from the queue.")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Only the first N.  [default: all]")
@json_option("Print one JSON object per dead letter, or one for the result.")
@option_of_open("allow_pickle", help="Decode pickles. A pickle can run any code: trust all producers.")
@backend_option("Look for the queue on this backend.")
@option_of_open("other_users")
@quiet_option
def command(
    name: str,
    requeue: bool,
    drop: bool,
    count: int | None,
    as_json: bool,
    allow_pickle: bool,
    backend: str,
    other_users: bool,
    quiet: bool,
) -> None:
    """List the dead letters of the queue NAME: messages that failed too often, or were rejected.

    They stay in the queue, and count in its limits, until they are requeued or dropped. The first is the one that was
    put first.

    \b
    ipcq dead /jobs
    ipcq dead /jobs --requeue
    ipcq dead /jobs --json | jq .item
    """
    if requeue and drop:
        raise click.UsageError("--requeue and --drop are mutually exclusive.")
    with (
        _items.deep_items(),
        ipcq.open(
            name, backend, create=False, write=requeue, allow_pickle=allow_pickle, other_users=other_users
        ) as queue,
    ):
        letters = queue.dead()
        if not (requeue or drop):
            _list(islice(letters.peek_all(), count), as_json=as_json)
            return
        number = letters.requeue(count) if requeue else _drop(letters, count)
    if as_json:
        print_json({"name": queue.name, "backend": queue.backend, "requeued" if requeue else "dropped": number})
    elif not quiet:
        print_line(f"{number} dead letter{'s' if number != 1 else ''} {'requeued' if requeue else 'dropped'}")


def _drop(letters: ipcq.DeadLetters[Any], count: int | None) -> int:
    if count is None:
        return letters.clear()
    dropped = 0
    try:
        while dropped < count:
            letters.get_message(block=False)
            dropped += 1
    except QueueEmpty:
        pass
    return dropped


def _list(letters: Iterator[ipcq.DeadLetter[Any]], *, as_json: bool) -> None:
    if as_json:
        out = stdout()
        for letter in letters:
            out.write(_items.as_json(_facts(letter)) + b"\n")
    elif rows := [_cells(letter) for letter in letters]:
        print_table(HEADINGS, rows, folding={"reason", "item"})


def _facts(letter: ipcq.DeadLetter[Any]) -> dict[str, Any]:
    facts = {
        "number": letter.number,
        "priority": letter.priority,
        "deliveries": letter.deliveries,
        "bytes": len(letter.data),
        "reason": letter.reason,
    }
    try:
        return {**facts, "item": letter.item, "error": None, "base64": None}
    except DecodeError as error:
        return {**facts, "item": None, "error": line_of(error), "base64": _items.base64(letter.data)}


def _cells(letter: ipcq.DeadLetter[Any]) -> tuple[object, ...]:
    *cells, item, error, _ = _facts(letter).values()
    text = (_items.as_text(item) if error is None else _items.as_json(letter.data)).decode("utf-8", "backslashreplace")
    return *cells, text if len(text) <= MAX_ITEM_CHARACTERS else f"{text[: MAX_ITEM_CHARACTERS - 1]}…"
