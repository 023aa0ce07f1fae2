"""Serializers: the mark that tells which serializer wrote a message."""

import pytest

from core import serializing
from ipcq.errors import DecodeError
from ipcq.serializers import _frame, codec_for

each_way, own_registrations = serializing.each_way, serializing.own_registrations


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
    """Splitting returns the number, and where the payload begins."""
    mark = _frame.mark(number)
    assert _frame.split(mark + b"\x80\xffpayload") == (number, len(mark))


def test_the_payload_may_be_empty() -> None:
    """The number alone is a message with an empty payload."""
    assert _frame.split(b"\xc1\x01") == (1, 2)


def test_a_number_in_more_groups_than_needed_is_read() -> None:
    """LEB128 may be padded up to five groups."""
    assert _frame.split(b"\xc1\x81\x80\x80\x80\x00x") == (1, 6)


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
