"""NumPy's arrays and scalars as descriptions and bytes; docs/explanation/wire.md has the format.

A dtype is built from its description only if every part is one of NumPy's own types of a fixed size. So a message can
name no Python objects, and no code.
"""

import re
from typing import Any, Final

import numpy as np

from ipcq.errors import InvalidArgument
from ipcq.serializers._unencodable import Unencodable

ARRAY: Final = np.ndarray
SCALAR: Final = np.generic

#: How deep structured dtypes may be nested: NumPy compares and prints them by recursion in C.
_MAX_LEVELS: Final = 32
_LARGEST_CODE_POINT: Final = 0x10FFFF

#: Byte order, kind, and size in bytes, or in characters for U; for times with the unit.
_PLAIN: Final = re.compile(
    r"[<>|]([biufcSUV][1-9][0-9]{0,9}|[mM]8(\[([1-9][0-9]{0,9})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?)"
)

#: The dtypes of numbers by description, so that those of most arrays are looked up.
_NUMBERS: Final[dict[object, np.dtype[Any]]] = {
    name: np.dtype(name) for name in (np.dtype(code).str for code in "?bBhHiIqQefdFD")
}
_DESCRIPTIONS: Final = {dtype: dtype.str for dtype in _NUMBERS.values()}

Description = str | list[Any] | dict[str, Any]


def scalar_parts(scalar: "np.generic[Any]") -> tuple[Description, bytes]:
    """Return the description of a scalar's dtype, and its bytes.

    Raises:
        Unencodable: The dtype cannot be described.
    """
    return _checked_description(scalar.dtype), scalar.tobytes()


def array_parts(array: "np.ndarray[Any, Any]") -> tuple[Description, tuple[int, ...], str, Any]:
    """Return the description of an array's dtype, its shape, the order of its elements, and a buffer of them.

    Raises:
        Unencodable: The class of the array has more than elements, or the dtype cannot be described.
    """
    if type(array) not in (np.ndarray, np.memmap):
        advice = "put its .data and .mask" if isinstance(array, np.ma.MaskedArray) else "put np.array(…) of it"
        raise Unencodable("a reader would get a plain ndarray", advice)
    description = _checked_description(array.dtype)
    columns_first = array.flags.f_contiguous and not array.flags.c_contiguous
    rows = np.ascontiguousarray(array.T if columns_first else array)
    # As bytes, because an array of times has no buffer of its own.
    return description, array.shape, "F" if columns_first else "C", rows.reshape(-1).view(np.uint8)


def _checked_description(dtype: "np.dtype[Any]") -> Description:
    known = _DESCRIPTIONS.get(dtype)
    if known is not None:
        return known
    if dtype.hasobject:
        raise Unencodable(
            f"its dtype {dtype} refers to Python objects", "put its .tolist(), or .astype(…) with a type of fixed size"
        )
    description = _description(dtype)
    try:
        same = dtype_of(description) == dtype
    except (TypeError, ValueError):
        same = False
    if not same:
        raise Unencodable(f"its dtype {dtype} cannot be described", "put .astype(…) with a plain dtype")
    return description


def _description(dtype: "np.dtype[Any]") -> Description:
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return [_description(base), list(shape)]
    if dtype.names is None or dtype.fields is None:
        return dtype.str
    fields = [(name, *dtype.fields[name]) for name in dtype.names]
    return {
        "size": dtype.itemsize,
        "fields": [[name, _description(part), offset, *title] for name, part, offset, *title in fields],
    }


def dtype_of(description: object) -> "np.dtype[Any]":
    """Build a dtype from its description.

    Raises:
        ValueError: It is invalid, or may be unsafe.
        TypeError: This NumPy does not have the type.
    """
    if isinstance(description, str) and description in _NUMBERS:
        return _NUMBERS[description]
    dtype = _part_of(description, _MAX_LEVELS)
    if dtype.itemsize == 0 or dtype.subdtype is not None:
        raise ValueError(f"an array cannot have elements of {dtype}")
    return dtype


def _part_of(description: object, levels: int) -> "np.dtype[Any]":
    if isinstance(description, str) and _PLAIN.fullmatch(description):
        return np.dtype(description)
    if levels == 0:
        raise ValueError("a dtype is nested too deeply")
    if isinstance(description, list):
        base, shape = description
        # Other pairs mean other things to NumPy.
        if not shape or not all(type(length) is int for length in shape):
            raise ValueError(f"a subarray has the shape {shape!r}")
        return np.dtype((_part_of(base, levels - 1), tuple(shape)))
    if isinstance(description, dict):
        return _structure_of(description["size"], description["fields"], levels)
    raise ValueError(f"no dtype is called {description!r}")


def _structure_of(size: Any, fields: list[Any], levels: int) -> "np.dtype[Any]":
    names, formats, offsets, titles = [], [], [], []
    for name, part, offset, *title in fields:
        if [type(each) for each in title] not in ([], [str]):
            raise ValueError(f"a field of a dtype has the title {title!r}")
        names.append(name)
        formats.append(_part_of(part, levels - 1))
        offsets.append(offset)
        titles.append(title[0] if title else None)
    # If all fields could be the whole element, reading would take quadratic time.
    if sum(part.itemsize for part in formats) > size:
        raise ValueError("the fields of a dtype overlap")
    structure: Any = {"names": names, "formats": formats, "offsets": offsets, "itemsize": size}
    dtype: np.dtype[Any] = np.dtype(structure | ({"titles": titles} if any(titles) else {}))
    return dtype


def array_in(
    data: bytes, start: int, dtype: "np.dtype[Any]", shape: tuple[int, ...], order: object
) -> "np.ndarray[Any, Any]":
    """Return a read-only view of a part of a message.

    Raises:
        ValueError: The order is unknown, the elements do not fit, or a text has impossible characters.
    """
    if order not in ("C", "F"):
        raise ValueError(f"an array has the order {order!r}")
    array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, data, start, order=order)
    _check_text(array)
    return array


def array_over(buffer: memoryview, shape: Any, dtype: Any) -> "np.ndarray[Any, Any]":
    """Return a writable array at the beginning of a buffer.

    Raises:
        InvalidArgument: It does not fit, its dtype cannot be described, or NumPy knows no such dtype or shape.
    """
    try:
        elements = np.dtype(dtype)
        _checked_description(elements)
        return np.ndarray(shape, elements, buffer)
    except Unencodable as error:
        raise InvalidArgument(f"no array of {dtype!r} can be put: {error}") from None
    except (TypeError, ValueError) as error:
        raise InvalidArgument(f"no array of {dtype!r} and shape {shape!r} in {len(buffer)} bytes: {error}") from error


def scalar_in(data: bytes, dtype: "np.dtype[Any]") -> Any:
    """Return a scalar of these bytes.

    Raises:
        ValueError: They are too few or too many, or impossible characters.
    """
    if len(data) != dtype.itemsize:
        raise ValueError(f"a scalar of {dtype} has {len(data)} bytes")
    return array_in(data, 0, dtype, (), "C")[()]


def _check_text(array: "np.ndarray[Any, Any]") -> None:
    """Check that characters are in the range of Unicode. NumPy relies on it, and would raise SystemError later."""
    dtype = array.dtype
    if dtype.kind == "U":
        units = np.dtype(np.uint32).newbyteorder(dtype.byteorder)
        points: Any = array.getfield(np.dtype((units, (dtype.itemsize // 4,))), 0)
        if points.max(initial=0) > _LARGEST_CODE_POINT:
            raise ValueError("a text has characters beyond the range of Unicode")
    for name in dtype.names or ():
        _check_text(array[name])
