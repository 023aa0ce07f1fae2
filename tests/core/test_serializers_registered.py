"""Serializers of users."""

from typing import Any

import pytest

from core import serializing
from core.serializing import reversing
from ipcq.errors import DecodeError, EncodeError, InvalidArgument
from ipcq.serializers import FIRST_FREE_NUMBER, codec_for, register

each_way, own_registrations = serializing.each_way, serializing.own_registrations


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


@pytest.mark.parametrize("name", ["arrays", "msgpack", "msgspec", "pickle", "raw", "first"])
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
        register(1001, "mine", None, None)
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
    with pytest.raises(InvalidArgument, match="choose from arrays, msgpack, msgspec, pickle, raw, reverse"):
        codec_for(serializer)
