"""MessagePack with arrays, whose elements follow the MessagePack.

docs/explanation/wire.md has the format. An item without arrays is written as MessagePack alone. Arrays of NumPy and
memoryviews come back as views of the message, without a copy.
"""

import array
import math
import re
import struct
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from types import NoneType
from typing import Any, Final

import msgpack

from ipcq._distribution import DISTRIBUTION
from ipcq._process.imports import importing, shortage_reported
from ipcq._process.signals import reraise_from_handler
from ipcq.errors import EncodeError
from ipcq.serializers import _frame, _keys, _msgpack
from ipcq.serializers._unencodable import Unencodable

try:
    from ipcq.serializers import _numpy
except ModuleNotFoundError:  # any other error, such as a lack of descriptors, may pass
    NUMPY = False
else:
    NUMPY = True

_VERSION: Final = 1
_HEAD: Final = _frame.mark(_frame.ARRAYS) + bytes((_VERSION, 0))
#: Bytes before the structure: the head, and the size of the structure.
_STRUCTURE: Final = len(_HEAD) + 4

# MessagePack's types of extensions.
_NDARRAY, _SCALAR, _ARRAY, _MEMORYVIEW = _EXTENSIONS = range(96, 100)

#: Classes of values that MessagePack takes as they are.
_PLAIN: Final = frozenset((NoneType, bool, int, float, str, bytes, bytearray, datetime))

_NATIVE: Final = "<" if sys.byteorder == "little" else ">"
_ELEMENT: Final = re.compile("([<>|])([biufSU])([1-8])")


def _codes(codes: str, kind: str) -> dict[str, tuple[str, int]]:
    return {code: (kind, struct.calcsize(code)) for code in codes}


#: The kind of each code of an element, as in NumPy, and its size in bytes on this machine.
_NUMBERS: Final = _codes("bhilq", "i") | _codes("BHILQ", "u") | _codes("fd", "f")
# Python 3.13 added "w", and warns of "u".
_TEXT: Final = "w" if "w" in array.typecodes else "u"
_TYPECODES: Final = _NUMBERS | {_TEXT: ("U", array.array(_TEXT).itemsize)}
_FORMATS: Final = _NUMBERS | _codes("n", "i") | _codes("N", "u") | _codes("?", "b") | _codes("c", "S")


def encode(item: Any) -> bytes:
    writer = _Writer()
    try:
        structure = writer.structure(item)
    except Exception as error:
        raise _encode_error(item, error) from error
    packed = _msgpack.encode(structure)
    if structure is item:
        return packed
    try:
        return writer.message(packed)
    except (MemoryError, OverflowError) as error:
        raise _encode_error(item, error) from error


def head_of(array: Any) -> bytes:
    """Return what precedes the elements in the message of one array of NumPy, which has only these in one piece."""
    writer = _Writer()
    return b"".join(writer.head(_msgpack.encode(writer.structure(array))))


def _encode_error(item: Any, error: Exception) -> EncodeError:
    reraise_from_handler(error)
    with shortage_reported(), importing():
        from ipcq.serializers import _encode_errors  # here, because only an error needs it

    return _encode_errors.encode_error(_encode_errors.ARRAYS, item, error, lambda value: _Writer().structure(value))


class _Writer:
    """The buffers of one message."""

    def __init__(self) -> None:
        self._pieces: list[Any] = []
        self._end = 0  # from the beginning of the first buffer

    def message(self, packed: bytes) -> bytes:
        return b"".join((*self.head(packed), *self._pieces))

    def head(self, packed: bytes) -> tuple[bytes, bytes, bytes]:
        """Return what precedes the buffers."""
        padding = _frame.padding(_STRUCTURE + len(packed)) if self._pieces else b""
        return _HEAD + len(packed).to_bytes(4, "little"), packed, padding

    def structure(self, item: Any) -> Any:
        """Return what MessagePack has to write for an item: the item itself if it has no arrays.

        Raises:
            Unencodable: An array that cannot be written.
            Exception: From code of the item, or because it is nested too deeply.
        """
        kind = type(item)
        if kind in _PLAIN:
            return item
        if issubclass(kind, dict):
            return self._dict(item)
        if kind is msgpack.ExtType:
            if item.code in _EXTENSIONS:
                raise Unencodable(f"extension {item.code} stands for an array", "choose another code")
        elif issubclass(kind, list | tuple):
            return self._sequence(item)
        elif kind is array.array:
            return self._array(item)
        elif kind is memoryview:
            return self._memoryview(item)
        elif NUMPY and issubclass(kind, _numpy.ARRAY):
            return self._ndarray(item)
        # Scalars that are a float, str or bytes too are written as such.
        elif NUMPY and issubclass(kind, _numpy.SCALAR) and not issubclass(kind, float | str | bytes):
            return self._scalar(item)
        return item

    def _dict(self, item: dict[Any, Any]) -> dict[Any, Any]:
        if _PLAIN.issuperset(map(type, item)) and _PLAIN.issuperset(map(type, item.values())):
            return item
        changed = False
        parts = {}
        for key, value in item.items():
            new_key, new_value = self.structure(key), self.structure(value)
            changed |= new_key is not key or new_value is not value
            parts[new_key] = new_value
        if len(parts) != len(item):
            raise Unencodable("two of its keys would be written alike", "put a list of pairs")
        return parts if changed else item

    def _sequence(self, item: list[Any] | tuple[Any, ...]) -> Any:
        if _PLAIN.issuperset(map(type, item)):
            return item
        changed = False
        parts = []
        for value in item:
            new = self.structure(value)
            changed |= new is not value
            parts.append(new)
        if not changed:
            return item
        return parts if isinstance(item, list) else tuple(parts)  # a tuple may be a key of a dict

    def _ndarray(self, item: Any) -> msgpack.ExtType:
        description, shape, order, elements = _numpy.array_parts(item)
        return self._extension(_NDARRAY, elements, description, shape, order)

    def _scalar(self, item: Any) -> msgpack.ExtType:
        return msgpack.ExtType(_SCALAR, _msgpack.encode(_numpy.scalar_parts(item)))

    def _array(self, item: "array.array[Any]") -> msgpack.ExtType:
        if sys.platform == "win32" and item.typecode == "u":
            raise Unencodable("its characters have 16 bits", "put its .tounicode()")
        kind = "U" if item.typecode in "uw" else _TYPECODES[item.typecode][0]
        return self._extension(_ARRAY, memoryview(item), _element(kind, item.itemsize), (len(item),), item.typecode)

    def _memoryview(self, item: memoryview) -> msgpack.ExtType:
        code = item.format.removeprefix("@").removeprefix(_NATIVE)
        advice = "put np.asarray(…) of it, or its .tobytes()"
        if code not in _FORMATS:
            raise Unencodable(f"its format is {item.format!r}", advice)
        shape = tuple(item.shape or ())
        if len(shape) > 1 and item.nbytes == 0:
            raise Unencodable(f"it has no elements, and the shape {shape}", advice)
        elements = item if item.c_contiguous else memoryview(item.tobytes())
        return self._extension(_MEMORYVIEW, elements, _element(_FORMATS[code][0], item.itemsize), shape, code)

    def _extension(self, code: int, elements: Any, description: Any, shape: tuple[int, ...], form: str) -> Any:
        padding = _frame.padding(self._end)
        start = self._end + len(padding)
        self._pieces += padding, elements
        self._end = start + elements.nbytes
        return msgpack.ExtType(code, _msgpack.encode((start, description, shape, form)))


def _element(kind: str, size: int) -> str:
    return f"{'|' if size == 1 else _NATIVE}{kind}{size // 4 if kind == 'U' else size}"


def decode(message: bytes) -> Any:
    """Decode a message that begins with the mark of this serializer.

    Raises:
        Exception: It is invalid.
    """
    if len(message) < _STRUCTURE:
        raise ValueError("its head is truncated")
    if message[2:4] != _HEAD[2:]:
        raise ValueError(f"it is of version {message[2]}, and this release reads version {_VERSION}")
    end = _STRUCTURE + int.from_bytes(message[4:_STRUCTURE], "little")
    if end > len(message):
        raise ValueError("its structure is truncated")
    structure = memoryview(message)[_STRUCTURE:end]
    reader = _Reader(message, end)
    try:
        item = _msgpack.decode(structure, ext_hook=reader.value)
    except TypeError:  # of keys that are lists, among others
        reader = _Reader(message, end)
        item = _keys.decode(structure, ext_hook=reader.value)
    if reader.end != len(message):
        raise ValueError("it goes on after its last buffer")
    return item


class _Reader:
    """The values of a structure that stand for arrays."""

    def __init__(self, message: bytes, end: int) -> None:
        self.end = end  # of what has been read
        self._message = message
        self._first = end + -end % _frame.ALIGNMENT
        self._scalars: dict[bytes, Any] = {}
        self._hashes: dict[int, int] = {}
        self._collisions = 0

    def value(self, code: int, data: bytes) -> Any:
        if code not in _EXTENSIONS:
            return msgpack.ExtType(code, data)
        if not NUMPY and code in (_NDARRAY, _SCALAR):
            raise ValueError(
                f"it has arrays of NumPy, which is not installed here: pip install '{DISTRIBUTION}[arrays]'"
            )
        if code == _SCALAR:
            return self._scalar(data)
        start, description, shape, form = msgpack.unpackb(data)
        return _READERS[code](self, start, description, _checked_shape(shape), form)

    def _scalar(self, data: bytes) -> Any:
        # Scalars may be keys, and a producer can choose those with equal hashes.
        if data not in self._scalars:
            description, value = msgpack.unpackb(data)
            scalar = self._scalars[data] = _numpy.scalar_in(value, _numpy.dtype_of(description))
            try:
                number = hash(scalar)
            except TypeError:
                return scalar  # it has a subarray, so it can be no key
            same = self._hashes.get(number, 0)
            self._hashes[number] = same + 1
            self._collisions += same
            if self._collisions > _keys.MAX_COLLISIONS:
                raise ValueError("too many scalars have the same hash")
        return self._scalars[data]

    def _ndarray(self, start: object, description: object, shape: tuple[int, ...], order: object) -> Any:
        dtype = _numpy.dtype_of(description)
        begin, _ = self._buffer(start, shape, dtype.itemsize)
        return _numpy.array_in(self._message, begin, dtype, shape, order)

    def _array(self, start: object, element: object, shape: tuple[int, ...], typecode: object) -> Any:
        code, size, swapped = _native(element, typecode, _TYPECODES)
        if len(shape) != 1:
            raise ValueError(f"an array.array has the shape {shape}")
        begin, end = self._buffer(start, shape, size)
        elements: array.array[Any] = array.array(code)
        elements.frombytes(memoryview(self._message)[begin:end])
        if swapped:
            elements.byteswap()
        if code == _TEXT:
            elements.tounicode()  # raises ValueError for impossible characters
        return elements

    def _memoryview(self, start: object, element: object, shape: tuple[int, ...], format: object) -> memoryview:
        code, size, swapped = _native(element, format, _FORMATS)
        if swapped:
            raise ValueError("a memoryview has the byte order of another machine")
        begin, end = self._buffer(start, shape, size)
        elements = memoryview(self._message)[begin:end]
        # With a shape, memoryview refuses to have no elements.
        arguments: Any = (code,) if len(shape) == 1 else (code, shape)  # mypy wants literals
        return elements.cast(*arguments)

    def _buffer(self, start: object, shape: tuple[int, ...], size: int) -> tuple[int, int]:
        """Return where the next buffer begins and ends, which the message has to say too."""
        begin = self.end + -self.end % _frame.ALIGNMENT
        if type(start) is not int or start != begin - self._first:
            raise ValueError(f"a buffer is at {start!r} and should be at {begin - self._first}")
        end = begin + math.prod(shape) * size
        if end > len(self._message):
            raise ValueError(f"a buffer ends at {end}, and the message at {len(self._message)}")
        self.end = end
        return begin, end


_READERS: Final[Mapping[int, Callable[..., Any]]] = {
    _NDARRAY: _Reader._ndarray,
    _ARRAY: _Reader._array,
    _MEMORYVIEW: _Reader._memoryview,
}


def _checked_shape(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"an array has the shape {shape!r}")
    return tuple(shape)


def _native(element: object, code: object, codes: Mapping[str, tuple[str, int]]) -> tuple[str, int, bool]:
    """Return the code of this machine for an element, its size, and whether its bytes have to be swapped."""
    match = _ELEMENT.fullmatch(element) if isinstance(element, str) else None
    if match is None:
        raise ValueError(f"no element is called {element!r}")
    order, kind, digits = match.groups()
    size = int(digits) * (4 if kind == "U" else 1)
    fitting = [each for each, what in codes.items() if what == (kind, size)]
    if not fitting:
        raise ValueError(f"this machine has no elements of {element!r}")
    return str(code) if code in fitting else fitting[0], size, order not in ("|", _NATIVE)
