"""Serializers: what cannot be encoded or decoded."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from core import serializing
from core.serializing import Hostile
from ipcq.errors import DecodeError, EncodeError
from ipcq.serializers import codec_for

each_way, own_registrations = serializing.each_way, serializing.own_registrations


# Encoding errors


class Raising(list[int]):
    """A list that raises during iteration."""

    def __init__(self, error: BaseException) -> None:
        super().__init__([1])
        self.error = error

    def __iter__(self) -> Iterator[int]:
        raise self.error

    def __reduce_ex__(self, protocol: object) -> Any:
        raise self.error

    def __getitem__(self, index: object) -> Any:
        raise self.error


def endless() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


BAD: dict[str, Callable[[], object]] = {
    "an object": object,
    "a set of objects": lambda: {object()},
    "a class": lambda: int,
    "a function": lambda: len,
    "a number too large": lambda: 2**64,
    "a number too small": lambda: -(2**63) - 1,
    "a lone surrogate": lambda: "\ud800",
    "a key with a lone surrogate": lambda: {"\ud800": 1},
    "a list in itself": endless,
    "a bad thing deep inside": lambda: [{"a": [object()]}],
    "a complex number": lambda: 1j,
}


@pytest.mark.parametrize("serializer", ["msgpack", "msgspec", "raw"])
@pytest.mark.parametrize("bad", BAD)
def test_an_item_that_cannot_be_encoded_is_an_encode_error(serializer: str, bad: str) -> None:
    """C6: overflow, recursion, bad Unicode and unknown classes all raise EncodeError."""
    if (serializer, bad) == ("msgspec", "a complex number"):
        pytest.skip("msgspec writes complex numbers as text")
    with pytest.raises(EncodeError):
        codec_for(serializer).encode(BAD[bad]())


@pytest.mark.parametrize(
    "error", [ValueError("no"), RuntimeError(), OSError(5, "no"), MemoryError(), RecursionError(), KeyError("k")]
)
def test_an_exception_of_an_items_own_code_is_an_encode_error(error: Exception) -> None:
    """C6: methods of an item may raise any exception."""
    with pytest.raises(EncodeError) as caught:
        codec_for("msgpack").encode(Raising(error))
    assert caught.value.__cause__ is error


def test_a_naive_time_is_an_encode_error() -> None:
    """Without a time zone, another process cannot interpret it."""
    with pytest.raises(EncodeError, match="MessagePack cannot hold this datetime"):
        codec_for("msgpack").encode(datetime(2024, 1, 1))  # noqa: DTZ001


def test_an_interrupt_is_not_an_encode_error() -> None:
    """C12: Ctrl-C passes through an encoder."""
    with pytest.raises(KeyboardInterrupt):
        codec_for("msgpack").encode(Raising(KeyboardInterrupt()))


def test_an_encode_error_names_the_items_class() -> None:
    """The text shows what cannot be encoded."""
    with pytest.raises(EncodeError, match="not Hostile"):
        codec_for("raw").encode(Hostile(ValueError()))


def test_an_encoder_works_after_an_error() -> None:
    """C6: the next message has nothing of the failed one."""
    codec = codec_for("msgpack")
    with pytest.raises(EncodeError):
        codec.encode([1, 2, object()])
    assert codec.encode([3]) == b"\x91\x03"


@pytest.mark.parametrize("item", ["text", 5, None, [b"a"], object()])
def test_raw_takes_only_bytes(item: object) -> None:
    """Anything but bytes, bytearray and memoryview raises EncodeError."""
    with pytest.raises(EncodeError, match="takes bytes, bytearray or memoryview, not"):
        codec_for("raw").encode(item)


@pytest.mark.parametrize("item", [b"\xc1\x01", bytearray(b"\xc1\x01"), memoryview(b"\xc1\x01")])
def test_raw_adds_nothing(item: Any) -> None:
    """The other end may be a C program."""
    assert codec_for("raw").encode(item) == b"\xc1\x01"


def test_raw_reads_bytes_that_look_like_a_mark() -> None:
    """A raw handle decodes nothing."""
    assert codec_for("raw").decode(b"\xc1\x01anything") == b"\xc1\x01anything"


# Decoding errors


@pytest.mark.parametrize("serializer", ["msgpack", "msgspec"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc4",
        b"\xc4\x02x",
        b"\xc4\x00x",
        b"\xa5abc",
        b"\x93\x01",
        b"\x01\x02",
        b"\xd7\xff" + b"\xff" * 8,
        b"\x91" * 100_000 + b"\x01",
        b"\xdd\xff\xff\xff\xff",
    ],
    ids=[
        *("empty", "a head alone", "cut off", "too long", "cut text", "cut list", "two items"),
        *("no such time", "too deep", "a list of 4 Gi"),
    ],
)
def test_a_message_that_cannot_be_decoded_is_a_decode_error_with_its_bytes(serializer: str, data: bytes) -> None:
    """C6: the error has the bytes of the message."""
    with pytest.raises(DecodeError) as caught:
        codec_for(serializer).decode(data)
    assert caught.value.data == data
