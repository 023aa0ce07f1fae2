"""Output of verbs: a table on a terminal, tab-separated lines in a pipe, JSON Lines on request."""

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from typing import Any

import click

from ipcq.backend import Capabilities

#: Width to which a column that wraps may shrink.
MIN_FOLDING_CHARACTERS = 12


def print_line(text: str) -> None:
    """Print one line on stdout. Characters that its encoding lacks are escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(text.encode(encoding, "backslashreplace"))


def print_json(facts: Mapping[str, Any]) -> None:
    """Print one object as one line of JSON."""
    click.echo(json.dumps(facts, ensure_ascii=False).encode())


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, folding: Collection[str]) -> None:
    """Print rows: a table with headings on a terminal, tab-separated lines without headings elsewhere.

    Args:
        headings: One for each column.
        rows: Cells, each a value that `shown` accepts.
        folding: Headings of the columns that may wrap on a narrow terminal.
    """
    terminal = sys.stdout.isatty()
    cells = [[shown(cell, ", " if terminal else ",") for cell in row] for row in rows]
    if not terminal:
        for row in cells:
            print_line("\t".join(row))
        return
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    if _print_richly(headings, cells, widths, folding):
        return
    for line in (headings, *cells):
        print_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def flat(facts: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Return rows of key and value; nested keys are joined with a dot."""
    rows: list[tuple[str, object]] = []
    for key, value in facts.items():
        if isinstance(value, dict):
            rows += [(f"{key}.{inner}", figure) for inner, figure in flat(value)]
        else:
            rows.append((key, value))
    return rows


def _print_richly(
    headings: Sequence[str], cells: Sequence[Sequence[str]], widths: Sequence[int], folding: Collection[str]
) -> bool:
    """Print a table with rich. Return False if rich is not installed or the terminal is too narrow."""
    try:
        from rich.console import Console
    except ImportError:
        return False
    console = Console()
    min_widths = [
        min(width, MIN_FOLDING_CHARACTERS) if heading in folding else width
        for heading, width in zip(headings, widths, strict=True)
    ]
    if sum(min_widths) + 2 * len(min_widths) > console.width:
        return False
    console.print(rich_table(headings, cells, min_widths))
    return True


def rich_table(headings: Sequence[str], cells: Sequence[Sequence[str]], widths: Sequence[int]) -> Any:
    """Return a rich table whose columns have at least the given widths."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(heading, overflow="fold", min_width=width)
    for row in cells:
        # As Text: a queue may be named "[red]", which rich would read as markup.
        table.add_row(*map(Text, row))
    return table


def shown(cell: object, separator: str = ",") -> str:
    """Return the text of a cell: '-' for None, 'yes' or 'no' for a bool, control characters escaped."""
    if cell is None:
        return "-"
    if isinstance(cell, list):
        return separator.join(cell)
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return "".join(
        character if character.isprintable() and character != "\\" else repr(character)[1:-1] for character in str(cell)
    )


def capabilities_of(capabilities: Capabilities) -> dict[str, Any]:
    """Return the capabilities as JSON values; enum members become their names in lower case."""
    return {each.name: _lower_case_name(getattr(capabilities, each.name)) for each in fields(capabilities)}


def _lower_case_name(value: Any) -> Any:
    return value.name.lower() if isinstance(value, Enum) else value
