"""Serializers: pickle, only where both ends allow it."""

import pickle
import struct
from typing import Any

import numpy as np
import pytest

from core import serializing
from core.serializing import Hostile, reversing
from ipcq.errors import DecodeError, EncodeError, InvalidArgument
from ipcq.serializers import _pickle, codec_for

each_way, own_registrations = serializing.each_way, serializing.own_registrations


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
    with pytest.raises(DecodeError, match="serializer 'pickle' cannot decode it"):
        codec_for("msgpack", allow_pickle=True).decode(b"\xc1\x01" + payload)


# Buffers beside the pickle

WRITABLE = np.arange(_pickle.SMALLEST // 8)
READ_ONLY = np.frombuffer(bytes(range(256)) * (_pickle.SMALLEST // 256) + b"end", "u1")
ITEM = {"a": WRITABLE, "b": [READ_ONLY, WRITABLE.reshape(-1, 64).T], "c": READ_ONLY[:10]}


def codec() -> Any:
    return codec_for("pickle", allow_pickle=True)


def test_arrays_come_back_from_beside_the_pickle() -> None:
    """Equal, in their order, and writable if they were."""
    data = codec().encode(ITEM)
    assert data[:2] == b"\xc1\x03"
    returned = codec().decode(data)
    pairs = list(zip([*ITEM["b"], ITEM["a"], ITEM["c"]], [*returned["b"], returned["a"], returned["c"]], strict=True))
    for one, other in pairs:
        assert np.array_equal(one, other)
        assert (one.dtype, one.strides, one.flags.writeable) == (other.dtype, other.strides, other.flags.writeable)
    returned["a"][0] = 5
    assert codec().decode(data)["a"][0] == 0


def test_a_read_only_array_is_a_part_of_the_message() -> None:
    """Without a copy."""
    data = codec().encode(READ_ONLY)
    address = codec().decode(data).__array_interface__["data"][0]
    assert address == np.frombuffer(data, "u1").__array_interface__["data"][0] + len(data) - READ_ONLY.nbytes


def test_the_frame_of_a_pickle_and_its_buffers_is_the_documented_one() -> None:
    """Byte for byte, and the buffers begin at multiples of 64."""
    taken: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps([READ_ONLY, WRITABLE], 5, buffer_callback=taken.append)
    sizes = READ_ONLY.nbytes << 1, WRITABLE.nbytes << 1 | 1
    message = struct.pack("<2sBBIQQQ", b"\xc1\x03", 1, 0, 2, len(pickled), *sizes) + pickled
    for buffer in taken:
        message = message.ljust(-(-len(message) // 64) * 64, b"\0") + buffer.raw()
    assert codec().encode([READ_ONLY, WRITABLE]) == message


def test_small_buffers_stay_in_the_pickle() -> None:
    """As every buffer did before, and such messages are still read."""
    assert codec().encode(WRITABLE[1:]) == b"\xc1\x01" + pickle.dumps(WRITABLE[1:], 5)
    old = b"\xc1\x01" + pickle.dumps(WRITABLE, 5)
    assert np.array_equal(codec().decode(old), WRITABLE)


def test_a_pickle_with_buffers_must_be_allowed() -> None:
    """C26: a default handle does not load it."""
    with pytest.raises(DecodeError, match="open with allow_pickle=True if you trust the producers"):
        codec_for("msgpack").decode(codec().encode(WRITABLE))


def test_a_buffer_with_gaps_is_an_encode_error() -> None:
    """C6: pickle has no form for it."""

    class Gaps:
        def __reduce_ex__(self, protocol: Any) -> Any:
            return bytes, (pickle.PickleBuffer(memoryview(bytes(1 << 20))[::2]),)

    with pytest.raises(EncodeError, match="serializer 'pickle' cannot encode this Gaps"):
        codec().encode(Gaps())


VALID = codec_for("pickle", allow_pickle=True).encode(WRITABLE)
SIZE = WRITABLE.nbytes << 1 | 1


def changed(offset: int, format: str, value: int) -> bytes:
    """Return the valid message with another number in its head."""
    data = bytearray(VALID)
    struct.pack_into(format, data, offset, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (VALID[:15], "its head is truncated"),
        (changed(2, "B", 2), "it is of version 2, and this release reads version 1"),
        (changed(3, "B", 1), "it is of version"),
        (b"\xc1\x83\x00" + VALID[2:], "it is of version"),
        (changed(4, "<I", 2**32 - 1), "its pickle is truncated"),
        (changed(8, "<Q", 2**64 - 1), "its pickle is truncated"),
        (VALID[:40], "its pickle is truncated"),
        (VALID[:-1], "its last buffer ends at"),
        (VALID + b"x", "its last buffer ends at"),
        (changed(16, "<Q", 2**64 - 1), "its last buffer ends at"),
        (changed(16, "<Q", SIZE - 2), "its last buffer ends at"),
        (VALID[:4] + struct.pack("<IQQ", 1, 4, 6) + b"\x80\x05N." + bytes(36) + b"abc", "more buffers than its pickle"),
        (VALID[:4] + struct.pack("<IQ", 0, 5) + b"\x80\x05\x97N.", "not enough out-of-band buffers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_frame_of_a_pickle_and_its_buffers_is_a_decode_error(data: bytes, words: str) -> None:
    """C6: the text says what is wrong."""
    with pytest.raises(DecodeError, match="serializer 'pickle' cannot decode it") as caught:
        codec().decode(data)
    assert words in str(caught.value)
