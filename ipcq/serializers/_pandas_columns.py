"""Columns of pandas that NumPy does not have, as a table of Arrow: text, categories, missing values, time zones."""

import re
from collections.abc import Iterable
from typing import Any, Final

import pandas as pd
import pyarrow as pa

from ipcq.serializers._pandas import TEXT
from ipcq.serializers._unencodable import Unencodable

#: Dtypes other than those of text, by name.
_OTHERS: Final = re.compile(r"category|boolean|U?Int(8|16|32|64)|Float(32|64)|datetime64\[(s|ms|us|ns), [\w/+:-]+\]")
_NULLABLE: Final = re.compile(r"boolean|U?Int|Float")


def batch_of(columns: Iterable[Any]) -> tuple[list[str], Any]:
    """Return the dtypes of columns, and a record batch of them.

    Raises:
        Unencodable: A column would not come back as it is.
    """
    dtypes, arrays = [], []
    for column in columns:
        dtypes.append(str(column.dtype))
        arrays.append(_array_of(column, dtypes[-1]))
    return dtypes, pa.RecordBatch.from_arrays(arrays, [str(place) for place in range(len(arrays))])


def _array_of(column: Any, dtype: str) -> Any:
    text = dtype in TEXT
    if text and pd.api.types.infer_dtype(column, skipna=True) not in ("string", "empty"):
        raise _unencodable(column, "has objects that are no text", "put .astype(str) of it")
    try:
        array = pa.Array.from_pandas(column, type=pa.large_string() if text else None)
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        if series_in(array[:0], dtype).dtype == column.dtype:
            return array
    except (ValueError, TypeError, NotImplementedError) as error:  # of Arrow's errors, the first two
        raise _unencodable(
            column, f"of the dtype {dtype} cannot be written: {error}", "put .astype(…) of it"
        ) from error
    raise _unencodable(column, f"of the dtype {dtype} would not come back", "put .astype(…) of it")


def _unencodable(column: Any, reason: str, advice: str) -> Unencodable:
    return Unencodable(f"its column {column.name!r} {reason}", f"{advice}, or pa.Table.from_pandas(…) of the frame")


def series_in(array: Any, dtype: object) -> Any:
    """Return a column of a table as a series of a dtype.

    Raises:
        Exception: It cannot be one.
    """
    if dtype in TEXT:
        if array.type != pa.large_string():
            raise ValueError(f"a column of text is of {array.type}")
        return pd.Series(array.to_numpy(zero_copy_only=False), dtype=dtype)
    if not (isinstance(dtype, str) and _OTHERS.fullmatch(dtype)):
        raise ValueError(f"no column of a frame has the dtype {dtype!r}")
    wanted = pd.api.types.pandas_dtype(dtype)
    series = array.to_pandas(types_mapper=lambda _: wanted) if _NULLABLE.match(dtype) else array.to_pandas()
    if str(series.dtype) != dtype:
        raise ValueError(f"a column of {array.type} is to have the dtype {dtype!r}")
    return series
