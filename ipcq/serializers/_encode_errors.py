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
from ipcq.serializers._unencodable import Unencodable

MSGPACK: Final = "MessagePack"
MSGSPEC: Final = "msgspec"
ARRAYS: Final = "serializer='arrays'"

#: The largest number of values to search for the culprit.
_MAX_VALUES: Final = 2_000

_PICKLE: Final = (
    "serializer='pickle' with allow_pickle=True on both ends, if you trust everyone who can write to the queue"
)
_OR_MSGSPEC: Final = ", or open both ends with serializer='msgspec'"
_OR_TEXT: Final = f"{_OR_MSGSPEC}, which writes it as text"
_OR_ARRAYS: Final = ", or open both ends with serializer='arrays'"
_TYPED: Final = "open both ends with type=, which restores it"

#: Types whose values can always be encoded.
_PLAIN: Final = (type(None), bool, float, bytes)


def encode_error(encoder: str, item: object, error: Exception, encode: Callable[[Any], object]) -> EncodeError:
    """Make the error for an item that an encoder refused.

    Args:
        encoder: Its name for the sentence, such as "MessagePack".
        item: The item.
        error: What the encoder raised.
        encode: Encodes a value or raises; used to find the culprit in the item.
    """
    try:
        found = _culprit(item, encode, encoder)
        path, value = found or ("", item)
        if isinstance(error, Unencodable):
            cause, advice = f" ({error.reason})", error.advice
        else:
            cause = _cause(error) if found is None or value is item else ""
            advice = _advice(value, error, encoder)
    except Exception as item_error:  # from code of the item, which may raise anything
        reraise_from_handler(item_error)
        path, value, cause, advice = "", item, _cause(error), _default_advice()
    kind = type(value).__name__
    where = f" at {path}" if path else ""
    verb = "hold" if encoder == MSGPACK else "encode"
    return EncodeError(f"{encoder} cannot {verb} this {kind}{where}{cause}: {advice}")


def _cause(error: Exception) -> str:
    text = str(error).removesuffix(".")
    return f" ({text})" if text else ""


def _culprit(item: object, encode: Callable[[Any], object], encoder: str) -> tuple[str, object] | None:
    """Find the first value in the item that cannot be encoded by itself, and return its path and the value."""
    rest: list[tuple[str, object]] = [("item", item)]
    for _ in range(_MAX_VALUES):
        if not rest:
            break
        path, value = rest.pop()
        parts = None if type(value) in _PLAIN else _parts(value, path, encoder)
        if parts is not None:
            rest += reversed(list(parts))
        elif type(value) not in _PLAIN:
            try:
                encode(value)
            except Exception as error:
                reraise_from_handler(error)
                return "" if value is item else path, value
    return None


def _parts(value: Any, path: str, encoder: str) -> Iterable[tuple[str, object]] | None:
    # With the methods of the builtin classes, so that overrides in a subclass do not run.
    kind = type(value)
    if issubclass(kind, dict):
        return _pairs(value, path)
    if issubclass(kind, list):
        return _indexed(list.__iter__(value), path)
    if issubclass(kind, tuple):
        return _indexed(tuple.__iter__(value), path)
    if encoder != MSGSPEC:
        return None
    if issubclass(kind, set | frozenset):
        return [(f"an element of {path}", part) for part in value]
    fields = fields_of(kind)
    return [(f"{path}.{name}", getattr(value, name)) for name in fields] or None


def _indexed(parts: Iterable[object], path: str) -> Iterator[tuple[str, object]]:
    return ((f"{path}[{index}]", part) for index, part in enumerate(parts))


def fields_of(kind: Any) -> list[str]:
    """Return the names of the fields of a record class; empty for any other class."""
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    if hasattr(kind, "__attrs_attrs__"):
        return [attribute.name for attribute in kind.__attrs_attrs__]
    return list(getattr(kind, "__struct_fields__", ()))


def _pairs(value: dict[Any, Any], path: str) -> Iterator[tuple[str, object]]:
    for key, part in dict.items(value):
        if type(key) is not str or not key.isascii():
            yield f"a key of {path}", key
        yield f"{path}[{reprlib.repr(key) if type(key) in (str, int) else '…'}]", part


#: By class name; all other classes are scalars. `.item()` of a datetime64 would return a datetime without a time zone.
_NUMPY_ADVICE: Final = {
    "ndarray": "put its .tolist(), or open both ends with serializer='arrays'",
    "datetime64": "put str(…)",
    "timedelta64": "put str(…)",
}


#: The libraries of tables.
_TABLES: Final = ("pandas", "polars", "pyarrow")
_TABLE_ADVICE: Final = f"put a list of its rows{_OR_ARRAYS}"


def _advice(value: object, error: Exception, encoder: str) -> str:
    kind = type(value)
    for classes, advice in _ADVICE:
        if issubclass(kind, classes):
            tried = {MSGSPEC: _OR_MSGSPEC, ARRAYS: _OR_ARRAYS}.get(encoder)
            return advice.partition(tried)[0] if tried else advice
    library, _, _ = kind.__module__.partition(".")
    if library == "numpy" or (library in _TABLES and encoder != ARRAYS):
        return _NUMPY_ADVICE.get(kind.__name__, "put its .item()") if library == "numpy" else _TABLE_ADVICE
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
    return _default_advice()


def _default_advice() -> str:
    return f"put a dict or a list of its contents, or use {_PICKLE}, or ipcq.serializers.register"


_ADVICE: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
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
    ((memoryview, array.array), f"put its .tobytes(){_OR_ARRAYS}"),
    ((range,), "put list(…) of it"),
    (
        (FunctionType, BuiltinFunctionType, MethodType, ModuleType, type),
        "put its name, and look it up in the consumer",
    ),
)
