"""Serializers: handles with `type=`."""

import pathlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypedDict

import pytest

from core import serializing
from core.conftest import Run
from core.serializing import msgspec, reversing
from ipcq.errors import DecodeError, EncodeError, InvalidArgument
from ipcq.serializers import _typed, codec_for

each_way, own_registrations = serializing.each_way, serializing.own_registrations


@dataclass
class Job:
    id: int
    tags: list[str]


class Ticket(TypedDict):
    id: int


class Order(msgspec.Struct):
    id: int


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        (Job, Job(1, ["a"])),
        (Ticket, {"id": 1}),
        (Order, Order(1)),
        (int, 5),
        (bytes, b"abc"),
        (list[int], [1, 2]),
        (int | None, None),
        (datetime, datetime(2024, 1, 1, tzinfo=UTC)),
        (tuple[int, str], (1, "a")),
    ],
)
@pytest.mark.parametrize("serializer", ["msgpack", "msgspec"])
def test_a_typed_handle_returns_items_of_its_type(serializer: str, kind: Any, item: object) -> None:
    """With type=, dataclasses and structs come back as such."""
    codec = codec_for(serializer, type=kind)
    assert codec.decode(codec.encode(item)) == item


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (int, b"\xc4\x01x"),
        (str, b"\xc4\x01x"),
        (Job, b"\xc4\x01x"),
        (Job, b"\x81\xa2id\xa1x"),
        (Job, b"\x80"),
        (int, b"\xa1x"),
        (bytes, b"\x05"),
        (bytes, b""),
    ],
)
def test_a_message_of_another_type_is_a_decode_error(kind: Any, data: bytes) -> None:
    """Every message is checked against the type, even short bytes."""
    with pytest.raises(DecodeError) as caught:
        codec_for("msgpack", type=kind).decode(data)
    assert caught.value.data == data


@pytest.mark.parametrize("serializer", ["raw", "pickle", "reverse", "nonesuch"])
def test_a_type_needs_msgspec(serializer: str) -> None:
    """The other serializers do not support types."""
    reversing()
    with pytest.raises(InvalidArgument, match="type= needs serializer='msgspec'"):
        codec_for(serializer, allow_pickle=True, type=int)


@dataclass
class Dangling:
    id: "Missing"  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("kind", ["int", 5, Dangling, list["Missing"]])  # type: ignore[name-defined]  # noqa: F821
def test_an_unsupported_type_is_refused(kind: Any) -> None:
    """The text has the error of msgspec."""
    with pytest.raises(InvalidArgument, match="msgspec cannot decode type="):
        codec_for("msgpack", type=kind)


@pytest.mark.parametrize("options", ["serializer='msgspec'", "type=int"])
def test_without_msgspec_the_refusal_names_the_extra(run: Run, options: str) -> None:
    """A missing library raises Unsupported with the command to install it."""
    said = run(
        f"""
        import sys
        sys.modules["msgspec"] = None
        import ipcq
        try:
            ipcq.open("/jobs", "memory", {options})
        except ipcq.Unsupported as error:
            print(error)
        """
    )
    assert said == (
        "queue '/jobs' on backend 'memory': type= and serializer='msgspec' need msgspec: "
        "pip install 'ipcq-queue[msgspec]'"
    )


def test_without_msgspec_the_default_works(run: Run) -> None:
    """Only programs that request msgspec need it."""
    assert run(
        """
        import sys
        sys.modules["msgspec"] = None
        import ipcq
        with ipcq.open("/jobs", "memory") as queue:
            queue.put({"id": 1})
            print(queue.get())
        """
    ) == str({"id": 1})


@dataclass
class SubJob(Job):
    extra: int = 0


@dataclass
class OtherJob:
    id: int
    tags: list[str]


class Tagged(msgspec.Struct, tag=True):
    id: int


class Union1(msgspec.Struct, tag=True):
    part: Job


@pytest.mark.parametrize(
    ("kind", "item", "words"),
    [
        (Job, SubJob(1, []), "SubJob"),
        (Job, OtherJob(1, []), "OtherJob"),
        (Job, Order(1), "Order"),
        (Job, Job("x", []), "got `str`"),  # type: ignore[arg-type]  # that is the case
        (Job, {"id": 1, "tags": [], "more": 2}, "'more'"),
        (list[Job], [Job(1, []), SubJob(1, [])], "a value in item"),
        (dict[str, Job], {"a": SubJob(1, [])}, "SubJob"),
        (Union1, Union1(SubJob(1, [])), "item.part"),
        (int, "x", "got `str`"),
        (Tagged, {"type": "Tagged", "id": 1, "x": 1}, "'x'"),
    ],
)
def test_an_item_that_is_not_of_the_type_is_an_encode_error(kind: Any, item: object, words: str) -> None:
    """C33: `put` refuses another class, and no field is dropped silently."""
    with pytest.raises(EncodeError, match=words):
        codec_for("msgpack", type=kind).encode(item)


@pytest.mark.parametrize(
    ("kind", "item", "back"),
    [
        (Job, {"id": 1, "tags": []}, Job(1, [])),
        (Job, {"tags": [], "id": 1}, Job(1, [])),
        (Tagged, {"id": 1, "type": "Tagged"}, Tagged(1)),
        (float, 1, 1.0),
        (list[float], (1, 2.5), [1.0, 2.5]),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
        (frozenset[int], frozenset({1, 2, 3}), frozenset({1, 2, 3})),
        (dict[str, Any], Job(1, []), {"id": 1, "tags": []}),
        (object, [1], [1]),
        (Any, {(1,): 2}, {(1,): 2}),
    ],
)
def test_an_item_that_can_be_converted_to_the_type_is_put(kind: Any, item: object, back: object) -> None:
    """No part of it is lost."""
    codec = codec_for("msgpack", type=kind)
    assert codec.decode(codec.encode(item)) == back


def test_a_lack_of_memory_while_a_type_is_checked_is_not_an_encode_error() -> None:
    """C36: the item can be put later."""

    def unpack(_: bytes) -> object:
        raise MemoryError

    with pytest.raises(MemoryError):
        _typed.encoder(int, msgspec.msgpack.encode, unpack)(1)


@dataclass
class WithPath:
    path: pathlib.Path | None
    inner: "WithPath | None" = None


class Model:
    """Looks like a model of pydantic."""

    def model_dump(self) -> None: ...


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        (WithPath, "use str"),
        (Model, "model_validate"),
        (list[Model], "model_validate"),
        (dict[str, complex], "use a dataclass"),
        (Counter, "use a dataclass"),
        (tuple[int, Callable[[], None]], "use a dataclass"),
    ],
)
def test_a_type_that_cannot_be_decoded_is_refused_when_opening(kind: Any, way: str) -> None:
    """C33: the error is not raised only at the first put."""
    with pytest.raises(InvalidArgument, match=way):
        codec_for("msgpack", type=kind)
