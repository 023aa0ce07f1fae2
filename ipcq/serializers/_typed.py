"""The check of a handle with ``type=``: an item is put only if the other end gets an equal one.

msgspec writes a record of any class by its fields, and decodes it as the declared type. So the other end would refuse a
record of an unrelated class, and would lose the fields that only a subclass has.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Final

import msgspec
import msgspec.inspect

from ipcq._process.signals import reraise_from_handler
from ipcq.errors import EncodeError, InvalidArgument
from ipcq.serializers._encode_errors import fields_of

#: A value of each type that msgspec can decode without a declared type.
_NATIVE_VALUES: Final[tuple[Any, ...]] = (None, True, 0, 0.0, "", b"", [], {}, datetime.now(UTC))


def check_type(type: Any) -> None:
    """Check that msgspec can decode every part of a type.

    Raises:
        InvalidArgument: It cannot decode a part; the text names the part and the way out.
    """
    rest: list[Any] = [msgspec.inspect.type_info(type)]
    seen: set[int] = set()  # a type may contain itself
    while rest:
        part = rest.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, msgspec.inspect.CustomType) and not any(
            isinstance(each, part.cls) for each in _NATIVE_VALUES
        ):
            raise InvalidArgument(
                f"type={type!r} has a part that msgspec cannot decode, {part.cls!r}: {_advice(part.cls)}"
            )
        if isinstance(part, tuple):
            rest += part
        elif isinstance(part, msgspec.inspect.Type | msgspec.inspect.Field):
            rest += (getattr(part, name) for name in part.__struct_fields__)


def _advice(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, PurePath):
        return "use str, and put str(…) of it"
    if hasattr(kind, "model_dump"):
        return "leave type= out, put its .model_dump(mode='json'), and restore it with .model_validate(…)"
    return (
        "use a dataclass, a TypedDict or a builtin type, or open both ends with serializer='pickle' and "
        "allow_pickle=True, if you trust everyone who can write to the queue"
    )


def difference(item: Any, decoded: Any) -> str | None:
    """Describe what the decoded item has lost of the original, or return None."""
    rest: list[tuple[str, Any, Any]] = [("item", item, decoded)]
    while rest:
        path, one, other = rest.pop()
        fields, other_fields = fields_of(type(one)), fields_of(type(other))
        if fields and other_fields and type(one) is not type(other):
            return f"{path} is of class {type(one).__name__} and would come back as {type(other).__name__}"
        if fields and other_fields:
            rest += ((f"{path}.{name}", getattr(one, name), getattr(other, name)) for name in fields)
        elif isinstance(one, dict) and other_fields:
            lost = [key for key in one if key not in _wire_names(other)]
            if lost:
                return f"{path} has the key {lost[0]!r}, which is no field of {type(other).__name__}"
        elif isinstance(one, dict) and isinstance(other, dict):
            rest += _pairs(path, one.values(), other.values())
        elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
            rest += _pairs(path, one, other)
    return None


def _pairs(path: str, ones: Iterable[Any], others: Iterable[Any]) -> Iterable[tuple[str, Any, Any]]:
    return ((f"a value in {path.removeprefix('a value in ')}", *pair) for pair in zip(ones, others, strict=False))


def _wire_names(record: Any) -> set[str]:
    """Return the names of a record's fields on the wire, including the tag of its class."""
    if isinstance(record, msgspec.Struct):
        return {*record.__struct_encode_fields__, record.__struct_config__.tag_field or ""}
    return set(fields_of(type(record)))


def encoder(type: Any, pack: Any, unpack: Any) -> Any:
    """Return a function that encodes an item and checks that the other end would get an equal one."""

    def encode(item: Any) -> bytes:
        data: bytes = pack(item)
        try:
            decoded = unpack(data)
            # If the class and the bytes are the same, no further comparison is needed.
            lost = None if decoded.__class__ is item.__class__ and pack(decoded) == data else difference(item, decoded)
        except MemoryError:
            raise
        except Exception as error:
            reraise_from_handler(error)
            raise _not_restored(type, item, str(error)) from error
        if lost:
            raise _not_restored(type, item, lost)
        return data

    return encode


def _not_restored(type_: Any, item: Any, reason: str) -> EncodeError:
    declared = getattr(type_, "__name__", None) or str(type_)
    return EncodeError(
        f"type={declared} would not restore this {type(item).__name__} ({reason}): put a {declared}, or open both ends "
        "with a type= that includes both"
    )
