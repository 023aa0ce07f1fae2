"""MessagePack through msgpack, with the short path for bytes.

Timestamps become aware datetimes, and not msgpack's own class: its hash can be steered by whoever writes the message,
so that a map keyed by chosen timestamps would take time quadratic in its length. For all else `unpackb` bounds memory
by the message's length and nesting by 1,024 levels.
"""

from functools import partial
from typing import Any, Final

import msgpack

from ipcq._process.imports import importing, shortage_reported
from ipcq._process.signals import reraise_from_handler
from ipcq.errors import EncodeError
from ipcq.serializers import _keys

# A Packer is reused because making one costs more than packing a small dict. It must not be entered twice, neither by
# two threads nor by a signal handler within one, so it is taken out of the pool meanwhile; list.pop and append are
# atomic.
_idle: list[msgpack.Packer] = []

# The heads of bin 8 (0xC4) by length, so that short bytes cost one concatenation.
_SHORT: Final = tuple(b"\xc4" + bytes((length,)) for length in range(256))


def encode(item: Any) -> bytes:
    if item.__class__ is bytes:
        length = len(item)
        if length < 256:
            return _SHORT[length] + item
        if length < 1 << 32:
            head = b"\xc5" + length.to_bytes(2) if length < 65536 else b"\xc6" + length.to_bytes(4)
            return head + item
    try:
        packer = _idle.pop()
    except IndexError:
        packer = msgpack.Packer(datetime=True)
    try:
        data: bytes = packer.pack(item)
    except Exception as error:
        # The packer goes: what it holds of the failed item is nobody's business.
        reraise_from_handler(error)
        with shortage_reported(), importing():
            from ipcq.serializers import _ways  # here, because most programs never need it

        raise _ways.encode_error(_ways.MSGPACK, item, error, msgpack.Packer(datetime=True).pack) from error
    _idle.append(packer)
    if _FAR[0] in data and _FAR in data:  # a single byte is looked for several times faster
        _check_times(item, data)
    return data


def _check_times(item: Any, data: bytes) -> None:
    # A time beside UTC may be in the year 0 or 10,000 there, and a Timestamp of msgpack in any.
    try:
        _keys.decode(data)
    except (OverflowError, ValueError) as error:
        raise EncodeError(
            f"MessagePack cannot hold a time in this {type(item).__name__} so that it could be read ({error}): put "
            "times of the years 1 to 9999 in UTC"
        ) from error


# The head of a timestamp before 1970 or after 2514; elsewhere these bytes are chance, and cost a look.
_FAR: Final = b"\xc7\x0c\xff"

decode: Final = partial(msgpack.unpackb, strict_map_key=False, timestamp=3)


def functions(type: None) -> tuple[Any, Any]:
    return encode, decode
