"""Errors for items that cannot be encoded: they show which value it is, where it is, and the way out."""

import array
import dataclasses
import decimal
import enum
import pathlib
import subprocess
import sys
import threading
import uuid
from collections import Counter
from datetime import date, datetime, time, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from ipcq.errors import DecodeError, EncodeError
from ipcq.serializers import codec_for
from processes.needs import library

attrs, msgspec = library("attrs"), library("msgspec")


class Colour(enum.Enum):
    RED = "red"


class Odd(enum.Enum):
    ONE = object()


@dataclasses.dataclass
class Job:
    id: Any


@attrs.define
class Task:
    id: Any


class Order(msgspec.Struct):
    id: Any


class Model:
    """Looks like a model of pydantic."""

    def model_dump(self) -> None: ...


#: Like classes of NumPy, which are recognised by module and name.
NDARRAY = type("ndarray", (), {"__module__": "numpy"})
INT64 = type("int64", (), {"__module__": "numpy"})
DATETIME64 = type("datetime64", (), {"__module__": "numpy"})


class Meta(type):
    """A metaclass that raises when the module of a class is read."""

    def __getattribute__(cls, name: str) -> Any:
        if name == "__module__":
            raise RuntimeError
        return super().__getattribute__(name)


class Raising(metaclass=Meta):
    """An object whose class raises when it is inspected."""


def nested(levels: int) -> object:
    item: object = 0
    for _ in range(levels):
        item = [item]
    return item


WAYS = {
    "UUID": (uuid.UUID(int=1), "put str(…) or its .bytes, or open both ends with serializer='msgspec'"),
    "Decimal": (decimal.Decimal(1), "put str(…), or open both ends with serializer='msgspec'"),
    "set": ({1}, "put list(…) of it, or open both ends with serializer='msgspec'"),
    "frozenset": (frozenset({1}), "put list(…) of it"),
    "date": (date(2024, 1, 1), "put its .isoformat(), or open both ends with serializer='msgspec'"),
    "naive datetime": (datetime(2024, 1, 1), "give it a time zone with .astimezone()"),  # noqa: DTZ001  # that is the case
    "time": (time(1), "put its .isoformat()"),
    "timedelta": (timedelta(1), "put its .total_seconds()"),
    "Enum": (Colour.RED, "put its .value, or open both ends with serializer='msgspec'"),
    "Path": (pathlib.PurePosixPath("x"), "put str(…) or os.fsencode(…) of it"),
    "dataclass": (Job(1), "open both ends with type="),
    "attrs": (Task(1), "or put attrs.asdict(…)"),
    "Struct": (Order(1), "or put msgspec.to_builtins(…)"),
    "pydantic": (Model(), "put its .model_dump(mode='json')"),
    "exception": (ValueError(1), "put repr(…) or traceback.format_exception(…)"),
    "NumPy array": (NDARRAY(), "put its .tolist()"),
    "NumPy scalar": (INT64(), "put its .item()"),
    "NumPy date": (DATETIME64(), "put str(…)"),
    "complex": (1j, "put [z.real, z.imag]"),
    "memoryview": (memoryview(b"abcd")[::2], "put its .tobytes()"),
    "array": (array.array("i"), "put its .tobytes()"),
    "range": (range(3), "put list(…) of it"),
    "generator": (iter(()), "put list(…) of it"),
    "function": (len, "put its name"),
    "class": (int, "put its name"),
    "large int": (2**64, "put it as text or as bytes"),
    "surrogate": ("\udc80", "put text.encode(errors='surrogateescape')"),
    "deep": (nested(5000), "nested too deeply"),
    "object": (object(), "serializer='pickle' with allow_pickle=True"),
    "a lock": (threading.Lock(), "ipcq.serializers.register"),
    "namespace": (SimpleNamespace(), "put a dict or a list of its contents"),
}


def refused(serializer: str, item: object, **options: Any) -> str:
    with pytest.raises(EncodeError) as caught:
        codec_for(serializer, **options).encode(item)
    return str(caught.value)


@pytest.mark.parametrize("what", WAYS)
def test_the_error_names_the_way_out_for_the_type(what: str) -> None:
    """Each type has its own."""
    item, way = WAYS[what]
    assert way in refused("msgpack", item)


@pytest.mark.parametrize("what", ["Path", "exception", "complex", "array", "object", "large int", "surrogate"])
def test_the_error_of_msgspec_does_not_recommend_msgspec(what: str) -> None:
    """msgspec has just refused the item."""
    assert "msgspec'" not in refused("msgspec", WAYS[what][0])


@pytest.mark.parametrize(
    ("item", "place"),
    [
        ({"a": [1, 2.0, None, {3}]}, "set at item['a'][3]"),
        ([[b"x", "ü", {2}]], "set at item[0][2]"),
        ((1, {5: {2}}), "set at item[1][5]"),
        ({"a": {1.5: {2}}}, "set at item['a'][…]"),
        ({frozenset([1]): 1}, "frozenset at a key of item"),
        (Counter({"a": 1, frozenset([1]): 2}), "frozenset at a key of item"),
        ({"x" * 100: {2}}, "xxx']:"),
    ],
)
def test_the_error_shows_where_the_value_is(item: object, place: str) -> None:
    """In a large item, the value would be hard to find."""
    assert place in refused("msgpack", item)


@pytest.mark.parametrize(
    ("item", "place"),
    [
        (Job([1, len]), "item.id[1]"),
        (Task({"a": len}), "item.id['a']"),
        (Order(len), "item.id"),
        ([{len}], "an element of item[0]"),
        (Odd.ONE, "cannot encode this Odd"),
    ],
)
def test_the_error_of_msgspec_shows_values_inside_records_and_sets(item: object, place: str) -> None:
    """msgspec encodes fields of records and elements of sets."""
    assert place in refused("msgspec", item)


def test_a_value_after_very_many_others_is_not_searched_for() -> None:
    """The search is limited; the error then names the whole item."""
    assert "this list (can not serialize 'set' object)" in refused("msgpack", [0] * 5000 + [{1}])


@pytest.mark.parametrize("item", [Raising(), [Raising()]], ids=["bare", "nested"])
def test_an_item_that_raises_when_it_is_inspected_is_an_encode_error(item: object) -> None:
    """The search for a way out never raises."""
    assert "ipcq.serializers.register" in refused("msgpack", item)


@pytest.mark.parametrize(
    ("item", "way"),
    [("text", "put text.encode()"), ([1], "encode it first"), ([1], "without serializer='raw'")],
)
def test_the_error_of_raw_has_a_way_out(item: object, way: str) -> None:
    """It takes only bytes."""
    assert way in refused("raw", item)


def test_the_error_of_pickle_has_a_way_out() -> None:
    """The usual cause is a function inside a function."""
    assert "at the top level of a module" in refused("pickle", lambda: None, allow_pickle=True)


@pytest.mark.parametrize("serializer", ["msgpack", "msgspec"])
def test_the_error_for_a_message_that_is_not_messagepack_suggests_raw(serializer: str) -> None:
    """The producer may use serializer='raw'."""
    with pytest.raises(DecodeError, match="open with serializer='raw'"):
        codec_for(serializer).decode(b"hello")


def test_the_ways_out_are_not_imported_before_they_are_needed() -> None:
    """Most programs never see an EncodeError."""
    code = (
        "import sys, ipcq.serializers as s; s.codec_for('msgpack'); "
        "print('ipcq.serializers._encode_errors' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
