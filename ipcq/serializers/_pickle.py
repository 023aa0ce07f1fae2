"""Pickle, protocol 5: any Python object; decoding can run any code, so both ends must allow it explicitly.

Large buffers, such as the elements of NumPy's arrays, follow the pickle instead of being copied into it.
docs/explanation/wire.md has the format.
"""

import pickle
from collections.abc import Iterator
from struct import Struct
from typing import Any, Final

from ipcq._process.signals import reraise_from_handler
from ipcq.errors import EncodeError
from ipcq.serializers import _frame

_PROTOCOL: Final = 5
_dumps: Final = pickle.dumps
decode: Final = pickle.loads

_MARK: Final = _frame.mark(_frame.PICKLE)

_VERSION: Final = 1
#: The mark, the version, 0, the number of buffers, the size of the pickle.
_HEAD: Final = Struct("<2sBBIQ")
_BUFFERS_MARK: Final = _frame.mark(_frame.PICKLE_AND_BUFFERS)
#: For each buffer: its size times two, and 1 if it is writable.
_BUFFER: Final = Struct("<Q")
#: Smaller buffers, in bytes, are copied into the pickle, which takes no more time and less space.
SMALLEST: Final = 1 << 16


class _Buffers(list[memoryview]):
    """The buffers that follow a pickle. As a closure, `take` would cost small pickles more."""

    __slots__ = ()

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Keep a large buffer; return whether the pickle has to take it instead."""
        elements = buffer.raw()
        if elements.nbytes < SMALLEST:
            return True
        self.append(elements)
        return False


def encode(item: Any) -> bytes:
    buffers = _Buffers()
    try:
        pickled = _dumps(item, _PROTOCOL, buffer_callback=buffers.take)
        return _joined(pickled, buffers) if buffers else _MARK + pickled
    except Exception as error:
        reraise_from_handler(error)
        raise EncodeError(
            f"serializer 'pickle' cannot encode this {type(item).__name__}: {error}: put its parts: pickle takes "
            "classes and functions at the top level of a module, and no open files"
        ) from error


def _joined(pickled: bytes, buffers: list[memoryview]) -> bytes:
    pieces: list[bytes | memoryview] = [_HEAD.pack(_BUFFERS_MARK, _VERSION, 0, len(buffers), len(pickled))]
    pieces += (_BUFFER.pack(buffer.nbytes << 1 | (not buffer.readonly)) for buffer in buffers)
    pieces.append(pickled)
    end = _HEAD.size + len(buffers) * _BUFFER.size + len(pickled)
    for buffer in buffers:
        padding = _frame.padding(end)
        pieces += padding, buffer
        end += len(padding) + buffer.nbytes
    return b"".join(pieces)


def decode_with_buffers(message: bytes) -> Any:
    """Decode a message that begins with the mark of a pickle with buffers.

    Raises:
        Exception: It is invalid.
    """
    if len(message) < _HEAD.size:
        raise ValueError("its head is truncated")
    mark, version, zero, count, size = _HEAD.unpack_from(message)
    if (mark, version, zero) != (_BUFFERS_MARK, _VERSION, 0):
        raise ValueError(f"it is of version {version}, and this release reads version {_VERSION}")
    start = _HEAD.size + count * _BUFFER.size
    end = start + size
    if end > len(message):
        raise ValueError("its pickle is truncated")
    view = memoryview(message)
    buffers = _buffers(view, [word for (word,) in _BUFFER.iter_unpack(view[_HEAD.size : start])], end)
    item = pickle.loads(view[start:end], buffers=buffers)
    if next(buffers, None) is not None:
        raise ValueError("it has more buffers than its pickle uses")
    return item


def _buffers(message: memoryview, words: list[int], end: int) -> Iterator[memoryview | bytearray]:
    """Return the buffers from `end` on; the last must end with the message.

    A read-only buffer is a part of the message. A writable one is a copy, which its object may change.
    """
    places = []
    for word in words:
        begin = end + len(_frame.padding(end))
        end = begin + (word >> 1)
        places.append((begin, end, word & 1))
    if end != len(message):
        raise ValueError(f"its last buffer ends at {end}, and the message at {len(message)}")
    return (bytearray(message[begin:end]) if writable else message[begin:end] for begin, end, writable in places)
