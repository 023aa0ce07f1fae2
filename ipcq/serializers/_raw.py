"""The bytes alone, exactly as given."""

from typing import Any

from ipcq.errors import EncodeError


def encode(item: Any) -> bytes:
    if item.__class__ is bytes:
        return item
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    raise EncodeError(f"serializer='raw' takes bytes, bytearray or memoryview, not {item.__class__.__name__}")


def decode(data: bytes) -> bytes:
    return data
