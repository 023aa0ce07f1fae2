"""What a handle with ``type=`` lets in: what the other end gives back as it was.

msgspec writes any record by its fields, and reads it back as the type says. So a record of another class would be
refused there, and fields that only a subclass has would vanish.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any, Final

import msgspec
import msgspec.inspect

from ipcq._process.signals import reraise_from_handler
from ipcq.errors import EncodeError, InvalidArgument
from ipcq.serializers._ways import fields_of

#: One of each kind that can be decoded where the type says nothing that msgspec knows.
_DECODED: Final[tuple[Any, ...]] = (None, True, 0, 0.0, "", b"", [], {}, datetime.now(UTC))


def check_type(type: Any) -> None:
    """Refuse a type with a part that no message can become.

    Raises:
        InvalidArgument: There is one; the text names it and the way out.
    """
    rest: list[Any] = [msgspec.inspect.type_info(type)]
    seen: set[int] = set()  # a type may contain itself
    while rest:
        part = rest.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, msgspec.inspect.CustomType) and not any(isinstance(each, part.cls) for each in _DECODED):
            raise InvalidArgument(
                f"type={type!r} has a part that msgspec cannot decode, {part.cls!r}: {_instead(part.cls)}"
            )
        if isinstance(part, tuple):
            rest += part
        elif isinstance(part, msgspec.inspect.Type | msgspec.inspect.Field):
            rest += (getattr(part, name) for name in part.__struct_fields__)


def _instead(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, PurePath):
        return "say str, and put str(…) of it"
    if hasattr(kind, "model_dump"):
        return "leave type= out, put its .model_dump(mode='json'), and get it back by .model_validate(…)"
    return (
        "say a dataclass, a TypedDict or a builtin type, or open both ends with serializer='pickle' and "
        "allow_pickle=True, if you trust whoever can write to the queue"
    )


def difference(item: Any, back: Any) -> str | None:
    """Say what of an item is not in what the other end would get, or None."""
    rest: list[tuple[str, Any, Any]] = [("item", item, back)]
    while rest:
        place, one, other = rest.pop()
        mine, theirs = fields_of(type(one)), fields_of(type(other))
        if mine and theirs and type(one) is not type(other):
            return f"{place} is of class {type(one).__name__} and would come back as {type(other).__name__}"
        if mine and theirs:
            rest += ((f"{place}.{name}", getattr(one, name), getattr(other, name)) for name in mine)
        elif isinstance(one, dict) and theirs:
            lost = [key for key in one if key not in _names(other)]
            if lost:
                return f"{place} has the key {lost[0]!r}, which is no field of {type(other).__name__}"
        elif isinstance(one, dict) and isinstance(other, dict):
            rest += _pairs(place, one.values(), other.values())
        elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
            rest += _pairs(place, one, other)
    return None


def _pairs(place: str, ones: Iterable[Any], others: Iterable[Any]) -> Iterable[tuple[str, Any, Any]]:
    return ((f"a value in {place.removeprefix('a value in ')}", *pair) for pair in zip(ones, others, strict=False))


def _names(record: Any) -> set[str]:
    """Return what the fields of a record are called on the wire, with the one that tells its class."""
    if isinstance(record, msgspec.Struct):
        return {*record.__struct_encode_fields__, record.__struct_config__.tag_field or ""}
    return set(fields_of(type(record)))


def encoder(type: Any, pack: Any, unpack: Any) -> Any:
    """Return a function that encodes what the other end will give back."""

    def encode(item: Any) -> bytes:
        data: bytes = pack(item)
        try:
            back = unpack(data)
            # Only what is the same class and the same bytes can be taken without a closer look.
            lost = None if back.__class__ is item.__class__ and pack(back) == data else difference(item, back)
        except MemoryError:
            raise
        except Exception as error:
            reraise_from_handler(error)
            raise _refused(type, item, str(error)) from error
        if lost:
            raise _refused(type, item, lost)
        return data

    return encode


def _refused(type_: Any, item: Any, reason: str) -> EncodeError:
    wanted = getattr(type_, "__name__", None) or str(type_)
    return EncodeError(
        f"type={wanted} would not give back this {type(item).__name__} ({reason}): put a {wanted}, or open both "
        "ends with a type= that has both"
    )
