"""The error for an item that cannot be encoded: which value in it, where, and the way out for its type.

This runs after an encoder has failed, and must not raise: if it finds nothing, the error is less precise. It runs code
of the item only where an encoder would.
"""

import array
import dataclasses
import decimal
import enum
import reprlib
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time, timedelta
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final

from ipcq._process.signals import reraise_from_handler
from ipcq.errors import EncodeError

MSGPACK: Final = "MessagePack"
MSGSPEC: Final = "msgspec"

#: The largest number of values to search for the culprit.
_MAX_VALUES: Final = 2_000

_PICKLE: Final = (
    "serializer='pickle' with allow_pickle=True on both ends, if you trust everyone who can write to the queue"
)
_OR_MSGSPEC: Final = ", or open both ends with serializer='msgspec'"
_OR_TEXT: Final = f"{_OR_MSGSPEC}, which writes it as text"
_TYPED: Final = "open both ends with type=, which restores it"

#: Types whose values can always be encoded.
_PLAIN: Final = (type(None), bool, float, bytes)


def encode_error(who: str, item: object, error: Exception, encode: Callable[[Any], object]) -> EncodeError:
    """Make the error for an item that an encoder refused.

    Args:
        who: The subject of the sentence, such as "MessagePack".
        item: What was to be encoded.
        error: What the encoder raised.
        encode: Encodes a value or raises; used to find the culprit in the item.
    """
    try:
        found = _culprit(item, encode, who)
        place, value = found or ("", item)
        reason = _reason(error) if found is None or value is item else ""
        way = _way(value, error, who)
    except Exception as failure:  # from code of the item, which may raise anything
        reraise_from_handler(failure)
        place, value, reason, way = "", item, _reason(error), _otherwise()
    kind = type(value).__name__
    where = f" at {place}" if place else ""
    verb = "hold" if who == MSGPACK else "encode"
    return EncodeError(f"{who} cannot {verb} this {kind}{where}{reason}: {way}")


def _reason(error: Exception) -> str:
    said = str(error).removesuffix(".")
    return f" ({said})" if said else ""


def _culprit(item: object, encode: Callable[[Any], object], who: str) -> tuple[str, object] | None:
    """Find the first value in the item that cannot be encoded by itself, and return its place and the value."""
    rest: list[tuple[str, object]] = [("item", item)]
    for _ in range(_MAX_VALUES):
        if not rest:
            break
        place, value = rest.pop()
        parts = None if type(value) in _PLAIN else _parts(value, place, who)
        if parts is not None:
            rest += reversed(list(parts))
        elif type(value) not in _PLAIN:
            try:
                encode(value)
            except Exception as error:
                reraise_from_handler(error)
                return "" if value is item else place, value
    return None


def _parts(value: Any, place: str, who: str) -> Iterable[tuple[str, object]] | None:
    # With the methods of the builtin classes, so that overrides in a subclass do not run.
    kind = type(value)
    if issubclass(kind, dict):
        return _pairs(value, place)
    if issubclass(kind, list):
        return _numbered(list.__iter__(value), place)
    if issubclass(kind, tuple):
        return _numbered(tuple.__iter__(value), place)
    if who != MSGSPEC:
        return None
    if issubclass(kind, set | frozenset):
        return [(f"an element of {place}", part) for part in value]
    fields = fields_of(kind)
    return [(f"{place}.{name}", getattr(value, name)) for name in fields] or None


def _numbered(parts: Iterable[object], place: str) -> Iterator[tuple[str, object]]:
    return ((f"{place}[{index}]", part) for index, part in enumerate(parts))


def fields_of(kind: Any) -> list[str]:
    """Return the names of the fields of a record class; empty for any other class."""
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    if hasattr(kind, "__attrs_attrs__"):
        return [attribute.name for attribute in kind.__attrs_attrs__]
    return list(getattr(kind, "__struct_fields__", ()))


def _pairs(value: dict[Any, Any], place: str) -> Iterator[tuple[str, object]]:
    for key, part in dict.items(value):
        if type(key) is not str or not key.isascii():
            yield f"a key of {place}", key
        yield f"{place}[{reprlib.repr(key) if type(key) in (str, int) else '…'}]", part


#: By class name; all other classes are scalars. `.item()` of a datetime64 would return a datetime without a time zone.
_NUMPY_WAYS: Final = {
    "ndarray": "put its .tolist(), or a dict of its .tobytes(), .dtype.str and .shape",
    "datetime64": "put str(…)",
    "timedelta64": "put str(…)",
}


def _way(value: object, error: Exception, who: str) -> str:
    kind = type(value)
    for classes, way in _WAYS:
        if issubclass(kind, classes):
            return way.partition(_OR_MSGSPEC)[0] if who == MSGSPEC else way
    if kind.__module__.partition(".")[0] == "numpy":
        return _NUMPY_WAYS.get(kind.__name__, "put its .item()")
    if dataclasses.is_dataclass(kind):
        return f"{_TYPED}, or put dataclasses.asdict(…)"
    if hasattr(kind, "__struct_fields__"):
        return f"{_TYPED}, or put msgspec.to_builtins(…)"
    if hasattr(kind, "__attrs_attrs__"):
        return f"{_TYPED}, or put attrs.asdict(…)"
    if hasattr(kind, "model_dump"):
        return f"put its .model_dump(mode='json'), or use {_PICKLE}"
    if issubclass(kind, dict | list | tuple) or isinstance(error, RecursionError):
        return "it contains itself, is nested too deeply, or was changed meanwhile: put its parts separately"
    if hasattr(kind, "__next__"):
        return "put list(…) of it"
    return _otherwise()


def _otherwise() -> str:
    return f"put a dict or a list of its contents, or use {_PICKLE}, or ipcq.serializers.register"


_WAYS: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    ((enum.Enum,), f"put its .value{_OR_MSGSPEC}, which writes the value"),
    ((int,), "integers go from -2**63 to 2**64-1: put it as text or as bytes"),
    ((str,), "it has a lone surrogate: put text.encode(errors='surrogateescape')"),
    ((uuid.UUID,), f"put str(…) or its .bytes{_OR_TEXT}"),
    ((decimal.Decimal,), f"put str(…){_OR_TEXT}"),
    ((set, frozenset), f"put list(…) of it{_OR_MSGSPEC}, which writes a list"),
    ((datetime,), "give it a time zone with .astimezone(), or put its .isoformat()"),
    ((date, time), f"put its .isoformat(){_OR_TEXT}"),
    ((timedelta,), f"put its .total_seconds(){_OR_TEXT}"),
    ((PurePath,), "put str(…) or os.fsencode(…) of it"),
    ((complex,), "put [z.real, z.imag]"),
    ((BaseException,), f"put repr(…) or traceback.format_exception(…), or use {_PICKLE}"),
    ((memoryview, array.array), "put its .tobytes()"),
    ((range,), "put list(…) of it"),
    (
        (FunctionType, BuiltinFunctionType, MethodType, ModuleType, type),
        "put its name, and look it up in the consumer",
    ),
)
