"""Raw bytes, unchanged."""

from typing import Any

from ipcq.errors import EncodeError


def encode(item: Any) -> bytes:
    if item.__class__ is bytes:
        return item
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    advice = "put text.encode()" if isinstance(item, str) else "encode it first"
    raise EncodeError(
        f"serializer='raw' takes bytes, bytearray or memoryview, not {type(item).__name__}: {advice}, or open both "
        "ends without serializer='raw'"
    )


def decode(data: bytes) -> bytes:
    return data
