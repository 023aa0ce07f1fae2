"""Serializers: what cannot be encoded or decoded."""

import array
import ctypes
import mmap
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import numpy as np
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
def test_raw_takes_only_buffers(item: object) -> None:
    """The error names those of the standard library."""
    with pytest.raises(EncodeError, match=r"takes bytes and other buffers \(bytearray, .*\), not"):
        codec_for("raw").encode(item)


def mapped(content: bytes) -> mmap.mmap:
    """Return a mapping with this content."""
    mapping = mmap.mmap(-1, len(content))
    mapping[:] = content
    return mapping


class Record(ctypes.Structure):
    """A record, some of whose names are also those of formats."""

    _fields_ = (("O", ctypes.c_uint8), ("P", ctypes.c_uint8))


@pytest.mark.parametrize(
    "item",
    [
        b"\xc1\x01",
        bytearray(b"\xc1\x01"),
        memoryview(b"\xc1\x01"),
        memoryview(b"\xc1\x00\x01")[::2],
        array.array("B", [0xC1, 1]),
        array.array("h", b"\xc1\x01"),
        mapped(b"\xc1\x01"),
        (ctypes.c_uint8 * 2)(0xC1, 1),
        Record(0xC1, 1),
        np.array([0xC1, 1], np.uint8),
        np.array(0x1C1, "<u2"),
        np.array([[0xC1, 0], [1, 0]], np.uint8)[:, 0],
        np.asfortranarray(np.array([[0xC1], [1]], np.uint8)),
        np.array([(0xC1, 1)], [("O", "u1"), ("Z", "u1")]),
    ],
    ids=lambda item: f"{type(item).__module__}.{type(item).__name__}",
)
def test_raw_adds_nothing(item: Any) -> None:
    """The other end may be a C program."""
    assert codec_for("raw").encode(item) == b"\xc1\x01"


@pytest.mark.parametrize("dtype", ["c8", "c16", "f2", "?", "U3", "S3", ">i4", "V5"])
def test_raw_takes_every_array_whose_elements_are_values(dtype: str) -> None:
    """A complex number is no pointer, although its format begins as one."""
    item = np.zeros((2, 3), dtype).T
    assert codec_for("raw").encode(item) == item.tobytes()


class Pointers(ctypes.Structure):
    """A record with pointers."""

    _fields_ = (("name", ctypes.c_char_p), ("number", ctypes.c_int))


@pytest.mark.parametrize(
    "item",
    [
        np.array([object()]),
        np.zeros(1, [("number", "i4"), ("item", "O")]),
        (ctypes.py_object * 2)(),
        (ctypes.c_void_p * 2)(),
        (ctypes.c_wchar_p * 2)(),
        ctypes.pointer(ctypes.c_int(1)),
        ctypes.CFUNCTYPE(None)(),
        Pointers(b"x", 1),
    ],
    ids=lambda item: type(item).__name__,
)
def test_raw_takes_no_addresses(item: object) -> None:
    """They mean nothing to another process, which could crash if it followed them."""
    with pytest.raises(EncodeError, match="with addresses"):
        codec_for("raw").encode(item)


def closed() -> mmap.mmap:
    """Return a mapping that was closed."""
    mapping = mapped(b"x")
    mapping.close()
    return mapping


def released() -> memoryview:
    """Return a view that was released."""
    view = memoryview(b"x")
    view.release()
    return view


@pytest.mark.parametrize(
    ("item", "cause"), [(closed(), "closed"), (released(), "released"), (np.zeros(1, "M8[s]"), "dtype")]
)
def test_raw_says_why_a_buffer_cannot_be_read(item: object, cause: str) -> None:
    """C6: nothing but an error of ours, with what Python says of it."""
    with pytest.raises(EncodeError, match=rf"\(.*{cause}.*\)"):
        codec_for("raw").encode(item)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="buffers of classes of Python came with Python 3.12")
def test_raw_takes_a_buffer_of_a_class_of_python() -> None:
    """C6, C12: its method may raise any exception, and Ctrl-C passes."""

    class Offer:
        def __init__(self, content: bytes | BaseException) -> None:
            self.content = content

        def __buffer__(self, flags: int) -> memoryview:
            if isinstance(self.content, BaseException):
                raise self.content
            return memoryview(self.content)

    assert codec_for("raw").encode(Offer(b"ab")) == b"ab"
    with pytest.raises(EncodeError) as caught:
        codec_for("raw").encode(Offer(OSError("no")))
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(KeyboardInterrupt):
        codec_for("raw").encode(Offer(KeyboardInterrupt()))


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
