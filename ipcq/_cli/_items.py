"""Conversion between items and text for stdin and stdout.

Every item becomes exactly one line of valid JSON. What JSON cannot express is written as ``{"$base64": …}`` for bytes,
``{"$float": "nan"}`` (``inf``, ``-inf``), ``{"$map": [[key, value], …]}`` for a map with keys that are not strings, the
ISO 8601 text for dates and times, a list for sets, and ``{"$repr": …}`` for anything else.
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

# MessagePack nests up to 1,024 levels, and each level takes a few Python frames.
RECURSION_LIMIT = 10_000

# reprlib limits the depth and survives a repr that raises.
_SHORT_REPR = reprlib.Repr()
_SHORT_REPR.maxother = _SHORT_REPR.maxstring = 10_000


@contextmanager
def deep_items() -> Iterator[None]:
    """Raise the recursion limit for items nested as deeply as a serializer allows."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, RECURSION_LIMIT))
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
        # A lone surrogate, possible only in a pickle, has no UTF-8 form.
        return item.encode("utf-8", "backslashreplace")
    if isinstance(item, bytes | bytearray):
        return bytes(item)
    return as_json(item)


def as_json(item: Any) -> bytes:
    """Return the item as one line of JSON."""
    try:
        text = json.dumps(_as_jsonable(item), ensure_ascii=False, allow_nan=False)
    except RecursionError:  # a pickle can contain itself
        text = json.dumps({"$repr": _SHORT_REPR.repr(item)})
    # A lone surrogate has no UTF-8 form and becomes its JSON escape.
    return text.encode("utf-8", "backslashreplace")


def _as_jsonable(item: Any) -> Any:
    if item is None or isinstance(item, str | int):
        return item
    if isinstance(item, float):
        return item if math.isfinite(item) else {"$float": str(item)}
    if isinstance(item, bytes | bytearray):
        return {"$base64": base64(item)}
    if isinstance(item, list | tuple | set | frozenset):
        return [_as_jsonable(element) for element in item]
    if isinstance(item, dict):
        if all(isinstance(key, str) for key in item):
            return {key: _as_jsonable(value) for key, value in item.items()}
        return {"$map": [[_as_jsonable(key), _as_jsonable(value)] for key, value in item.items()]}
    if isinstance(item, datetime | date | time):
        return item.isoformat()
    return {"$repr": _SHORT_REPR.repr(item)}


def from_json(text: bytes) -> Any:
    """Parse a JSON text.

    Raises:
        ValueError: It is not JSON or not UTF-8. NaN and Infinity, which Python accepts, are not JSON.
    """
    # Decode here: the json module would also guess UTF-16 and UTF-32.
    return json.loads(text.decode("utf-8"), parse_constant=_no_constant)


def _no_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")


def from_text(text: bytes) -> str:
    """Decode UTF-8 text.

    Raises:
        ValueError: It is not UTF-8.
    """
    return text.decode("utf-8")


def records(read: Callable[[int], bytes], separator: bytes, limit: int | None) -> Iterator[bytes]:
    """Split a stream at a one-byte separator as data arrives. Bytes after the last separator are a record, if any.

    Args:
        read: Returns at most the given number of bytes, blocks only until one is available, and returns b"" at the end.
        separator: The byte that ends a record.
        limit: Yield an unfinished record as soon as it exceeds this many bytes, and stop. Bounds memory for endless
            input. None: no limit.
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
