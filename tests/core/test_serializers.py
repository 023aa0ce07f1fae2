"""Serializers: items to bytes and back, with a Packer that is reused, and in C."""

import enum
import errno
import importlib
import inspect
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings, strategies

from core import serializing
from core.conftest import Run
from core.serializing import Point, reversing
from ipcq import serializers
from ipcq.errors import DecodeError, EncodeError, Unsupported
from ipcq.serializers import Codec, _in_c, _msgpack, codec_for

each_way, own_registrations = serializing.each_way, serializing.own_registrations

LENGTHS = (0, 1, 255, 256, 65535, 65536)


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
        __class__ = bytes

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
