"""DataFrames of pandas as arrays of NumPy, beside columns that NumPy does not have (see `_pandas_columns`).

docs/explanation/wire.md has the format. A frame is built anew from its parts, so that a message cannot choose what
pandas calls. The columns of NumPy are views of the message.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from ipcq.serializers._unencodable import Unencodable

FRAME: Final = pd.DataFrame

#: The dtypes of text, by name.
TEXT: Final[dict[object, Any]] = {name: pd.Index([], dtype=name).dtype for name in ("object", "str", "string")}

Axis = list[Any]


def parts_of(frame: Any) -> tuple[Axis, Axis, list[tuple[list[int], Any]], list[int]]:
    """Return the columns' names and the index, the columns of each dtype of NumPy with their places, and other places.

    Raises:
        Unencodable: The names or the index would not come back as they are.
    """
    kinds: dict[Any, list[int]] = {}
    for place, dtype in enumerate(frame.dtypes):
        kinds.setdefault(dtype if isinstance(dtype, np.dtype) and not dtype.hasobject else None, []).append(place)
    others = kinds.pop(None, [])
    alone = len(kinds) == 1 and not others  # then there may be no copy
    arrays = [(places, (frame if alone else frame.iloc[:, places]).to_numpy()) for places in kinds.values()]
    return _axis_of(frame.columns, "columns"), _axis_of(frame.index, "index"), arrays, others


def _axis_of(index: Any, what: str) -> Axis:
    if index.name is None or type(index.name) in (str, int):
        if type(index) is pd.RangeIndex:
            return ["range", index.name, index.start, index.stop, index.step]
        if type(index) in (pd.Index, pd.DatetimeIndex, pd.TimedeltaIndex):
            dtype = str(index.dtype)
            if isinstance(index.dtype, np.dtype) and not index.dtype.hasobject:
                return ["array", index.name, index.to_numpy()]
            if TEXT.get(dtype) == index.dtype:
                labels = index.tolist()
                if all(type(label) is str for label in labels):
                    return ["text", index.name, labels, dtype]
    raise Unencodable(
        f"its {what} of {type(index).__name__} would not come back",
        "put .reset_index() of it, with text as column names",
    )


def _of_text(labels: list[str], dtype: object) -> Any:
    if dtype not in TEXT or not all(type(label) is str for label in labels):
        raise ValueError(f"an index has labels of {dtype!r}")
    return pd.Index(labels, dtype=dtype)


def _axis_in(axis: Any) -> Any:
    kind, name, *parts = axis
    if kind == "range":
        if [type(part) for part in parts] != [int] * 3:
            raise ValueError(f"a range goes from, to and in steps of {parts}")
        index: Any = pd.RangeIndex(*parts)
    elif kind == "array":
        (array,) = parts
        if not isinstance(array, np.ndarray):
            raise ValueError(f"an index is of {type(array).__name__}")
        index = pd.Index(array, copy=False)
    elif kind == "text":
        index = _of_text(*parts)
    else:
        raise ValueError(f"no index is called {kind!r}")
    if name is not None and type(name) not in (str, int):
        raise ValueError(f"an index has the name {name!r}")
    return index if name is None else index.rename(name)


def frame_in(columns: Axis, index: Axis, arrays: list[Any], others: Sequence[int], series: Sequence[Any]) -> Any:
    """Build a frame from its parts; the columns at the places `others` are `series`.

    Raises:
        Exception: They do not fit each other.
    """
    names, rows = _axis_in(columns), _axis_in(index)
    places = [place for group, _ in arrays for place in group] + list(others)
    # The first comparison is quick for a range of any size.
    if len(places) != len(names) or sorted(places) != list(range(len(places))):
        raise ValueError("the columns are not at the places from 0 on, each once")
    for group, array in arrays:
        if not isinstance(array, np.ndarray) or array.shape != (len(rows), len(group)):
            raise ValueError(f"{len(group)} columns of {len(rows)} rows are another array")
    if len(arrays) == 1 and arrays[0][0] == list(range(len(names))):
        return pd.DataFrame(arrays[0][1], index=rows, columns=names, copy=False)
    found = {place: column.set_axis(rows) for place, column in zip(others, series, strict=True)}
    for group, array in arrays:
        found |= {place: array[:, number] for number, place in enumerate(group)}
    frame = pd.DataFrame({place: found[place] for place in range(len(names))}, index=rows, copy=False)
    frame.columns = names
    return frame
