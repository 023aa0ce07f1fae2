"""Items as text and back: what stdin and stdout carry.

JSON cannot express everything that a queue carries. So that every item has exactly one line of valid JSON, these stand
for the rest: ``{"$base64": …}`` for bytes, ``{"$float": "nan"}`` (``inf``, ``-inf``), ``{"$map": [[key, value], …]}``
for a map whose keys are not all strings, the ISO 8601 text for dates and times, a list for sets, ``{"$repr": …}`` for
anything else.
"""

import json
import math
import reprlib
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from typing import Any

# MessagePack nests up to 1,024 deep, and each level takes a few frames here.
DEEP = 10_000

# It stops at some depth, and a repr that raises does not end it.
_BRIEFLY = reprlib.Repr()
_BRIEFLY.maxother = _BRIEFLY.maxstring = 10_000


@contextmanager
def deep_items() -> Iterator[None]:
    """Allow for items nested as deeply as a serializer lets them be."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, DEEP))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def base64(data: bytes | bytearray) -> str:
    """Return the data in base64."""
    return b64encode(data).decode("ascii")


def as_text(item: Any) -> bytes:
    """Return a str as UTF-8, bytes as they are, anything else as JSON."""
    if isinstance(item, str):
        # A lone surrogate, which only a pickle can bring, has no UTF-8.
        return item.encode("utf-8", "backslashreplace")
    if isinstance(item, bytes | bytearray):
        return bytes(item)
    return as_json(item)


def as_json(item: Any) -> bytes:
    """Return the item as one line of JSON."""
    try:
        text = json.dumps(_plain(item), ensure_ascii=False, allow_nan=False)
    except RecursionError:  # a pickle can contain itself
        text = json.dumps({"$repr": _BRIEFLY.repr(item)})
    # What has no UTF-8, a lone surrogate, becomes the escape that JSON has for it.
    return text.encode("utf-8", "backslashreplace")


def _plain(item: Any) -> Any:
    if item is None or isinstance(item, str | int):
        return item
    if isinstance(item, float):
        return item if math.isfinite(item) else {"$float": str(item)}
    if isinstance(item, bytes | bytearray):
        return {"$base64": base64(item)}
    if isinstance(item, list | tuple | set | frozenset):
        return [_plain(element) for element in item]
    if isinstance(item, dict):
        if all(isinstance(key, str) for key in item):
            return {key: _plain(value) for key, value in item.items()}
        return {"$map": [[_plain(key), _plain(value)] for key, value in item.items()]}
    if isinstance(item, datetime | date | time):
        return item.isoformat()
    return {"$repr": _BRIEFLY.repr(item)}


def from_json(text: bytes) -> Any:
    """Return the object that a JSON text stands for.

    Raises:
        ValueError: It is not JSON, or not UTF-8; the constants NaN and Infinity, which Python would take, are not JSON.
    """
    # Decoded here, because the json module would guess at UTF-16 and UTF-32 too.
    return json.loads(text.decode("utf-8"), parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


def from_text(text: bytes) -> str:
    """Return the text.

    Raises:
        ValueError: It is not UTF-8.
    """
    return text.decode("utf-8")


def records(read: Callable[[int], bytes], separator: bytes, limit: int | None) -> Iterator[bytes]:
    """Split a stream at a separator of one byte, as it comes in; what follows the last one is a record unless empty.

    Args:
        read: Returns at most so many bytes, without waiting for more than the first of them; none at the end.
        separator: Ends each record.
        limit: Once a record without an end is longer than this, in bytes, it is handed over as it is, so that endless
            input does not fill the memory.
    """
    rest = bytearray()
    while chunk := read(65536):
        first, *others = chunk.split(separator)
        rest += first
        for other in others:
            yield bytes(rest)
            rest = bytearray(other)
        if limit is not None and len(rest) > limit:
            break
    if rest:
        yield bytes(rest)
