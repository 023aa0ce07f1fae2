"""Tables of Arrow as streams of Arrow's own format, and back without a copy.

A stream of another program is read only after checks: Arrow trusts what it reads, and would read beyond a buffer later.
"""

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pyarrow as pa

from ipcq.serializers._unencodable import Unencodable

BATCH: Final = pa.RecordBatch
TABLE: Final = pa.Table

#: In the metadata of a schema: types whose readers would be code of the program.
_EXTENSION: Final = b"ARROW:extension:"


class _Pieces:
    """A file that keeps what is written to it, without a copy."""

    closed = False

    def __init__(self) -> None:
        self.pieces: list[memoryview] = []

    def write(self, data: Any) -> int:
        self.pieces.append(memoryview(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: there is nowhere to write to."""


def pieces_of(table: Any) -> list[memoryview]:
    """Return the stream of a table or of a record batch, in pieces that refer to its columns.

    Raises:
        Unencodable: It has a column of a type that is not read back.
    """
    for field in table.schema:
        _check(field.type, partial(_unencodable, field.name))
    file = _Pieces()
    with pa.ipc.new_stream(pa.PythonFile(file, mode="w"), table.schema) as writer:
        writer.write(table)
    return file.pieces


def _unencodable(column: str, reason: str) -> Unencodable:
    return Unencodable(f"its column {column!r} {reason}", "put .cast(…) of it")


def table_in(message: bytes, begin: int, end: int) -> Any:
    """Return a table whose columns are views of a part of a message.

    Raises:
        ValueError: The part is no stream of a table, or one that could do harm.
    """
    schema, batches = _read(message, begin, end)
    return pa.Table.from_batches(batches, schema)


def batch_in(message: bytes, begin: int, end: int) -> Any:
    """Return a record batch whose columns are views of a part of a message.

    Raises:
        ValueError: As for `table_in`, or the stream has another number of batches.
    """
    _, (batch,) = _read(message, begin, end)
    return batch


def _read(message: bytes, begin: int, end: int) -> tuple[Any, list[Any]]:
    stream = pa.py_buffer(memoryview(message)[begin:end])
    for part in pa.ipc.MessageReader.open_stream(stream):
        _check_message(part)
    with pa.ipc.open_stream(stream) as reader:
        for field in reader.schema:
            _check(field.type, lambda reason: ValueError(f"a column {reason}"))
        batches = list(reader)
    for batch in batches:
        batch.validate(full=True)
    return reader.schema, batches


def _check(kind: Any, error: Callable[[str], Exception]) -> None:
    if isinstance(kind, pa.BaseExtensionType):
        raise error(f"is of the extension type {kind}")
    if pa.types.is_run_end_encoded(kind):
        raise error(f"is of the type {kind}, which can be much larger than its message")
    parts = [kind.field(place).type for place in range(kind.num_fields)]
    if pa.types.is_dictionary(kind):
        parts.append(kind.value_type)
    for part in parts:
        _check(part, error)


def _check_message(message: Any) -> None:
    metadata = message.metadata.to_pybytes()
    if _EXTENSION in metadata:
        raise ValueError("a column is of an extension type")
    # The format is FlatBuffers, and Arrow has checked that its offsets are valid.
    (root,) = struct.unpack_from("<I", metadata)
    header = _target(metadata, root, 2)
    if message.type == "dictionary":
        header = _target(metadata, header, 1)
    elif message.type != "record batch":
        return
    if _place(metadata, header, 3):
        raise ValueError("its buffers are compressed, so they can be much larger than the message")


def _place(metadata: bytes, table: int, field: int) -> int:
    """Return where a field of a table of FlatBuffers is, or 0 if it is not set."""
    (distance,) = struct.unpack_from("<i", metadata, table)
    fields = table - distance
    (size,) = struct.unpack_from("<H", metadata, fields)
    if 4 + 2 * field >= size:
        return 0
    (offset,) = struct.unpack_from("<H", metadata, fields + 4 + 2 * field)
    return table + offset if offset else 0


def _target(metadata: bytes, table: int, field: int) -> int:
    """Return the place of the table to which a field refers."""
    place = _place(metadata, table, field)
    (offset,) = struct.unpack_from("<I", metadata, place)
    return place + int(offset)
