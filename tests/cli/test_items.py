"""Items as text and JSON, and streams as records."""

import json
import math
from collections import namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from ipcq._cli import _items

Pair = namedtuple("Pair", "first second")


class Odd:
    """An object that JSON cannot express."""

    def __repr__(self) -> str:
        return "<odd>"


class Broken:
    """An object whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("item", "line"),
    [
        (None, "null"),
        (True, "true"),
        ("ü", '"ü"'),
        (1.5, "1.5"),
        (math.nan, '{"$float": "nan"}'),
        (-math.inf, '{"$float": "-inf"}'),
        (b"\x00\xff", '{"$base64": "AP8="}'),
        (bytearray(b"a"), '{"$base64": "YQ=="}'),
        ([1, (2,), {3}], "[1, [2], [3]]"),
        (Pair(1, b"a"), '[1, {"$base64": "YQ=="}]'),
        ({"a": b"a"}, '{"a": {"$base64": "YQ=="}}'),
        ({1: "a", "1": "b"}, '{"$map": [[1, "a"], ["1", "b"]]}'),
        (datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), '"2024-01-02T03:04:05+00:00"'),
        (date(2024, 1, 2), '"2024-01-02"'),
        (Odd(), '{"$repr": "<odd>"}'),
        ("\udc80", '"\\udc80"'),
        ("two\nlines", '"two\\nlines"'),
    ],
)
def test_each_item_has_one_line_of_json(item: Any, line: str) -> None:
    """An item that JSON cannot express has a documented stand-in."""
    assert _items.as_json(item).decode() == line


def test_item_without_a_repr_has_a_line_too() -> None:
    """A pickle may contain anything; the item was taken, so it is printed."""
    assert "Broken" in json.loads(_items.as_json(Broken()))["$repr"]


def test_item_that_contains_itself_has_a_line_too() -> None:
    """A pickle may contain that as well."""
    endless: list[Any] = []
    endless.append(endless)
    assert "$repr" in json.loads(_items.as_json(endless))


def test_deepest_item_of_messagepack_is_printed_whole() -> None:
    """A message may nest 1,024 levels, more than Python's recursion limit allows."""
    item: list[Any] = []
    for _ in range(1023):
        item = [item]
    with _items.deep_items():
        assert _items.as_json(item) == b"[" * 1024 + b"]" * 1024


@pytest.mark.parametrize(("item", "text"), [("ü", "ü".encode()), (b"\xff", b"\xff"), ({"a": 1}, b'{"a": 1}')])
def test_text_items_are_printed_unchanged(item: Any, text: bytes) -> None:
    """Text and bytes are printed unchanged, other items as JSON."""
    assert _items.as_text(item) == text


@pytest.mark.parametrize("text", [b"NaN", b"-Infinity", b"{", b'"\xff"', '"a"'.encode("utf-16")])
def test_invalid_json_is_refused(text: bytes) -> None:
    """JSON has to be in UTF-8."""
    with pytest.raises(ValueError):
        _items.from_json(text)


def reader(*chunks: bytes) -> Callable[[int], bytes]:
    """Return a stream's read function that returns these chunks."""
    rest = iter(chunks)
    return lambda size: next(rest, b"")


@pytest.mark.parametrize(
    ("chunks", "records"),
    [
        ([], []),
        ([b"a\nb\n"], [b"a", b"b"]),
        ([b"a\nb"], [b"a", b"b"]),
        ([b"a", b"b\nc", b"", b"d"], [b"ab", b"c"]),
        ([b"\n\na\n"], [b"", b"", b"a"]),
        ([b"a\r\n"], [b"a\r"]),
    ],
)
def test_stream_is_split_wherever_its_chunks_end(chunks: list[bytes], records: list[bytes]) -> None:
    """A record may come in pieces, and the last one without its end."""
    assert list(_items.records(reader(*chunks), b"\n", None)) == records


def test_record_is_handed_over_before_the_next_chunk_is_read() -> None:
    """A line of a slow pipe does not wait for the next one."""
    read: list[int] = []

    def slow(size: int) -> bytes:
        read.append(size)
        return b"line\n"

    next(_items.records(slow, b"\n", None))
    assert len(read) == 1


def test_endless_record_ends_at_the_limit() -> None:
    """``ipcq put /x < /dev/zero`` must not fill the memory."""
    (record,) = _items.records(lambda size: b"x" * 100, b"\n", 250)
    assert len(record) == 300
