"""MessagePack by msgpack, with a fast path for bytes.

The codec in C handles most messages, and calls `encode` and `decode` here for the others (see `_in_c`).

Timestamps become aware datetimes instead of msgpack's `Timestamp`: a producer can choose timestamps with equal hashes,
and decoding a map with these as keys would take quadratic time. Otherwise `unpackb` limits the memory by the size of
the message, and the nesting to 1,024 levels.
"""

from functools import partial
from typing import Any, Final

import msgpack

from ipcq._process.forks import Step, at_fork
from ipcq._process.imports import importing, shortage_reported
from ipcq._process.signals import reraise_from_handler
from ipcq.errors import EncodeError
from ipcq.serializers import _keys

# Packers are reused, because creating one costs more than packing a small dict. A Packer must not be entered twice, by
# two threads or by a signal handler, so it is out of the pool while in use; list.pop and list.append are atomic.
_idle: list[msgpack.Packer] = []


def _forget_idle() -> None:  # pragma: no cover - only in a forked child
    # Without a GIL, a thread that does not exist in the child may hold the lock of the old list.
    global _idle
    _idle = []


at_fork(Step.OTHERS, after_in_child=_forget_idle)

# The headers of bin 8 (0xC4) by length, so that short bytes cost one concatenation.
_BIN8_HEADERS: Final = tuple(b"\xc4" + bytes((length,)) for length in range(256))


def encode(item: Any) -> bytes:
    if item.__class__ is bytes:
        length = len(item)
        if length < 256:
            return _BIN8_HEADERS[length] + item
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
        # Discard the packer, which still contains part of the failed item.
        reraise_from_handler(error)
        with shortage_reported(), importing():
            from ipcq.serializers import _encode_errors  # here, because only an error needs it

        raise _encode_errors.encode_error(
            _encode_errors.MSGPACK, item, error, msgpack.Packer(datetime=True).pack
        ) from error
    _idle.append(packer)
    if _TIMESTAMP_96[0] in data and _TIMESTAMP_96 in data:  # the search for a single byte is several times faster
        _check_times(item, data)
    return data


def _check_times(item: Any, data: bytes) -> None:
    # Converted to UTC, a datetime may be in the year 0 or 10,000; a Timestamp of msgpack may be in any year.
    try:
        _keys.decode(data)
    except (OverflowError, ValueError) as error:
        raise EncodeError(
            f"a time in this {type(item).__name__} could not be decoded again ({error}): put times of the years 1 to "
            "9999 in UTC"
        ) from error


# The header of timestamp 96, for times before 1970 or after 2514; a chance match only costs an extra decoding.
_TIMESTAMP_96: Final = b"\xc7\x0c\xff"

decode: Final = partial(msgpack.unpackb, strict_map_key=False, timestamp=3)


def functions(type: None) -> tuple[Any, Any]:
    return encode, decode
