"""MessagePack with arrays and tables, whose elements follow the MessagePack.

docs/explanation/wire.md has the format. An item without arrays is written as MessagePack alone. Arrays of NumPy,
memoryviews and tables of Arrow come back as views of the message, without a copy.
"""

import array
import math
import re
import struct
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import import_module
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
_NDARRAY, _SCALAR, _ARRAY, _MEMORYVIEW, _TABLE, _FRAME = _EXTENSIONS = range(96, 102)

#: Classes of values that MessagePack takes as they are.
_PLAIN: Final = frozenset((NoneType, bool, int, float, str, bytes, bytearray, datetime))

_NATIVE: Final = "<" if sys.byteorder == "little" else ">"
#: What the stream of a table was, and becomes again.
_BATCH_OF_ARROW, _TABLE_OF_ARROW, _FRAME_OF_POLARS = "RecordBatch", "Table", "polars"

#: The names of classes of tables. Only for these the library is looked up.
_TABLES: Final = frozenset(("DataFrame", "RecordBatch", "Table"))

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
        elif kind in (array.array, memoryview):
            return self._array(item) if kind is array.array else self._memoryview(item)
        elif NUMPY and issubclass(kind, _numpy.ARRAY):
            return self._ndarray(item)
        # Scalars that are a float, str or bytes too are written as such.
        elif NUMPY and issubclass(kind, _numpy.SCALAR) and not issubclass(kind, float | str | bytes):
            return self._scalar(item)
        elif kind.__name__ in _TABLES:
            return self._table(item)
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

    def _table(self, item: Any) -> Any:
        library, _, _ = type(item).__module__.partition(".")
        write = _TABLE_WRITERS.get(library)
        return item if write is None else write(self, item)

    def _table_of_arrow(self, item: Any) -> Any:
        arrow = _library("arrow")
        if type(item) is arrow.TABLE:
            return self._stream(item, _TABLE_OF_ARROW)
        return self._stream(item, _BATCH_OF_ARROW) if type(item) is arrow.BATCH else item

    def _frame_of_polars(self, item: Any) -> Any:
        polars = _library("polars")
        if type(item) is not polars.FRAME:
            return item
        _library("arrow")  # Polars needs it
        return self._stream(polars.table_of(item), _FRAME_OF_POLARS)

    def _frame_of_pandas(self, item: Any) -> Any:
        pandas = _library("pandas")
        if type(item) is not pandas.FRAME:
            return item
        columns, index, arrays, others = pandas.parts_of(item)
        dtypes, batch = [], None
        if others:
            dtypes, batch = _library("pandas_columns").batch_of(item.iloc[:, place] for place in others)
        parts = self.structure((columns, index, arrays, others, dtypes, batch))
        return msgpack.ExtType(_FRAME, _msgpack.encode(parts))

    def _stream(self, table: Any, what: str) -> msgpack.ExtType:
        pieces = _library("arrow").pieces_of(table)
        start = self._append(pieces)
        return msgpack.ExtType(_TABLE, _msgpack.encode((start, self._end - start, what)))

    def _append(self, pieces: list[Any]) -> int:
        """Append a buffer in pieces, and return its place."""
        padding = _frame.padding(self._end)
        start = self._end + len(padding)
        self._pieces += padding, *pieces
        self._end = start + sum(piece.nbytes for piece in pieces)
        return start

    def _extension(self, code: int, elements: Any, description: Any, shape: tuple[int, ...], form: str) -> Any:
        start = self._append([elements])
        return msgpack.ExtType(code, _msgpack.encode((start, description, shape, form)))


def _library(name: str) -> Any:
    """Import the module for a library that is loaded only when it is needed.

    Raises:
        Unencodable: The library is not installed.
    """
    try:
        with shortage_reported(), importing():
            return import_module(f"ipcq.serializers._{name}")
    except ModuleNotFoundError as error:
        raise Unencodable(f"this needs {error.name}, which is not installed here", _INSTALL[str(error.name)]) from error


#: The command that installs each library.
_INSTALL: Final = {
    "numpy": f"pip install '{DISTRIBUTION}[arrays]'",
    "pandas": f"pip install '{DISTRIBUTION}[pandas]'",
    "polars": f"pip install '{DISTRIBUTION}[polars]'",
    "pyarrow": f"pip install '{DISTRIBUTION}[arrow]'",
}

_TABLE_WRITERS: Final[Mapping[str, Callable[[_Writer, Any], Any]]] = {
    "pandas": _Writer._frame_of_pandas,
    "polars": _Writer._frame_of_polars,
    "pyarrow": _Writer._table_of_arrow,
}


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
            raise ValueError(f"it has arrays of NumPy, which is not installed here: {_INSTALL['numpy']}")
        if code in _DATA_READERS:
            return _DATA_READERS[code](self, data)
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

    def _stream_in(self, data: bytes) -> Any:
        start, size, what = msgpack.unpackb(data)
        begin, end = self._buffer(start, _checked_shape([size]), 1)
        arrow = _library("arrow")
        if what == _TABLE_OF_ARROW:
            return arrow.table_in(self._message, begin, end)
        if what == _BATCH_OF_ARROW:
            return arrow.batch_in(self._message, begin, end)
        if what == _FRAME_OF_POLARS:
            return _library("polars").frame_of(arrow.table_in(self._message, begin, end))
        raise ValueError(f"no table is called {what!r}")

    def _frame_in(self, data: bytes) -> Any:
        pandas = _library("pandas")
        columns, index, arrays, others, dtypes, batch = msgpack.unpackb(data, ext_hook=self._part)
        series = []
        if others:
            series_in = _library("pandas_columns").series_in
            series = [series_in(column, dtype) for column, dtype in zip(batch.columns, dtypes, strict=True)]
        return pandas.frame_in(columns, index, arrays, others, series)

    def _part(self, code: int, data: bytes) -> Any:
        if code not in (_NDARRAY, _TABLE):
            raise ValueError(f"a frame has a part of the type {code}")  # in particular, frames are not nested
        return self.value(code, data)

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


_DATA_READERS: Final[Mapping[int, Callable[[_Reader, bytes], Any]]] = {
    _SCALAR: _Reader._scalar,
    _TABLE: _Reader._stream_in,
    _FRAME: _Reader._frame_in,
}

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
