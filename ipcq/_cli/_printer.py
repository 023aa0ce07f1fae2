"""How items are printed: what `get`, `peek` and `tail` have in common."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

import ipcq
from ipcq._cli import _items
from ipcq._cli._exits import complain, line_of
from ipcq._cli._options import json_option, null_option, option_of_open
from ipcq._cli._streams import stdout

Verb = TypeVar("Verb", bound=Callable[..., Any])


def printing_options(verb: Verb) -> Verb:
    """Offer ``--json``, ``--null``, ``--raw`` and ``--allow-pickle``, which `Printer` takes."""
    for option in (
        option_of_open("allow_pickle", help="Decode pickles: they run code that whoever put them chose."),
        click.option("--raw", is_flag=True, help="Print each message's bytes unchanged, and nothing between them."),
        null_option("End each item with NUL instead of a newline."),
        json_option("Print one JSON value on each line."),
    ):
        verb = option(verb)
    return verb


class Printer:
    """Prints items in the form that the options ask for."""

    def __init__(self, *, as_json: bool, null: bool, raw: bool, allow_pickle: bool) -> None:
        if raw and as_json:
            raise click.UsageError("--raw and --json exclude each other.")
        if raw and allow_pickle:
            raise click.UsageError("--raw and --allow-pickle exclude each other: raw bytes are not decoded.")
        self._raw = raw
        self._allow_pickle = allow_pickle
        self._show = bytes if raw else _items.as_json if as_json else _items.as_text
        self._end = b"\0" if null else b"" if raw else b"\n"
        self._out = stdout()

    @contextmanager
    def open(self, name: str, backend: str, *, wait: float | None, other_users: bool) -> Iterator[ipcq.Queue[Any]]:
        """Open a queue that exists, to see its items as they are to be printed."""
        with (
            _items.deep_items(),
            ipcq.open(
                name,
                backend,
                create=False,
                wait=wait,
                write=False,
                serializer="raw" if self._raw else "msgpack",
                allow_pickle=self._allow_pickle,
                other_users=other_users,
            ) as queue,
        ):
            yield queue

    def text(self, item: Any) -> bytes:
        """Return what is printed for an item."""
        return self._show(item) + self._end

    def write(self, text: bytes) -> None:
        """Print at once: whoever reads should not wait for the next item to see this one."""
        self._out.write(text)
        self._out.flush()


def complain_of(error: ipcq.DecodeError, fate: str) -> None:
    """Print on stderr what cannot be decoded, and what became of it."""
    complain(f"{line_of(error)}; {fate}, its {len(error.data)} bytes in base64: {_items.base64(error.data)}")
