"""The header of every message that is not MessagePack: 0xC1 and the serializer's number. The gaps before buffers."""

from typing import Final

from ipcq.errors import DecodeError

MARK: Final = 0xC1
MSGPACK: Final = 0
PICKLE: Final = 1
ARRAYS: Final = 2
PICKLE_AND_BUFFERS: Final = 3

#: The numbers of serializers whose messages have buffers, which are aligned from the beginning of the message.
WITH_BUFFERS: Final = frozenset((ARRAYS, PICKLE_AND_BUFFERS))

#: Buffers begin at multiples of this number of bytes.
ALIGNMENT: Final = 64
_PADDING: Final = bytes(ALIGNMENT)

# Since protocol 2, every pickle begins with the opcode 0x80 and its protocol number.
_PROTOCOLS: Final = (b"\2", b"\3", b"\4", b"\5")

# A 32-bit number needs at most five groups of seven bits.
_MAX_GROUPS = 5


def mark(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes((MARK, *groups))


def padding(end: int) -> bytes:
    """Return the zeros between the end of a part of a message and the next buffer."""
    return _PADDING[: -end % ALIGNMENT]


def is_pickle(data: bytes) -> bool:
    """Return whether this is a pickle without a header: in MessagePack nothing follows the empty map 0x80."""
    return data[:1] == b"\x80" and data[1:2] in _PROTOCOLS


def split(data: bytes) -> tuple[int, int]:
    """Return the serializer's number in the header of a message, and where the payload begins."""
    if len(data) > 1 and data[1] < 0x80:
        return data[1], 2
    number = 0
    for place, group in enumerate(data[1 : 1 + _MAX_GROUPS]):
        number |= (group & 0x7F) << 7 * place
        if not group & 0x80:
            return number, 2 + place
    raise DecodeError("its header 0xC1 is not followed by a serializer's number", data=data)
