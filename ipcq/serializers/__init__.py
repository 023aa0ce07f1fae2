"""Items to bytes and back: the one place where that happens.

MessagePack is the default and travels bare, so that any MessagePack program can be the other end. The byte 0xC1, which
MessagePack never uses, marks everything else: 0xC1, the serializer's number as unsigned LEB128, the payload. ``"raw"``
carries the bytes alone.

Bare pickles, as other programs put them into queues, are told by their first two bytes, which are no MessagePack.

A decoder runs only if the handle that reads allows its number: MessagePack always, the serializer that the handle was
opened with, and pickle where it was opened with ``allow_pickle=True``. What a message says of itself allows nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Final

from ipcq._process.imports import importing, shortage_reported
from ipcq._process.signals import reraise_from_handler
from ipcq.backend import OfBytes
from ipcq.errors import DecodeError, EncodeError, InvalidArgument
from ipcq.serializers import _frame

__all__ = ("FIRST_FREE_NUMBER", "Codec", "codec_for", "register")

#: Numbers below this one are ipcq's own.
FIRST_FREE_NUMBER: Final = 1001
_LARGEST_NUMBER: Final = 2**32 - 1

Encode = Callable[[Any], bytes]
Decode = Callable[[bytes], Any]


@dataclass(frozen=True)
class Codec:
    """How one handle turns items into bytes and back.

    `encode` raises `EncodeError` and `decode` raises `DecodeError`, whatever went wrong. `of_bytes` says what they do
    with `bytes`, for whoever can do that faster.
    """

    name: str
    encode: Encode
    decode: Decode
    of_bytes: OfBytes = "encoded"


@dataclass(frozen=True)
class _Registered:
    number: int
    encode: Encode
    decode: Decode


# Each has a module, so that a serializer's library is imported when it is first asked for and not before.
_BUNDLED: Final = ("msgpack", "msgspec", "pickle", "raw")
_registered: dict[str, _Registered] = {}


def register(number: int, name: str, encode: Encode, decode: Decode) -> None:
    """Make a serializer known to this process, for ``serializer=name``.

    Args:
        number: What marks its messages on the wire, from 1001 to 4294967295.
        name: What `open` calls it.
        encode: Turns an item into bytes; whatever it raises becomes `EncodeError`.
        decode: Turns those bytes into the item; whatever it raises becomes `DecodeError`.

    Raises:
        InvalidArgument: The number or the name is taken or out of range, or a function cannot be called.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not FIRST_FREE_NUMBER <= number <= _LARGEST_NUMBER:
        raise InvalidArgument(f"a serializer's number is from {FIRST_FREE_NUMBER} to {_LARGEST_NUMBER}, not {number!r}")
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"a serializer's name is a str, not {name!r}")
    if name in _BUNDLED or name in _registered:
        raise InvalidArgument(f"the serializer name {name!r} is taken: choose another")
    taken = next((other for other, entry in _registered.items() if entry.number == number), None)
    if taken is not None:
        raise InvalidArgument(f"the serializer number {number} is taken by {taken!r}: choose another")
    if not (callable(encode) and callable(decode)):
        raise InvalidArgument(f"encode and decode of serializer {name!r} are functions")
    _registered[name] = _Registered(number, encode, decode)


def codec_for(serializer: str, *, allow_pickle: bool = False, type: Any = None) -> Codec:
    """Return the codec of a handle that was opened with these arguments of `ipcq.open`.

    Raises:
        InvalidArgument: No such serializer, pickle without ``allow_pickle=True``, or a type that it cannot take.
        Unsupported: The serializer's library is not installed.
    """
    if type is not None and serializer == "msgpack":
        serializer = "msgspec"  # the same bytes on the wire, and the library that knows types
    if type is not None and serializer != "msgspec":
        raise InvalidArgument(f"type= needs serializer='msgspec', not {serializer!r}")
    if serializer == "pickle" and not allow_pickle:
        raise InvalidArgument(
            "serializer='pickle' runs code that a message names: say allow_pickle=True on both ends if you trust "
            "whoever can write to the queue"
        )
    if serializer == "raw":
        raw = _module("raw")
        return Codec("raw", raw.encode, raw.decode, "bare")
    bare = _module("msgspec" if serializer == "msgspec" else "msgpack")
    encode, decode = bare.functions(type)
    # Now, because a message that is taken must not fail for want of a descriptor.
    thorough = decode if type is not None else _with_any_keys(decode, _module("keys").decode)
    allowed: dict[int, Decode] = {_frame.MSGPACK: thorough}
    if allow_pickle:
        pickle = _module("pickle")
        allowed[_frame.PICKLE] = pickle.decode
        if serializer == "pickle":
            encode = _framing(serializer, _frame.PICKLE, pickle.encode)
    if isinstance(serializer, str) and serializer in _registered:
        entry = _registered[serializer]
        allowed[entry.number] = entry.decode
        encode = _framing(serializer, entry.number, entry.encode)
    elif not isinstance(serializer, str) or serializer not in _BUNDLED:
        known = ", ".join(sorted({*_BUNDLED, *_registered}))
        raise InvalidArgument(
            f"no serializer {serializer!r}: there are {known}, and ipcq.serializers.register adds more"
        )
    plain = serializer in ("msgpack", "msgspec") and type is None
    unframing = _unframing(decode, thorough, allowed, typed=type is not None)
    return Codec(serializer, encode, unframing, "bin" if plain else "encoded")


def _module(part: str) -> ModuleType:
    with shortage_reported(), importing():
        return import_module(f"ipcq.serializers._{part}")


def _framing(name: str, number: int, encode: Encode) -> Encode:
    mark = _frame.mark(number)

    def framed(item: Any) -> bytes:
        try:
            return mark + encode(item)
        except Exception as error:
            reraise_from_handler(error)
            raise EncodeError(
                f"serializer {name!r} cannot encode this {type(item).__name__}: {error}: {_way(number)}"
            ) from error

    return framed


def _way(number: int) -> str:
    if number == _frame.PICKLE:
        return "put its parts: pickle takes classes and functions at the top of a module, and nothing that is open"
    return "let its encode take that type, or put the parts of the item"


def _with_any_keys(decode: Decode, patient: Decode) -> Decode:
    def thorough(data: bytes) -> Any:
        try:
            return decode(data)
        except MemoryError:
            raise  # as in `_unframing`
        except Exception as error:
            reraise_from_handler(error)
            try:
                return patient(data)
            except MemoryError:
                raise
            except Exception as second:
                reraise_from_handler(second)
                raise error from None  # what the library says of the message as it is

    return thorough


def _unframing(bare: Decode, thorough: Decode, allowed: dict[int, Decode], *, typed: bool) -> Decode:
    # Short bytes, MessagePack's bin 8, are cut out by hand where nothing has to be checked against a type.
    bin8 = -1 if typed else 0xC4

    def decode(data: bytes) -> Any:
        try:
            first = data[0]
            if first == bin8 and data[1] == len(data) - 2:
                return data[2:]
            if first != _frame.MARK:
                return bare(data)
        except MemoryError:
            raise  # the message may be decoded later
        except Exception as error:
            reraise_from_handler(error)
            if not _frame.is_pickle(data):
                return _as_messagepack(thorough, data)
            number, payload = _frame.PICKLE, data
        else:
            number, payload = _frame.split(data)
        decoder = allowed.get(number)
        if decoder is None:
            raise DecodeError(_refusal(number), data=data)
        return _decoded(decoder, number, payload, data)

    return decode


def _as_messagepack(thorough: Decode, data: bytes) -> Any:
    try:
        return thorough(data)
    except MemoryError:
        raise  # as above
    except Exception as error:
        reraise_from_handler(error)
        reason = str(error).removesuffix(".")
        raise DecodeError(
            f"not MessagePack that can be decoded here: {reason}: if its writer put bytes alone, open with "
            "serializer='raw'",
            data=data,
        ) from error


def _decoded(decoder: Decode, number: int, payload: bytes, data: bytes) -> Any:
    try:
        return decoder(payload)
    except MemoryError:
        raise  # as above
    except Exception as error:
        reraise_from_handler(error)
        raise DecodeError(f"serializer number {number} cannot decode it: {error}", data=data) from error


def _refusal(number: int) -> str:
    if number == _frame.PICKLE:
        return "it is a pickle and this handle does not allow it: open with allow_pickle=True if you trust the writers"
    name = next((name for name, entry in _registered.items() if entry.number == number), None)
    if name is not None:
        return f"it was written by serializer {name!r}: open with serializer={name!r} to read it"
    return f"it was written by serializer number {number}: register that serializer and open with its name"
