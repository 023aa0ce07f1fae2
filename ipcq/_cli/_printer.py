"""Printing of items for `get`, `peek` and `tail`."""

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
    """Add ``--json``, ``--null``, ``--raw`` and ``--allow-pickle``, the arguments of `Printer`."""
    for option in (
        option_of_open("allow_pickle", help="Decode pickles. A pickle can run any code: trust all producers."),
        click.option("--raw", is_flag=True, help="Print the bytes of each message unchanged, without separators."),
        null_option("End each item with NUL instead of a newline."),
        json_option("Print one JSON value per line."),
    ):
        verb = option(verb)
    return verb


class Printer:
    """Prints items in the format selected by the options."""

    def __init__(self, *, as_json: bool, null: bool, raw: bool, allow_pickle: bool) -> None:
        if raw and as_json:
            raise click.UsageError("--raw and --json are mutually exclusive.")
        if raw and allow_pickle:
            raise click.UsageError("--raw and --allow-pickle are mutually exclusive: raw bytes are not decoded.")
        self._raw = raw
        self._allow_pickle = allow_pickle
        self._show = bytes if raw else _items.as_json if as_json else _items.as_text
        self._end = b"\0" if null else b"" if raw else b"\n"
        self._out = stdout()

    @contextmanager
    def open(self, name: str, backend: str, *, wait: float | None, other_users: bool) -> Iterator[ipcq.Queue[Any]]:
        """Open an existing queue for reading, with the serializer that the format needs."""
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
        """Return the bytes to print for an item."""
        return self._show(item) + self._end

    def write(self, text: bytes) -> None:
        """Print and flush, so that a reader sees the item without waiting for the next one."""
        self._out.write(text)
        self._out.flush()


def report_undecodable(error: ipcq.DecodeError, fate: str) -> None:
    """Report a message that cannot be decoded on stderr, with its fate and its bytes."""
    complain(f"{line_of(error)}; {fate}; its {len(error.data)} bytes in base64: {_items.base64(error.data)}")
