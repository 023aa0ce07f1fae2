"""Serializers: items to bytes and back, and what a handle refuses to decode."""

import enum
import errno
import importlib
import inspect
import os
import pathlib
import pickle
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple, TypedDict

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings, strategies

from core.conftest import Run
from ipcq import serializers
from ipcq.errors import DecodeError, EncodeError, InvalidArgument, Unsupported
from ipcq.serializers import FIRST_FREE_NUMBER, Codec, _frame, _in_c, _msgpack, _typed, codec_for, register
from processes.needs import library

msgspec = library("msgspec")

LENGTHS = (0, 1, 255, 256, 65535, 65536)


@pytest.fixture(autouse=True, params=["in C", "in Python"] if _in_c.COMPILED else ["in Python"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with the codec in C and without it, here and in the programs that it starts."""
    monkeypatch.setenv("IPCQ_SHORTCUTS", "1" if request.param == "in C" else "0")


@pytest.fixture(autouse=True)
def _own_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serializers, "_registered", {})


def reversing(number: int = 1001, name: str = "reverse") -> None:
    """Register a serializer that reverses bytes."""
    register(number, name, lambda item: item[::-1], lambda data: data[::-1])


# The fast path of bytes


@pytest.mark.parametrize("length", LENGTHS)
def test_bytes_of_the_fast_path_are_plain_messagepack(length: int) -> None:
    """The other end may be any program that reads MessagePack."""
    assert msgpack.unpackb(codec_for("msgpack").encode(b"x" * length)) == b"x" * length


@pytest.mark.parametrize("length", LENGTHS)
def test_the_fast_path_of_bytes_writes_the_same_header_as_msgpack(length: int) -> None:
    """Its output equals that of a Packer."""
    assert codec_for("msgpack").encode(b"x" * length) == msgpack.packb(b"x" * length)


@pytest.mark.parametrize("serializer", ["msgpack", "msgspec", "raw"])
@pytest.mark.parametrize("length", LENGTHS)
def test_bytes_come_back(serializer: str, length: int) -> None:
    """The lengths are the first and last of each header."""
    codec = codec_for(serializer)
    assert codec.decode(codec.encode(b"x" * length)) == b"x" * length


@pytest.mark.parametrize(
    "data", [b"\xc5\x00\x01x", b"\xc6\x00\x00\x00\x01x"], ids=["bin 16 of one byte", "bin 32 of one byte"]
)
def test_bytes_with_a_longer_header_than_needed_are_read(data: bytes) -> None:
    """Other programs may choose the longer header."""
    assert codec_for("msgpack").decode(data) == b"x"


def test_bytes_that_messagepack_cannot_hold_do_not_take_the_fast_path() -> None:
    """From 4 GiB there is no header, which raises EncodeError."""

    class Huge:
        __class__ = bytes  # type: ignore[assignment]

        def __len__(self) -> int:
            return 1 << 32

    with pytest.raises(EncodeError):
        codec_for("msgpack").encode(Huge())


@pytest.mark.parametrize("item", [bytearray(b"ab"), memoryview(b"ab")])
def test_buffers_come_back_as_bytes(item: object) -> None:
    """On the wire, all kinds of buffers are the same."""
    codec = codec_for("msgpack")
    assert codec.decode(codec.encode(item)) == b"ab"


# Items


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize("serializer", ["msgpack", "msgspec"])
@pytest.mark.parametrize(
    ("item", "back"),
    [
        (None, None),
        (True, True),
        (0, 0),
        (-(2**63), -(2**63)),
        (2**64 - 1, 2**64 - 1),
        (1.5, 1.5),
        ("ü🐍", "ü🐍"),
        ("", ""),
        ([], []),
        ({}, {}),
        ((1, (2, 3)), [1, [2, 3]]),
        ({1: "a", None: 2, "b": 3, b"c": 4, 1.5: 5}, {1: "a", None: 2, "b": 3, b"c": 4, 1.5: 5}),
        (Point(1, 2), [1, 2]),
        (Colour.RED, 1),
        (datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC), datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)),
        (datetime(1969, 7, 20, tzinfo=UTC), datetime(1969, 7, 20, tzinfo=UTC)),
        (
            datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
            datetime(2024, 1, 1, 0, tzinfo=UTC),
        ),
    ],
)
def test_an_item_comes_back(serializer: str, item: object, back: object) -> None:
    """Tuples come back as lists, times as aware datetimes in UTC, and keys may be anything hashable."""
    codec = codec_for(serializer)
    assert codec.decode(codec.encode(item)) == back


def test_a_time_comes_back_as_a_datetime() -> None:
    """It is not msgpack's own class: a producer could choose its hash."""
    decoded = codec_for("msgpack").decode(msgpack.packb(msgpack.Timestamp(5)))
    assert type(decoded) is datetime


def test_msgpack_and_msgspec_have_the_same_wire_format() -> None:
    """Either end may use either library."""
    item = {"id": 1, "tags": ["a", b"b"], "at": datetime(2024, 1, 1, tzinfo=UTC)}
    assert codec_for("msgspec").decode(codec_for("msgpack").encode(item)) == item


# Encoding errors


class Hostile:
    """An object whose methods raise when it is encoded."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __iter__(self) -> Iterator[Any]:
        raise self.error

    def __reduce__(self) -> Any:
        raise self.error


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


# Keys, times and types that the other end might refuse


class Frozen(dict[str, int]):
    """A dict that can be a key."""

    def __hash__(self) -> int:  # type: ignore[override]  # that is the case
        return 0


@pytest.mark.parametrize("serializer", ["msgpack", "msgspec"])
@pytest.mark.parametrize("mark", [b"", b"\xc1\x00"], ids=["bare", "marked"])
@pytest.mark.parametrize(
    ("item", "back"),
    [
        ({(0, 1): "wall"}, {(0, 1): "wall"}),
        ({Point(1, 2): 2}, {(1, 2): 2}),
        (Counter([("a", "b"), ("a", "b")]), {("a", "b"): 2}),
        ([{"grid": {((0,), ()): [1]}}], [{"grid": {((0,), ()): [1]}}]),
        ({Frozen(a=1): 1}, {(("a", 1),): 1}),
        ({(Frozen(a=1),): 1}, {((("a", 1),),): 1}),
    ],
)
def test_keys_that_are_arrays_or_maps_come_back_as_tuples(
    serializer: str, mark: bytes, item: object, back: object
) -> None:
    """C33: a dict with tuples as keys, such as a grid or a Counter of bigrams, can be put."""
    codec = codec_for(serializer)
    assert codec.decode(mark + codec.encode(item)) == back


KEYS = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers(-(2**63), 2**64 - 1) | strategies.floats()
    | strategies.text() | strategies.binary() | strategies.datetimes(timezones=strategies.timezones()),
    lambda inner: strategies.tuples(inner, inner) | strategies.builds(Point, inner, inner),
    max_leaves=4,
)  # fmt: skip  # one line for each thing
ITEMS = strategies.recursive(
    KEYS | strategies.dates() | strategies.uuids() | strategies.decimals() | strategies.integers(),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(KEYS, inner) | strategies.frozensets(KEYS),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(serializer=strategies.sampled_from(["msgpack", "msgspec"]), item=ITEMS)
def test_what_is_encoded_can_be_decoded(serializer: str, item: object) -> None:
    """C33: `put` refuses what `get` could not return."""
    codec = codec_for(serializer)
    with suppress(EncodeError):
        codec.decode(codec.encode(item))


@pytest.mark.parametrize(
    "item",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        [datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5)))],
        msgpack.Timestamp(2**40),
        {msgpack.Timestamp(-(2**62)): 1},
    ],
)
def test_a_time_that_could_not_be_read_is_an_encode_error(item: object) -> None:
    """C33: in UTC, a time may fall into the year 10,000."""
    with pytest.raises(EncodeError, match="years 1 to 9999"):
        codec_for("msgpack").encode(item)


@pytest.mark.parametrize(
    "item", [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC), {(b"\xc7\x0c\xff",): "x"}]
)
def test_bytes_that_look_like_such_a_time_are_not_an_error(item: object) -> None:
    """The bytes that reveal such a time may occur by chance."""
    codec = codec_for("msgpack")
    assert codec.decode(codec.encode(item)) == item


def test_many_keys_with_the_same_hash_are_refused() -> None:
    """C29: a producer must not make decoding take time quadratic in the size of a message."""
    signs = [tuple(-1 - (number >> bit & 1) for bit in range(11)) for number in range(2048)]  # hash(-1) == hash(-2)
    with pytest.raises(DecodeError):
        codec_for("msgpack").decode(msgpack.packb(dict.fromkeys(signs)))


def test_a_few_keys_with_the_same_hash_are_read() -> None:
    """C33: this happens by chance."""
    signs = [tuple(-1 - (number >> bit & 1) for bit in range(5)) for number in range(32)]
    assert codec_for("msgpack").decode(msgpack.packb(dict.fromkeys(signs))) == dict.fromkeys(signs)


@pytest.mark.parametrize("first", [MemoryError, TypeError])
@pytest.mark.parametrize("data", [b"\x81\x90\x01", b"\xc1\x00\x81\x90\x01"], ids=["bare", "marked"])
def test_a_lack_of_memory_while_keys_are_read_is_not_a_decode_error(first: type[Exception], data: bytes) -> None:
    """C36: the message may be decoded later."""
    errors = iter([first, first, MemoryError])

    def decode(_: bytes) -> object:
        raise next(errors)

    def again(_: bytes) -> object:
        raise MemoryError

    thorough = serializers._with_any_keys(decode, again)
    with pytest.raises(MemoryError):
        serializers._unframing(decode, thorough, {0: thorough}, typed=False)(data)


@pytest.mark.parametrize("data", [b"\x81\x90", b"\x81\x81\x90\x01"])
def test_broken_keys_are_a_decode_error_with_its_bytes(data: bytes) -> None:
    """C6: the same holds for any other message."""
    with pytest.raises(DecodeError) as caught:
        codec_for("msgpack").decode(data)
    assert caught.value.data == data


# The frame


@pytest.mark.parametrize(
    ("number", "mark"),
    [
        (0, b"\xc1\x00"),
        (1, b"\xc1\x01"),
        (127, b"\xc1\x7f"),
        (128, b"\xc1\x80\x01"),
        (1001, b"\xc1\xe9\x07"),
        (16383, b"\xc1\xff\x7f"),
        (16384, b"\xc1\x80\x80\x01"),
        (2**32 - 1, b"\xc1\xff\xff\xff\xff\x0f"),
    ],
)
def test_a_number_is_marked_in_leb128(number: int, mark: bytes) -> None:
    """0xC1, then the number as unsigned LEB128."""
    assert _frame.mark(number) == mark


@pytest.mark.parametrize("number", [0, 1, 127, 128, 1001, 16383, 16384, 2**21, 2**28 - 1, 2**28, 2**32 - 1])
def test_a_marked_message_is_split_into_number_and_payload(number: int) -> None:
    """Splitting is the inverse of joining."""
    assert _frame.split(_frame.mark(number) + b"\x80\xffpayload") == (number, b"\x80\xffpayload")


def test_the_payload_may_be_empty() -> None:
    """The number alone is a message with an empty payload."""
    assert _frame.split(b"\xc1\x01") == (1, b"")


def test_a_number_in_more_groups_than_needed_is_read() -> None:
    """LEB128 may be padded up to five groups."""
    assert _frame.split(b"\xc1\x81\x80\x80\x80\x00x") == (1, b"x")


@pytest.mark.parametrize("data", [b"\xc1", b"\xc1\x80", b"\xc1\x80\x80\x80\x80", b"\xc1\xff\xff\xff\xff\xff\x01x"])
def test_a_mark_without_a_number_is_a_decode_error(data: bytes) -> None:
    """A number must end within five groups."""
    with pytest.raises(DecodeError, match="not followed by a serializer's number") as caught:
        codec_for("msgpack").decode(data)
    assert caught.value.data == data


def test_marked_messagepack_is_read() -> None:
    """Number 0 is MessagePack, which every handle decodes."""
    assert codec_for("msgpack").decode(b"\xc1\x00\x91\x05") == [5]


def test_marked_messagepack_that_is_broken_is_a_decode_error() -> None:
    """The text names the serializer."""
    with pytest.raises(DecodeError, match="serializer number 0 cannot decode it"):
        codec_for("msgpack").decode(b"\xc1\x00\x91")


# Registered serializers


@pytest.mark.parametrize("number", [FIRST_FREE_NUMBER, 1002, 65536, 2**32 - 1])
def test_an_item_of_a_registered_serializer_comes_back(number: int) -> None:
    """Numbers from 1001 to 4294967295 are for users."""
    reversing(number)
    codec = codec_for("reverse")
    assert codec.decode(codec.encode(b"abc")) == b"abc"


def test_a_registered_serializer_marks_its_messages() -> None:
    """A message is 0xC1, the number of the serializer, and the encoded bytes."""
    reversing(1001)
    assert codec_for("reverse").encode(b"abc") == b"\xc1\xe9\x07cba"


def test_a_handle_with_a_registered_serializer_reads_messagepack_too() -> None:
    """MessagePack is always allowed."""
    reversing()
    assert codec_for("reverse").decode(b"\x91\x05") == [5]


def test_a_default_handle_does_not_run_a_registered_decoder() -> None:
    """A decoder only runs if the handle allows its number; the text shows how."""
    reversing()
    with pytest.raises(DecodeError, match="encoded by serializer 'reverse': open with serializer='reverse'"):
        codec_for("msgpack").decode(b"\xc1\xe9\x07cba")


def test_an_unknown_number_is_reported() -> None:
    """The text names the number."""
    with pytest.raises(DecodeError, match="encoded by serializer number 1001: register that serializer"):
        codec_for("msgpack").decode(b"\xc1\xe9\x07cba")


@pytest.mark.parametrize("number", [-1, 0, 1, 999, 1000, 2**32, True, 1001.0, "1001", None])
def test_a_number_out_of_range_is_refused(number: Any) -> None:
    """Numbers below 1001 are reserved for ipcq, and a number has at most 32 bits."""
    with pytest.raises(InvalidArgument, match="from 1001 to 4294967295"):
        reversing(number)


def test_a_taken_number_is_refused() -> None:
    """The text names the serializer that has it."""
    reversing(1001, "first")
    with pytest.raises(InvalidArgument, match="number 1001 is taken by 'first'"):
        reversing(1001, "second")


@pytest.mark.parametrize("name", ["msgpack", "msgspec", "pickle", "raw", "first"])
def test_a_taken_name_is_refused(name: str) -> None:
    """A serializer cannot be replaced."""
    reversing(1001, "first")
    with pytest.raises(InvalidArgument, match="is taken"):
        reversing(1002, name)


@pytest.mark.parametrize("name", ["", None, 5, b"mine"])
def test_a_serializer_is_named_by_a_str(name: Any) -> None:
    """The name must be a str that is not empty."""
    with pytest.raises(InvalidArgument, match="name must be a str"):
        reversing(1001, name)


@pytest.mark.parametrize(("encode", "decode"), [(None, bytes), (bytes, 5), ("a", "b")])
def test_a_serializer_must_be_callable(encode: Any, decode: Any) -> None:
    """Encoder and decoder are functions."""
    with pytest.raises(InvalidArgument, match="must be functions"):
        register(1001, "mine", encode, decode)


def test_a_refused_registration_leaves_nothing() -> None:
    """The number is still free afterwards."""
    with pytest.raises(InvalidArgument):
        register(1001, "mine", None, None)  # type: ignore[arg-type]
    reversing(1001, "mine")


@pytest.mark.parametrize("result", ["text", None, 5])
def test_an_encoder_must_return_bytes(result: Any) -> None:
    """Any other result raises EncodeError."""
    register(1001, "bad", lambda item: result, bytes)
    with pytest.raises(EncodeError, match="serializer 'bad' cannot encode this int"):
        codec_for("bad").encode(5)


def test_an_exception_of_a_registered_encoder_is_an_encode_error() -> None:
    """The original exception is its cause."""
    register(1001, "bad", lambda item: 1 // 0, bytes)
    with pytest.raises(EncodeError) as caught:
        codec_for("bad").encode(5)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_exception_of_a_registered_decoder_is_a_decode_error() -> None:
    """The error has the whole message, including its mark."""
    register(1001, "bad", bytes, lambda data: 1 // 0)
    with pytest.raises(DecodeError, match="serializer number 1001") as caught:
        codec_for("bad").decode(b"\xc1\xe9\x07x")
    assert caught.value.data == b"\xc1\xe9\x07x"


@pytest.mark.parametrize("serializer", ["json", "", "MSGPACK", None, 5, [], {}])
def test_an_unknown_serializer_is_refused(serializer: Any) -> None:
    """The text lists the serializers."""
    reversing()
    with pytest.raises(InvalidArgument, match="choose from msgpack, msgspec, pickle, raw, reverse"):
        codec_for(serializer)


# Pickle


def test_writing_pickles_must_be_allowed_explicitly() -> None:
    """C26: serializer='pickle' without allow_pickle=True is refused."""
    with pytest.raises(InvalidArgument, match="allow_pickle=True on both ends"):
        codec_for("pickle")


def test_reading_pickles_must_be_allowed_explicitly() -> None:
    """C26: a default handle does not load a pickle."""
    data = codec_for("pickle", allow_pickle=True).encode({1})
    with pytest.raises(DecodeError, match="open with allow_pickle=True if you trust the producers"):
        codec_for("msgpack").decode(data)


@pytest.mark.parametrize("serializer", ["pickle", "msgpack", "msgspec"])
def test_a_handle_that_allows_pickles_reads_them(serializer: str) -> None:
    """C26: a consumer needs only allow_pickle=True."""
    data = codec_for("pickle", allow_pickle=True).encode({1, 2})
    assert codec_for(serializer, allow_pickle=True).decode(data) == {1, 2}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("serializer", ["pickle", "msgpack", "msgspec"])
def test_a_handle_that_allows_pickles_reads_them_without_a_mark(serializer: str, protocol: int) -> None:
    """C26: other programs write pickles without a mark."""
    data = pickle.dumps({1, 2}, protocol=protocol)
    assert codec_for(serializer, allow_pickle=True).decode(data) == {1, 2}


@pytest.mark.parametrize("serializer", ["msgpack", "msgspec"])
def test_reading_a_pickle_without_a_mark_must_be_allowed_explicitly(serializer: str) -> None:
    """C26: a default handle does not load it."""
    with pytest.raises(DecodeError, match="open with allow_pickle=True if you trust the producers"):
        codec_for(serializer).decode(pickle.dumps({1, 2}))


@pytest.mark.parametrize("data", [b"\x80\x01", b"\x80\x06", b"\x80\xc0"])
def test_bytes_after_an_empty_map_are_not_enough_for_a_pickle(data: bytes) -> None:
    """C26: the second byte has to be the number of a protocol."""
    with pytest.raises(DecodeError, match="not valid MessagePack"):
        codec_for("msgpack", allow_pickle=True).decode(data)


def test_an_empty_map_is_not_a_pickle() -> None:
    """C26: 0x80 alone is MessagePack."""
    assert codec_for("msgpack", allow_pickle=True).decode(b"\x80") == {}


def test_nothing_falls_back_to_pickle() -> None:
    """C26: a MessagePack handle that allows pickles does not write them."""
    with pytest.raises(EncodeError):
        codec_for("msgpack", allow_pickle=True).encode({1, 2})


def test_a_handle_with_a_registered_serializer_may_allow_pickles() -> None:
    """It then allows both numbers."""
    reversing()
    data = codec_for("pickle", allow_pickle=True).encode({1})
    assert codec_for("reverse", allow_pickle=True).decode(data) == {1}


def test_pickles_are_marked_with_number_one() -> None:
    """A pickle begins with 0xC1 and 1, and has protocol 5."""
    assert codec_for("pickle", allow_pickle=True).encode(5) == b"\xc1\x01" + pickle.dumps(5, 5)


def test_an_item_that_cannot_be_pickled_is_an_encode_error() -> None:
    """C6 also holds for pickle."""
    with pytest.raises(EncodeError, match="serializer 'pickle' cannot encode this Hostile"):
        codec_for("pickle", allow_pickle=True).encode(Hostile(ValueError()))


@pytest.mark.parametrize("payload", [b"", b"x", b"\x80\x05", b"cnosuch\nmodule\n."])
def test_a_broken_pickle_is_a_decode_error(payload: bytes) -> None:
    """C6 also holds for reading pickles."""
    with pytest.raises(DecodeError, match="serializer number 1 cannot decode it"):
        codec_for("msgpack", allow_pickle=True).decode(b"\xc1\x01" + payload)


# Types


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


# The reused Packer


def test_one_packer_is_reused() -> None:
    """Creating a Packer costs more than packing a small dict."""
    encode = codec_for("msgpack").encode
    # Items of a class that C leaves to msgpack.
    encode(Point(1, 2))
    before = list(_msgpack._idle)
    encode(Point(3, 4))
    assert before
    assert _msgpack._idle == before


class Nesting(list[int]):
    """A list that encodes something else while it is being encoded."""

    def __init__(self, codec: Codec) -> None:
        super().__init__([1, 2])
        self.codec = codec
        self.inner: list[bytes] = []

    def __iter__(self) -> Iterator[int]:
        self.inner.append(self.codec.encode(["inner"]))
        return super().__iter__()


def test_encoding_within_encoding_keeps_the_outer_message() -> None:
    """C12: the item's own code or a signal handler may encode meanwhile."""
    codec = codec_for("msgpack")
    assert codec.encode(Nesting(codec)) == b"\x92\x01\x02"


def test_encoding_within_encoding_keeps_the_inner_message() -> None:
    """C12: the same holds for the inner one."""
    codec = codec_for("msgpack")
    nesting = Nesting(codec)
    codec.encode(nesting)
    assert set(nesting.inner) == {msgpack.packb(["inner"])}


def test_threads_do_not_mix_their_messages() -> None:
    """C21: any number of threads may encode at the same time."""
    codec = codec_for("msgpack")
    wrong: list[object] = []
    begin = threading.Barrier(4)

    def encode(number: int) -> None:
        item = {"number": number, "filler": ["x" * number] * 20}
        expected = msgpack.packb(item)
        begin.wait()
        wrong.extend(data for data in (codec.encode(item) for _ in range(2000)) if data != expected)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=encode, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


def test_libraries_are_imported_at_their_first_use(run: Run) -> None:
    """`import ipcq` imports neither msgpack nor msgspec."""
    said = run("import sys, ipcq; print([name for name in ('msgpack', 'msgspec') if name in sys.modules])")
    assert said == "[]"


def test_a_missing_msgspec_is_unsupported_when_its_serializer_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as above, step by step in one process."""
    monkeypatch.delitem(sys.modules, "ipcq.serializers._msgspec", raising=False)
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(Unsupported, match=r"pip install 'ipcq-queue\[msgspec\]'"):
        codec_for("msgspec")


# MessagePack in C


def anew(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import `ipcq.serializers._in_c` again."""
    monkeypatch.delitem(sys.modules, "ipcq.serializers._in_c")
    monkeypatch.delattr(serializers, "_in_c")
    return importlib.import_module("ipcq.serializers._in_c")


def test_without_the_extension_python_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The install succeeds without a compiler."""
    monkeypatch.delattr("ipcq._native", raising=False)
    monkeypatch.setitem(sys.modules, "ipcq._native", None)
    monkeypatch.setattr(serializers, "in_c", anew(monkeypatch).in_c)
    codec = codec_for("msgpack")
    assert inspect.isfunction(codec.encode)
    assert codec.decode(codec.encode({"id": [1, None]})) == {"id": [1, None]}


def test_a_codec_in_c_that_cannot_be_loaded_now_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: a later import succeeds, once a descriptor is free again."""

    class Full:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "ipcq._native":
                raise ImportError(f"_native.so: cannot open shared object file: {os.strerror(errno.EMFILE)}")

    monkeypatch.delattr("ipcq._native", raising=False)
    monkeypatch.delitem(sys.modules, "ipcq._native", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Full(), *sys.meta_path])
    with pytest.raises(ImportError, match="_native"):
        anew(monkeypatch)


@pytest.mark.skipif(not _in_c.COMPILED, reason="Windows has no C extension of ipcq, and neither does macOS")
@pytest.mark.parametrize("serializer", ["pickle", "reverse"])
def test_c_is_used_only_for_formats_that_it_knows(serializer: str) -> None:
    """Other serializers run as they are."""
    reversing()
    assert inspect.isfunction(codec_for(serializer, allow_pickle=True).decode)


@pytest.mark.parametrize("data", [b"\x01", b"\xc1\x05\x01"], ids=["bare", "marked"])
def test_a_lack_of_memory_is_not_a_decode_error(data: bytes) -> None:
    """C36: the message may be decoded later."""

    def decode(_: bytes) -> object:
        raise MemoryError

    with pytest.raises(MemoryError):
        serializers._unframing(decode, decode, {5: decode}, typed=False)(data)
