"""The mark in front of every message that is not bare MessagePack: 0xC1 and the serializer's number."""

from typing import Final

from ipcq.errors import DecodeError

MARK: Final = 0xC1
MSGPACK: Final = 0
PICKLE: Final = 1

# Since the second every pickle begins with the number of its protocol.
_PROTOCOLS: Final = (b"\2", b"\3", b"\4", b"\5")

# A 32-bit number needs five groups of seven bits; more is not ours.
_LONGEST = 5


def mark(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes((MARK, *groups))


def is_pickle(data: bytes) -> bool:
    """Tell a pickle without a mark: its first two bytes are no MessagePack, which has nothing behind an empty map."""
    return data[:1] == b"\x80" and data[1:2] in _PROTOCOLS


def split(data: bytes) -> tuple[int, bytes]:
    """Part a marked message into the serializer's number and the payload."""
    number = 0
    for place, group in enumerate(data[1 : 1 + _LONGEST]):
        number |= (group & 0x7F) << 7 * place
        if not group & 0x80:
            return number, data[2 + place :]
    raise DecodeError("its mark 0xC1 is not followed by a serializer's number", data=data)
