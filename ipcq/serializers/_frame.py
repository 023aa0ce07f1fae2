"""The mark in front of every message that is not bare MessagePack: 0xC1 and the serializer's number."""

from typing import Final

from ipcq.errors import DecodeError

MARK: Final = 0xC1
MSGPACK: Final = 0
PICKLE: Final = 1

# A 32-bit number needs five groups of seven bits; more is not ours.
_LONGEST = 5


def mark(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes((MARK, *groups))


def split(data: bytes) -> tuple[int, bytes]:
    """Part a marked message into the serializer's number and the payload."""
    number = 0
    for place, group in enumerate(data[1 : 1 + _LONGEST]):
        number |= (group & 0x7F) << 7 * place
        if not group & 0x80:
            return number, data[2 + place :]
    raise DecodeError("its mark 0xC1 is not followed by a serializer's number", data=data)
