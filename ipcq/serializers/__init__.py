"""Serializers: encoding items to bytes and decoding them.

MessagePack is the default and has no header, so that any MessagePack program can be the other end. Messages of other
serializers begin with 0xC1, a byte that MessagePack never uses, and the serializer's number as unsigned LEB128.
Messages of ``"raw"`` are the bytes alone, and those of ``"arrays"`` without arrays are MessagePack.

A pickle without a header, from another program, is recognised by its first two bytes, which are not valid MessagePack.

A decoder runs only if the reading handle allows its number: MessagePack always, the serializer of the handle, and
pickle with ``allow_pickle=True``. A message's header allows nothing by itself.
"""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, Final, NamedTuple

from ipcq._process.imports import importing, shortage_reported
from ipcq._process.signals import reraise_from_handler
from ipcq.errors import DecodeError, EncodeError, InvalidArgument
from ipcq.serializers import _frame
from ipcq.serializers._in_c import in_c
from ipcq.serializers._in_place import Kind

__all__ = ("FIRST_FREE_NUMBER", "Codec", "codec_for", "register")

#: Numbers below this one are ipcq's own.
FIRST_FREE_NUMBER: Final = 1001
_LARGEST_NUMBER: Final = 2**32 - 1

#: Larger pickles, in bytes, are read in place. For others, a copy takes less time.
_LARGE: Final = 1 << 14

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]


class Codec(NamedTuple):
    """How one handle encodes and decodes items.

    `encode` raises `EncodeError` and `decode` raises `DecodeError` for any failure.
    """

    name: str
    encode: Encode
    decode: Decode
    kind: Kind
    """What it makes of bytes."""


class _Registered(NamedTuple):
    number: int
    encode: Encode
    decode: Decode


# One module each, so that a serializer's library is imported at its first use.
_BUNDLED: Final = ("arrays", "msgpack", "msgspec", "pickle", "raw")
_registered: dict[str, _Registered] = {}


def register(number: int, name: str, encode: Encode, decode: Decode) -> None:
    """Register a serializer in this process, for ``serializer=name``.

    Args:
        number: Identifies its messages on the wire, from 1001 to 4294967295.
        name: Its name, for the argument `serializer` of `open`.
        encode: Encodes an item to bytes; any exception becomes `EncodeError`.
        decode: Decodes these bytes to an item; any exception becomes `DecodeError`.

    Raises:
        InvalidArgument: The number or the name is taken or invalid, or a function is not callable.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not FIRST_FREE_NUMBER <= number <= _LARGEST_NUMBER:
        raise InvalidArgument(
            f"a serializer's number must be an int from {FIRST_FREE_NUMBER} to {_LARGEST_NUMBER}, not {number!r}"
        )
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"a serializer's name must be a str of 1 character or more, not {name!r}")
    if name in _BUNDLED or name in _registered:
        raise InvalidArgument(f"the serializer name {name!r} is taken: choose another")
    taken = next((other for other, entry in _registered.items() if entry.number == number), None)
    if taken is not None:
        raise InvalidArgument(f"the serializer number {number} is taken by {taken!r}: choose another")
    if not (callable(encode) and callable(decode)):
        raise InvalidArgument(f"encode and decode of serializer {name!r} must be functions")
    _registered[name] = _Registered(number, encode, decode)


def codec_for(serializer: str, *, allow_pickle: bool = False, type: Any = None) -> Codec:
    """Return the codec of a handle that was opened with these arguments of `ipcq.open`.

    Raises:
        InvalidArgument: No such serializer, pickle without ``allow_pickle=True``, or an unsupported type.
        Unsupported: The serializer's library is not installed.
    """
    if type is not None and serializer == "msgpack":
        serializer = "msgspec"  # the same bytes on the wire, and msgspec supports types
    if type is not None and serializer != "msgspec":
        raise InvalidArgument(f"type= needs serializer='msgspec', not {serializer!r}")
    if serializer == "pickle" and not allow_pickle:
        raise InvalidArgument(
            "serializer='pickle' runs code from messages: pass allow_pickle=True on both ends if you trust everyone "
            "who can write to the queue"
        )
    if serializer == "raw":
        raw = _module("raw")
        return Codec("raw", *in_c(raw.encode, raw.decode, "raw"), kind="raw")
    messagepack = _module("msgspec" if serializer == "msgspec" else "msgpack")
    encode, decode = messagepack.functions(type)
    # Load the module now: decoding a message that was already taken must not fail for lack of a descriptor.
    with_any_keys = decode if type is not None else _with_any_keys(decode, _module("keys").decode)
    allowed: dict[int, Decode] = {_frame.MSGPACK: with_any_keys}
    encode = _allow_others(allowed, serializer, allow_pickle=allow_pickle) or encode
    plain = serializer in ("arrays", "msgpack", "msgspec") and type is None
    unframing = _unframing(decode, with_any_keys, allowed, typed=type is not None)
    if plain:
        encode, unframing = in_c(encode, unframing, "bin" if serializer == "msgspec" else "messagepack")
    kind: Kind = ""
    if plain:
        kind = "arrays" if serializer == "arrays" else "bin"
    return Codec(serializer, encode, unframing, kind)


def _allow_others(allowed: dict[int, Decode], serializer: str, *, allow_pickle: bool) -> Encode | None:
    """Add the decoders that a handle needs besides MessagePack's; return its encoder, or None for MessagePack's."""
    encode: Encode | None = None
    if allow_pickle:
        pickle = _module("pickle")
        allowed[_frame.PICKLE] = pickle.decode
        allowed[_frame.PICKLE_AND_BUFFERS] = pickle.decode_with_buffers
        if serializer == "pickle":
            encode = pickle.encode
    if serializer == "arrays":
        arrays = _module("arrays")
        allowed[_frame.ARRAYS], encode = arrays.decode, arrays.encode
    elif isinstance(serializer, str) and serializer in _registered:
        entry = _registered[serializer]
        allowed[entry.number] = entry.decode
        encode = _framing(serializer, entry.number, entry.encode)
    elif not isinstance(serializer, str) or serializer not in _BUNDLED:
        known = ", ".join(sorted({*_BUNDLED, *_registered}))
        raise InvalidArgument(
            f"no serializer {serializer!r}: choose from {known}, or add it with ipcq.serializers.register"
        )
    return encode


def _module(part: str) -> ModuleType:
    with shortage_reported(), importing():
        return import_module(f"ipcq.serializers._{part}")


def _framing(name: str, number: int, encode: Encode) -> Encode:
    header = _frame.mark(number)

    def framed(item: Any) -> bytes:
        try:
            return header + encode(item)
        except Exception as error:
            reraise_from_handler(error)
            raise EncodeError(
                f"serializer {name!r} cannot encode this {type(item).__name__}: {error}: extend its encode for that "
                "type, or put the parts of the item"
            ) from error

    return framed


def _with_any_keys(decode: Decode, decode_any_keys: Decode) -> Decode:
    def with_any_keys(data: bytes) -> Any:
        try:
            return decode(data)
        except MemoryError:
            raise  # as in `_unframing`
        except Exception as error:
            reraise_from_handler(error)
            try:
                return decode_any_keys(data)
            except MemoryError:
                raise
            except Exception as second_error:
                reraise_from_handler(second_error)
                raise error from None  # the first error describes the message better

    return with_any_keys


def _unframing(messagepack: Decode, with_any_keys: Decode, allowed: dict[int, Decode], *, typed: bool) -> Decode:
    # Decode short bytes, MessagePack's bin 8, directly, unless a type must be checked.
    bin8 = -1 if typed else 0xC4

    def decode(data: bytes) -> Any:
        try:
            first = data[0]
            if first == bin8 and data[1] == len(data) - 2:
                return data[2:]
            if first != _frame.MARK:
                return messagepack(data)
        except MemoryError:
            raise  # the handle keeps the message and can decode it later
        except Exception as error:
            reraise_from_handler(error)
            if not _frame.is_pickle(data):
                return _as_messagepack(with_any_keys, data)
            number, start = _frame.PICKLE, 0
        else:
            number, start = _frame.split(data)
        decoder = allowed.get(number)
        if decoder is None:
            raise DecodeError(_refusal(number), data=data)
        return _decoded(decoder, number, _payload(data, number, start), data)

    return decode


def _payload(data: bytes, number: int, start: int) -> bytes | memoryview:
    if number in _frame.WITH_BUFFERS:
        return data
    if number == _frame.PICKLE and len(data) >= _LARGE:
        return memoryview(data)[start:]
    return data[start:]


def _as_messagepack(with_any_keys: Decode, data: bytes) -> Any:
    try:
        return with_any_keys(data)
    except MemoryError:
        raise  # as above
    except Exception as error:
        reraise_from_handler(error)
        reason = str(error).removesuffix(".")
        raise DecodeError(
            f"not valid MessagePack: {reason}: if the producer puts raw bytes, open with serializer='raw'",
            data=data,
        ) from error


def _decoded(decoder: Decode, number: int, payload: Any, data: bytes) -> Any:
    try:
        return decoder(payload)
    except MemoryError:
        raise  # as above
    except Exception as error:
        reraise_from_handler(error)
        name = _NAMES.get(number, f"number {number}")
        raise DecodeError(f"serializer {name} cannot decode it: {error}", data=data) from error


#: The bundled serializers in errors.
_NAMES: Final = {_frame.PICKLE: "'pickle'", _frame.ARRAYS: "'arrays'", _frame.PICKLE_AND_BUFFERS: "'pickle'"}


def _refusal(number: int) -> str:
    if number in (_frame.PICKLE, _frame.PICKLE_AND_BUFFERS):
        return (
            "it is a pickle, which this handle does not allow: open with allow_pickle=True if you trust the producers"
        )
    names = {entry.number: name for name, entry in _registered.items()}
    name = "arrays" if number == _frame.ARRAYS else names.get(number)
    if name is not None:
        return f"it was encoded by serializer {name!r}: open with serializer={name!r}"
    return f"it was encoded by serializer number {number}: register that serializer, and open with its name"
