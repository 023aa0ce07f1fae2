"""Serializers: pickle, only where both ends allow it."""

import pickle

import pytest

from core import serializing
from core.serializing import Hostile, reversing
from ipcq.errors import DecodeError, EncodeError, InvalidArgument
from ipcq.serializers import codec_for

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
    with pytest.raises(DecodeError, match="serializer number 1 cannot decode it"):
        codec_for("msgpack", allow_pickle=True).decode(b"\xc1\x01" + payload)
