"""Raw bytes, unchanged."""

import re
from typing import Any, Final

from ipcq._process.signals import reraise_from_handler
from ipcq.errors import EncodeError

#: An address in the format of a buffer: a Python object, or a pointer of C. "Z" begins NumPy's complex numbers too.
_ADDRESS: Final = re.compile("[OPz&X]|Z(?![fdg])")
#: The name of a field in the format of a buffer.
_FIELD: Final = re.compile(":[^:]*:")


def encode(item: Any) -> bytes:
    """Return the bytes of an object with a buffer: those of its elements, in C order.

    Raises:
        EncodeError: The object offers no buffer, or its buffer holds addresses, which mean nothing to a reader.
    """
    if item.__class__ is bytes:
        return item
    try:
        with memoryview(item) as view:
            kind, data = view.format, view.tobytes()
    except Exception as error:  # from __buffer__ of a class of Python, which may raise anything
        reraise_from_handler(error)
        cause = "" if isinstance(error, TypeError) else f" ({str(error).removesuffix('.')})"
        raise _error(item, cause) from error
    if _ADDRESS.search(_FIELD.sub("", kind)):
        raise _error(item, f" with addresses (its format is {kind!r})")
    return data


def _error(item: Any, cause: str = "") -> EncodeError:
    advice = "put text.encode()" if isinstance(item, str) else "encode it first"
    return EncodeError(
        "serializer='raw' takes bytes and other buffers (bytearray, memoryview, array.array, mmap, NumPy arrays), "
        f"not {type(item).__name__}{cause}: {advice}, or open both ends without serializer='raw'"
    )


def decode(data: bytes) -> bytes:
    return data
