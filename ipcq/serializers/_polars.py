"""DataFrames of Polars as tables of Arrow."""

from typing import Any, Final

import polars as pl

from ipcq.serializers._unencodable import Unencodable

FRAME: Final = pl.DataFrame


def table_of(frame: Any) -> Any:
    """Return a frame as a table of Arrow, mostly without a copy.

    Raises:
        Unencodable: A column would not come back with its type.
    """
    table = frame.to_arrow()
    back = frame_of(table.schema.empty_table()).schema
    for name, dtype in frame.schema.items():
        if back[name] != dtype:
            raise Unencodable(f"its column {name!r} is of the type {dtype}", "put .cast(…) of it, or leave it out")
    return table


def frame_of(table: Any) -> Any:
    """Return a table of Arrow as a frame, mostly without a copy.

    Raises:
        ValueError: Polars has no such type.
    """
    try:
        return pl.DataFrame(table)
    except pl.exceptions.PanicException as error:  # a BaseException, so that nobody expects it
        raise ValueError(f"Polars cannot take its types: {error}") from error
