"""Serializers: messages of arrays that are damaged, or made to do harm."""

import array
import sys
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings, strategies

from ipcq.errors import DecodeError
from ipcq.serializers import _arrays, _keys, codec_for

NDARRAY, SCALAR, ARRAY, MEMORYVIEW = range(96, 100)


def frame(structure: object, buffers: bytes = b"") -> bytes:
    """Return a message of a structure and what follows it."""
    packed = msgpack.packb(structure)
    head = b"\xc1\x02\x01\x00" + len(packed).to_bytes(4, "little") + packed
    return head + bytes(-len(head) % 64) + buffers if buffers else head


def stands(code: int, *parts: object) -> msgpack.ExtType:
    """Return an extension that stands for an array."""
    return msgpack.ExtType(code, msgpack.packb(parts))


def decode(message: bytes) -> Any:
    return codec_for("arrays").decode(message)


def refused(message: bytes) -> str:
    """Return the text of the error."""
    with pytest.raises(DecodeError) as caught:
        decode(message)
    assert caught.value.data == message
    return str(caught.value)


VALID = frame(stands(NDARRAY, 0, "<i4", [2], "C"), bytes(8))


def test_a_valid_message_is_decoded() -> None:
    """Otherwise the tests below prove nothing."""
    assert decode(VALID).tolist() == [0, 0]


@pytest.mark.parametrize("length", [*range(2, 9), 20, 40, 60, 64, 71])
def test_a_truncated_message_is_refused(length: int) -> None:
    """Wherever it ends."""
    assert "'arrays' cannot decode it" in refused(VALID[:length])


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"\xc1\x02\x01", "its head is truncated"),
        (b"\xc1\x02\x01\x00\xff\xff\xff\xff", "its structure is truncated"),
        (b"\xc1\x02\x02\x00" + VALID[4:], "it is of version 2, and this release reads version 1"),
        (b"\xc1\x02\x01\x01" + VALID[4:], "it is of version"),
        (b"\xc1\x82\x00\x01" + VALID[3:], "it is of version"),
        (VALID + b"\0", "it goes on after its last buffer"),
        (frame(1) + b"x", "it goes on after"),
        (frame([[[stands(NDARRAY)]]]), "not enough values to unpack"),
        (frame(msgpack.ExtType(NDARRAY, b"")), "incomplete input"),
        (frame(msgpack.ExtType(NDARRAY, b"\x05")), "cannot unpack"),
        (frame(stands(NDARRAY, 0, "<i4", [2], "C", 1), bytes(8)), "too many values"),
    ],
)
def test_a_broken_frame_is_refused(message: bytes, words: str) -> None:
    """The text says what is wrong."""
    assert words in refused(message)


@pytest.mark.parametrize("code", [NDARRAY, MEMORYVIEW])
@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([3], "a buffer ends at 76, and the message at 72"),
        ([1], "it goes on after its last buffer"),
        ([-2], "has the shape"),
        ([-1, -2], "has the shape"),
        ([2**62, 4], "a buffer ends at"),
        ([2**32, 2**32], "a buffer ends at"),
        ([2**63, 0], "cannot decode it"),
        ([0, 2**64 - 1], "cannot decode it"),
        ([1] * 70 + [2], "cannot decode it"),
        ([2.0], "has the shape"),
        ([True, 2], "has the shape"),
        ([None], "has the shape"),
        (2, "has the shape"),
        ("2", "has the shape"),
        ({}, "has the shape"),
    ],
    ids=str,
)
def test_an_impossible_shape_is_refused(code: int, shape: object, words: str) -> None:
    """Its product is not limited to 64 bits."""
    assert words in refused(frame(stands(code, 0, "<i4", shape, "C" if code == NDARRAY else "i"), bytes(8)))


@pytest.mark.parametrize("start", [1, 64, -64, 2**64 - 1, 0.0, None, False, "0"])
def test_a_buffer_at_another_place_is_refused(start: object) -> None:
    """Buffers follow each other, so that none overlaps."""
    assert "and should be at 0" in refused(frame(stands(NDARRAY, start, "<i4", [2], "C"), bytes(72)))


def test_overlapping_buffers_are_refused() -> None:
    """Each has its own place."""
    one = stands(NDARRAY, 0, "<i4", [2], "C")
    assert "a buffer is at 0 and should be at 64" in refused(frame([one, one], bytes(72)))


@pytest.mark.parametrize(
    "dtype",
    [
        *(
            "O",
            "|O",
            "|O8",
            "object",
            "<i",
            "i4",
            "=i4",
            "int",
            "float64",
            "T",
            "<i4,<i4",
            "(2,)i4",
            "|V0",
            "<U0",
            "|S0",
        ),
        *(
            "<i3",
            "<f7",
            "<c4",
            "|b2",
            "<M8[",
            "<M8[x]",
            "<M8[s]x",
            "<M8[0s]",
            "<m8[D/3]",
            "<i4\n",
            "<U9999999999",
            "<i٤",
        ),
        *(
            "",
            5,
            None,
            True,
            b"<i4",
            [],
            {},
            ["<i4"],
            ["<i4", [2]],
            ["<i4", []],
            ["<i4", 2],
            ["<i4", ["2"]],
            ["<i4", [-1]],
        ),
        {"size": 4},
        {"size": 0, "fields": []},
        {"size": 4, "fields": 5},
        {"size": 4, "fields": [5]},
        {"size": 4, "fields": [["a", "O", 0]]},
        {"size": 8, "fields": [["a", "<i4", 0], ["a", "<i4", 4]]},
        {"size": 4, "fields": [["a", "<i4", 4]]},
        {"size": 4, "fields": [["a", "<i4", -4]]},
        {"size": 4, "fields": [["a", "<i4", 2**40]]},
        {"size": 4, "fields": [["a", "<i4", "0"]]},
        {"size": 4, "fields": [[5, "<i4", 0]]},
        {"size": 4, "fields": [["a", "<i2", True]]},
        {"size": True, "fields": [["a", "|u1", 0]]},
        {"size": 4, "fields": [["a", ["<i4", [True]], 0]]},
        {"size": 4, "fields": [["a", "|S0", 0], ["b", "<i4", 0]]},
        {"size": 4, "fields": [["a", "<i4", 0, 5]]},
        {"size": 4, "fields": [["a", "<i4", 0, "title", "more"]]},
        {"size": 2, "fields": [["a", "<i4", 0]]},
        {"size": 4, "fields": [["a", "<i4", 0], ["b", "<i4", 0]]},
        {"size": "4", "fields": [["a", "<i4", 0]]},
        {"size": 2**40, "fields": [["a", "<i4", 0]]},
        {"size": 2**31, "fields": [["a", ["<i4", [2**29]], 0]]},
        {"names": ["a"], "formats": ["O"]},
    ],
    ids=repr,
)
def test_a_dtype_that_is_not_described_strictly_is_refused(dtype: object) -> None:
    """Nothing is looked up by name, no elements are objects, and none has no size."""
    for size in (1, 2, 4, 8, 16):
        assert "cannot decode it" in refused(frame(stands(NDARRAY, 0, dtype, [1], "C"), bytes(size)))
        assert "cannot decode it" in refused(frame(stands(SCALAR, dtype, bytes(size))))


def nested(levels: int) -> object:
    dtype: object = "<i4"
    for _ in range(levels):
        dtype = {"size": 4, "fields": [["a", dtype, 0]]}
    return dtype


def test_a_dtype_may_be_nested_up_to_a_limit() -> None:
    """NumPy compares and prints dtypes by recursion."""
    assert decode(frame(stands(NDARRAY, 0, nested(32), [1], "C"), bytes(4))).size == 1
    assert "nested too deeply" in refused(frame(stands(NDARRAY, 0, nested(33), [1], "C"), bytes(4)))
    assert "cannot decode it" in refused(frame(stands(NDARRAY, 0, nested(100), [1], "C"), bytes(4)))


@pytest.mark.parametrize("levels", [1000, 2000, 100_000])
def test_a_structure_that_is_nested_too_deeply_is_refused(levels: int) -> None:
    """msgpack has a limit."""
    packed = b"\x91" * levels + b"\x05"
    message = b"\xc1\x02\x01\x00" + len(packed).to_bytes(4, "little") + packed
    if levels == 1000:
        decode(message)
    else:
        refused(message)


@pytest.mark.parametrize("order", ["A", "K", "c", "", None, 0, ["C"]])
def test_an_unknown_order_is_refused(order: object) -> None:
    """Rows or columns first."""
    assert "has the order" in refused(frame(stands(NDARRAY, 0, "<i4", [2], order), bytes(8)))


@pytest.mark.parametrize("dtype", ["<U2", ">U2", {"size": 12, "fields": [["n", "<i4", 8], ["a", "<U2", 0]]}])
@pytest.mark.parametrize("shape", [[1], [3]], ids=str)
def test_characters_beyond_unicode_are_refused(dtype: Any, shape: list[int]) -> None:
    """NumPy would raise SystemError when they are read."""
    size = dtype["size"] if isinstance(dtype, dict) else 8
    message = frame(stands(NDARRAY, 0, dtype, shape, "C"), b"\xff\xff\xff\xff" + bytes(shape[0] * size - 4))
    assert "beyond the range of Unicode" in refused(message)


def test_characters_are_checked_in_their_byte_order() -> None:
    """U+110000 and U+1100 have the same bytes."""
    assert "beyond the range" in refused(frame(stands(NDARRAY, 0, ">U1", [1], "C"), b"\x00\x11\x00\x00"))
    assert decode(frame(stands(NDARRAY, 0, "<U1", [1], "C"), b"\x00\x11\x00\x00")).tolist() == ["\u1100"]


def test_characters_of_an_array_beyond_unicode_are_refused() -> None:
    """array.array would raise when they are read."""
    assert "not in range" in refused(frame(stands(ARRAY, 0, "<U1", [1], "u"), b"\xff\xff\xff\xff"))


@pytest.mark.parametrize(
    ("code", "element", "shape", "words"),
    [
        (ARRAY, "<i4", [2, 1], "an array.array has the shape (2, 1)"),
        (ARRAY, "<i4", [], "an array.array has the shape ()"),
        (ARRAY, "<i3", [2], "no elements of '<i3'"),
        (ARRAY, "|b1", [8], "no elements of '|b1'"),
        (ARRAY, "|S1", [8], "no elements of '|S1'"),
        (ARRAY, "O", [2], "no element is called 'O'"),
        (ARRAY, 5, [2], "no element is called 5"),
        (ARRAY, {"size": 4, "fields": []}, [2], "no element is called"),
        (MEMORYVIEW, "<P8", [1], "no element is called"),
        (MEMORYVIEW, "<U1", [2], "no elements of '<U1'"),
        (MEMORYVIEW, ">i4" if sys.byteorder == "little" else "<i4", [2], "the byte order of another machine"),
    ],
    ids=str,
)
def test_an_array_or_memoryview_of_another_type_is_refused(code: int, element: object, shape: Any, words: str) -> None:
    """Only numbers and text that they can have."""
    assert words in refused(frame(stands(code, 0, element, shape, "i"), bytes(8)))


@pytest.mark.parametrize("hint", ["d", "O", "P", "", None, 5, ["i"]], ids=repr)
def test_a_code_that_does_not_fit_is_replaced(hint: object) -> None:
    """Another machine may have other codes for the same elements."""
    returned = decode(frame(stands(ARRAY, 0, "<i4", [2], hint), b"\1\0\0\0\2\0\0\0"))
    assert (returned.typecode, returned.tolist()) == ("i", [1, 2])
    assert decode(frame(stands(MEMORYVIEW, 0, "<i4", [2], hint), b"\1\0\0\0\2\0\0\0")).tolist() == [1, 2]


def test_an_array_of_the_other_byte_order_is_converted() -> None:
    """From a machine of another kind, through a server."""
    assert decode(frame(stands(ARRAY, 0, ">i4", [2], "i"), b"\0\0\0\1\0\0\0\2")) == array.array("i", [1, 2])


@pytest.mark.parametrize("value", [b"", bytes(3), bytes(5), 5, None, "1234"], ids=repr)
def test_a_scalar_of_another_size_is_refused(value: object) -> None:
    """Its bytes are all of it."""
    assert "cannot decode it" in refused(frame(stands(SCALAR, "<i4", value)))


def colliding(count: int) -> bytes:
    """Return a message with a map whose keys have the same hash, but are not equal."""
    step = sys.hash_info.imag
    keys = [np.complex128(complex(-step * number, number)) for number in range(1, count + 1)]
    assert len({hash(key) for key in keys}) == 1
    return codec_for("arrays").encode(dict.fromkeys(keys, 1))


def test_many_scalars_with_the_same_hash_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer can choose such keys, and a dict of them takes quadratic time."""
    monkeypatch.setattr(_keys, "MAX_COLLISIONS", 100)
    assert len(decode(colliding(14))) == 14
    assert "too many scalars have the same hash" in refused(colliding(15))


def test_equal_scalars_do_not_count_as_collisions(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be values of a long list."""
    monkeypatch.setattr(_keys, "MAX_COLLISIONS", 100)
    assert len(decode(codec_for("arrays").encode([np.int32(7)] * 1000))) == 1000


def test_a_claim_of_huge_arrays_takes_no_memory() -> None:
    """Sizes are checked before anything is allocated."""
    messages = [
        frame([stands(code, 0, "|u1", [2**40], form)] * 50, bytes(64))
        for code, form in ((NDARRAY, "C"), (ARRAY, "B"), (MEMORYVIEW, "B"))
    ]
    refused(messages[0])
    tracemalloc.start()
    for message in messages:
        refused(message)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


SOURCES = [
    codec_for("arrays").encode(item)
    for item in (
        [np.arange(6).reshape(2, 3), {"a": np.asfortranarray(np.ones((2, 2), "f4")), "b": np.float32(1)}],
        {"s": np.zeros(3, [("a", "U3"), ("b", ">f8", (2,)), ("c", [("d", "M8[s]")])]), "t": np.array("abc")},
        [array.array("d", [1, 2]), memoryview(np.ones((2, 2))), b"bytes", {(1, 2): np.int64(3)}, array.array("i")],
    )
]


@settings(deadline=None, max_examples=600)
@given(
    source=strategies.sampled_from(SOURCES),
    changes=strategies.lists(
        strategies.tuples(strategies.integers(2, 400), strategies.integers(0, 3), strategies.binary(max_size=4)),
        min_size=1,
        max_size=4,
    ),
)
def test_a_damaged_message_is_decoded_or_refused(source: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    """Never anything but DecodeError, and what is decoded can be read."""
    message = bytearray(source)
    for place, removed, added in changes:
        place = 2 + place % (len(message) - 2) if len(message) > 2 else 2
        message[place : place + removed] = added
    try:
        item = decode(bytes(message))
    except DecodeError:
        return
    read(item)


def read(item: Any) -> None:
    """Read every element."""
    if isinstance(item, dict):
        item = [*item, *item.values()]
    if isinstance(item, list | tuple):
        for part in item:
            read(part)
    elif isinstance(item, np.ndarray | array.array | memoryview):
        item.tolist()


def test_every_extension_has_its_reader() -> None:
    """None is forgotten when one is added."""
    assert {*_arrays._READERS, *_arrays._DATA_READERS} == set(_arrays._EXTENSIONS)
