"""Arguments of a command with placeholders, which are replaced by an item or parts of it."""

import re
from collections.abc import Sequence
from typing import Any, Final

from ipcq._cli import _items

_PATH: Final = r"(?:[\w-]+(?:\.[\w-]+)*)?"

#: ``{}`` is the item and ``{user.id}`` a part of it; ``{{id}}`` is the text ``{id}``, and ``${HOME}`` is a shell's.
_PLACEHOLDER: Final = re.compile(rf"\{{\{{(?P<text>{_PATH})\}}\}}|(?<!\$)\{{(?P<path>{_PATH})\}}")


class Unfit(Exception):
    """The item does not have what the arguments need. The text says what."""


def filled(words: Sequence[str], item: Any) -> list[str]:
    """Return the arguments with their placeholders replaced: str and bytes as they are, anything else as JSON.

    Raises:
        Unfit: The item lacks a part, or a replacement contains a NUL, which no argument can.
    """

    def replacement(match: re.Match[str]) -> str:
        path = match["path"]
        if path is None:
            return f"{{{match['text']}}}"
        text = _items.as_text(_part(item, path) if path else item).decode("utf-8", "surrogateescape")
        if "\0" in text:
            raise Unfit(f"{match[0]} has a NUL, which no argument can")
        return text

    return [_PLACEHOLDER.sub(replacement, word) for word in words]


def has_placeholder(word: str) -> bool:
    """Return whether an argument depends on the item."""
    return any(match["path"] is not None for match in _PLACEHOLDER.finditer(word))


def _part(item: Any, path: str) -> Any:
    part = _parsed(item)
    for key in path.split("."):
        if isinstance(part, dict) and key in part:
            part = part[key]
        elif isinstance(part, list | tuple) and key.isdecimal() and int(key) < len(part):
            part = part[int(key)]
        else:
            raise Unfit(f"it has no {{{path}}}")
    return part


def _parsed(item: Any) -> Any:
    """Return the value of a text that is JSON, and any other item as it is."""
    if not isinstance(item, str | bytes | bytearray):
        return item
    try:
        return _items.from_json(_items.as_text(item))
    except (ValueError, RecursionError):
        return item
