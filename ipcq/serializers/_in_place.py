"""Messages that are built or read where they lie: their heads, and the bytes behind the heads.

A message whose item is bytes is these bytes alone on a queue with ``serializer="raw"``, and elsewhere MessagePack's
head of a bin, then the bytes. The head of an array, with ``serializer="arrays"``, is all that precedes its elements.
"""

from typing import Any, Final, Literal

from ipcq._distribution import DISTRIBUTION
from ipcq._process.imports import importing, shortage_reported
from ipcq.errors import InvalidArgument, Unsupported
from ipcq.serializers import _frame

#: Bytes in front of a reservation's buffer, for the head; the head of an array with 64 dimensions needs less.
HEAD_ROOM: Final = 1024

#: What a codec makes of bytes: the bytes alone, a bin of MessagePack, the same beside arrays, or something else.
Kind = Literal["raw", "bin", "arrays", ""]

#: The first byte of MessagePack's bins, and the number of bytes of the size that follows it.
_BINS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}


def head_of_bytes(kind: Kind, size: int) -> bytes:
    """Return what precedes an item of `size` bytes.

    Raises:
        InvalidArgument: MessagePack has no bytes of that size.
    """
    if kind == "raw":
        return b""
    for first, width in _BINS.items():
        if size < 1 << 8 * width:
            return bytes((first, *size.to_bytes(width, "big")))
    raise InvalidArgument(f"MessagePack writes at most 4294967295 bytes, not {size}: open with serializer='raw'")


def bytes_in(kind: Kind, message: memoryview) -> memoryview | None:
    """Return the part of a message that is its item, or None if the item is not bytes."""
    if kind == "raw":
        return message
    width = _BINS.get(message[0]) if kind and message else None
    if width is None or int.from_bytes(message[1 : 1 + width], "big") != len(message) - 1 - width:
        return None
    return message[1 + width :]


def is_of_arrays(message: memoryview) -> bool:
    """Return whether a message was written with ``serializer="arrays"`` and has arrays."""
    return bytes(message[:2]) == _frame.mark(_frame.ARRAYS)


def head_of_array(array: Any) -> bytes:
    """Return what precedes the elements of an array in its message, with ``serializer="arrays"``."""
    with shortage_reported(), importing():
        from ipcq.serializers import _arrays  # here, because only these queues need it

    return _arrays.head_of(array)


def array_over(buffer: memoryview, shape: Any, dtype: Any) -> Any:
    """Return an array of NumPy at the beginning of a buffer.

    Raises:
        Unsupported: NumPy is not installed.
        InvalidArgument: The array does not fit, its elements are Python objects, or NumPy knows no such dtype or shape.
    """
    try:
        with shortage_reported(), importing():
            from ipcq.serializers import _numpy
    except ModuleNotFoundError:
        raise Unsupported(f"arrays need NumPy: pip install '{DISTRIBUTION}[arrays]'") from None
    return _numpy.array_over(buffer, shape, dtype)
