"""Serializers: tables of Arrow, and DataFrames of Polars and pandas, in a structure and back."""

import sys
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings, strategies

from ipcq import serializers
from ipcq.errors import DecodeError, EncodeError
from ipcq.serializers import codec_for
from processes.needs import library

NDARRAY, TABLE, FRAME = 96, 100, 101


@pytest.fixture(autouse=True, scope="module")
def libraries() -> None:
    """Skip without the libraries; in CI, fail. Not at import: other Pythons collect these tests and deselect them."""
    globals().update(pa=library("pyarrow"), pd=library("pandas"), pl=library("polars"))
    pl.DataFrame({"a": [1]}).select("a")  # opens descriptors that stay open


pa: Any = None
pd: Any = None
pl: Any = None


def encode(item: object) -> bytes:
    return codec_for("arrays").encode(item)


def back(item: object) -> Any:
    """Return what a reader gets."""
    return codec_for("arrays").decode(encode(item))


# Arrow


def table() -> Any:
    return pa.table(
        {
            "number": [1, 2, None],
            "text": ["x", "é", None],
            "view": pa.array(["a", "b" * 40, None], pa.string_view()),
            "category": pa.array(["u", "v", "u"]).dictionary_encode(),
            "list": [[1], [], None],
            "record": [{"a": 1}, None, {"a": 3}],
            "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
            "decimal": pa.array([1, 2, 3]).cast(pa.decimal128(20)),
            "time": pa.array([1, 2, 3], pa.timestamp("ns", "UTC")),
            "nothing": pa.nulls(3),
        },
        metadata={"by": "test"},
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole,
        lambda whole: whole.slice(1, 1),
        lambda whole: pa.concat_tables([whole, whole.slice(1)]),
        lambda whole: whole.schema.empty_table(),
        lambda whole: whole.select([]),
        lambda whole: whole.to_batches()[0],
        lambda whole: whole.to_batches()[0].slice(1, 0),
    ],
    ids=["whole", "slice", "parts", "empty", "no columns", "batch", "empty batch"],
)
def test_a_table_of_arrow_comes_back(change: Callable[[Any], Any]) -> None:
    """With its types and metadata, beside other arrays."""
    item = change(table())
    returned = back({"before": np.zeros(3, "u1"), "table": [item], "after": np.ones(2)})
    assert type(returned["table"][0]) is type(item)
    assert returned["table"][0].equals(item, check_metadata=True)
    assert (returned["before"].tolist(), returned["after"].tolist()) == ([0, 0, 0], [1, 1])


def test_columns_of_arrow_are_views_of_the_message() -> None:
    """Without a copy."""
    message = encode(pa.table({"a": np.arange(1000)}))
    place = np.frombuffer(message, "u1").__array_interface__["data"][0]
    (chunk,) = codec_for("arrays").decode(message)["a"].chunks
    assert place < chunk.buffers()[1].address < place + len(message)


def test_the_buffer_of_a_table_is_a_stream_of_arrow() -> None:
    """For authors of programs in other languages, it begins at a multiple of 64 and needs no knowledge of ipcq."""
    message = encode(table())
    size = int.from_bytes(message[4:8], "little")
    extension = msgpack.unpackb(message[8 : 8 + size])
    start, length, what = msgpack.unpackb(extension.data)
    begin = -(-(8 + size) // 64) * 64
    assert (extension.code, start, what) == (TABLE, 0, "Table")
    assert pa.ipc.open_stream(message[begin : begin + length]).read_all().equals(table())


# Polars


def test_a_frame_of_polars_comes_back() -> None:
    """With its types."""
    item = pl.DataFrame(
        {
            "number": [1, 2],
            "text": ["x", None],
            "category": pl.Series(["a", "b"], dtype=pl.Categorical),
            "enum": pl.Series(["a", "b"], dtype=pl.Enum(["b", "a"])),
            "list": [[1], []],
            "decimal": pl.Series([1, 2], dtype=pl.Decimal(10, 2)),
        }
    )
    for each in (item, item[:0], item.select([])):
        returned = back([each])[0]
        assert (type(returned), returned.schema) == (pl.DataFrame, each.schema)
        assert returned.equals(each)


def test_a_table_that_polars_cannot_take_is_a_decode_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its exception is a BaseException, and would pass through a program."""

    def panic(table: object) -> None:
        raise pl.exceptions.PanicException("not implemented")

    message = encode(pl.DataFrame({"a": [1]}))
    monkeypatch.setattr(pl, "DataFrame", panic)
    with pytest.raises(DecodeError, match="Polars cannot take its types: not implemented"):
        codec_for("arrays").decode(message)


# pandas


def frame() -> Any:
    return pd.DataFrame(
        {
            "number": [1, 2],
            "float": [1.5, float("nan")],
            "bool": [True, False],
            "time": pd.to_datetime(["2020-01-01", None]),
            "span": pd.to_timedelta([1, 2], "s"),
            "text": pd.array(["x", None], "str"),
            "string": pd.array(["x", None], "string"),
            "object": np.array(["x", None], object),
            "category": pd.Categorical(["q", "p"], ordered=True),
            "Int64": pd.array([2**62 + 1, None], "Int64"),
            "Float32": pd.array([1.5, None], "Float32"),
            "boolean": pd.array([True, None], "boolean"),
            "zone": pd.to_datetime(["2020-01-01", None]).tz_localize("Europe/Berlin"),
        },
        index=pd.Index(["é", "b"], name="rows"),
    )


FRAMES: dict[str, Callable[[], Any]] = {
    "all types": frame,
    "no rows": lambda: frame()[:0],
    "numbers": lambda: pd.DataFrame(np.arange(12.0).reshape(4, 3)),
    "numbers with gaps": lambda: pd.DataFrame(np.arange(12).reshape(4, 3)).iloc[::2, ::-2],
    "numbers of two types": lambda: pd.DataFrame({"a": [1, 2], "b": [0.5, 1], "c": [3, 4]}),
    "text alone": lambda: frame()[["text", "string"]],
    "text in parts": lambda: pd.concat([frame()[["text"]]] * 2),
    "equal names": lambda: pd.concat([pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2.5]})], axis=1),
    "nothing": lambda: pd.DataFrame(),
    "rows alone": lambda: pd.DataFrame(index=range(5, 100, 2)),
    "times as index": lambda: pd.DataFrame({"a": [1]}, index=pd.to_datetime(["2020-01-01"])),
    "spans as index": lambda: pd.DataFrame({"a": [1]}, index=pd.to_timedelta([1], "s")),
    "numbers as names": lambda: pd.DataFrame([[1, 2]], columns=pd.Index([5, 3], name=7)),
}


@pytest.mark.parametrize("which", FRAMES)
def test_a_frame_of_pandas_comes_back(which: str) -> None:
    """With its types, names and index."""
    item = FRAMES[which]()
    returned = back({"frame": item, "after": np.ones(2)})["frame"]
    pd.testing.assert_frame_equal(returned, item)
    assert type(returned.index) is type(item.index)


@pytest.mark.parametrize("which", ["numbers of two types", "numbers"])
def test_columns_of_numpy_are_views_of_the_message(which: str) -> None:
    """Read-only, until the frame is copied."""
    message = encode(FRAMES[which]())
    returned = codec_for("arrays").decode(message)
    for name in returned:
        assert np.shares_memory(returned[name].to_numpy(), np.frombuffer(message, "u1"))
        assert not returned[name].to_numpy().flags.writeable
    changed = returned.copy()
    changed.iloc[0, 0] = 77
    assert changed.iloc[0, 0] == 77


@pytest.mark.parametrize("make", [table, frame], ids=["Arrow", "pandas"])
def test_a_table_is_read_in_place(make: Callable[[], Any]) -> None:
    """From the memory of a view, which it keeps."""
    memory = bytearray(encode(make()))
    returned = codec_for("arrays").decode(memoryview(memory).toreadonly())
    assert returned.equals(make())
    with pytest.raises(BufferError):
        memory.append(0)


# What cannot be encoded


def runs() -> Any:
    return pa.RunEndEncodedArray.from_arrays([9], [1])


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "extension": (lambda: pa.table({"a": pa.array([b"x" * 16], pa.binary(16)).cast(pa.uuid())}), "the extension type"),
    "runs": (lambda: pa.table({"a": runs()}), r"can be much larger than its message\): put \.cast\(…\) of it"),
    "runs in a list": (lambda: pa.table({"a": pa.ListArray.from_arrays([0, 9], runs())}), "can be much larger"),
    "runs in a dictionary": (
        lambda: pa.table({"a": pa.DictionaryArray.from_arrays([0], runs())}),
        "can be much larger",
    ),
    "objects of Polars": (lambda: pl.DataFrame({"a": pl.Series([{1}], dtype=pl.Object)}), "'a' is of the type Object"),
    "objects of pandas": (
        lambda: pd.DataFrame({"a": [{1}]}),
        r"'a' has objects that are no text\): put \.astype\(str\)",
    ),
    "sparse": (lambda: pd.DataFrame({"a": pd.arrays.SparseArray([0])}), r"dtype Sparse\[int64, 0\] cannot be written"),
    "periods": (lambda: pd.DataFrame({"a": periods()}), "no column of a frame has the dtype 'period"),
    "categories": (lambda: pd.DataFrame({"a": pd.Categorical(periods())}), "dtype category .*: put .astype"),
    "two indexes": (lambda: frame().set_index(["number", "text"]), r"index of MultiIndex would .*: put \.reset_index"),
    "an index of tuples": (lambda: indexed(pd.Index([("x", 1)], tupleize_cols=False)), "its index of Index would not"),
    "two columns": (lambda: pd.DataFrame({("a", 1): [1]}), "its columns of MultiIndex would not come back"),
    "a name": (lambda: indexed(pd.Index([1], name=("x", 1))), "its index of Index would not come back"),
    "a zone": (lambda: frame().set_index("zone"), "its index of DatetimeIndex would not come back"),
}


def periods() -> Any:
    return pd.period_range("2020", periods=1, freq="D")


def indexed(index: Any) -> Any:
    return pd.DataFrame({"a": [1]}, index=index)


@pytest.mark.parametrize("bad", BAD)
def test_a_table_that_would_not_come_back_is_an_encode_error(bad: str) -> None:
    """The text has the place, the reason and the way out."""
    make, words = BAD[bad]
    with pytest.raises(EncodeError, match=words) as caught:
        encode({"x": [make()]})
    assert "item['x'][0] (its " in str(caught.value)


@pytest.mark.parametrize("module", ["pyarrow", "polars", "pandas", "elsewhere"])
def test_another_class_of_the_same_name_is_no_table(module: str) -> None:
    """A subclass, or the class of another library."""
    for name in ("DataFrame", "Table"):
        with pytest.raises(EncodeError, match=f"MessagePack cannot hold this {name}"):
            encode(type(name, (), {"__module__": module})())


@pytest.mark.parametrize("make", [table, frame, lambda: pl.DataFrame()], ids=["Arrow", "pandas", "Polars"])
def test_the_default_serializer_recommends_arrays(make: Callable[[], Any]) -> None:
    """It refuses tables."""
    with pytest.raises(EncodeError, match="put a list of its rows, or open both ends with serializer='arrays'"):
        codec_for("msgpack").encode([make()])


# Without the libraries


@pytest.mark.parametrize(
    ("missing", "extra", "make"),
    [
        ("pyarrow", "arrow", lambda: pa.table({"a": [1]})),
        ("pyarrow", "arrow", lambda: frame()[["text"]]),
        ("pyarrow", "arrow", lambda: pl.DataFrame({"a": [1]})),
        ("polars", "polars", lambda: pl.DataFrame({"a": [1]})),
        ("pandas", "pandas", lambda: pd.DataFrame({"a": [1]})),
    ],
    ids=["table", "text", "Polars without Arrow", "Polars", "pandas"],
)
def test_without_its_library_a_table_is_an_error(
    missing: str, extra: str, make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text has the command that installs it, and the reader's error has the message."""
    item = make()
    message = encode(item)
    for module in [name for name in sys.modules if name.startswith(("ipcq.serializers._pa", "ipcq.serializers._po"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "ipcq.serializers._arrow", raising=False)
    for attribute in ("_arrow", "_pandas", "_pandas_columns", "_polars"):
        monkeypatch.delattr(serializers, attribute, raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    words = rf"needs {missing}, which is not installed here.*: pip install 'ipcq-queue\[{extra}\]'"
    with pytest.raises(EncodeError, match=words):
        encode(item)
    with pytest.raises(DecodeError, match=words) as caught:
        codec_for("arrays").decode(message)
    assert caught.value.data == message


# Messages that are damaged, or made to do harm


def message_of(code: int, *values: Any, buffer: bytes = b"") -> bytes:
    """Return a message of one table, and a buffer for it."""
    packed = msgpack.packb(msgpack.ExtType(code, msgpack.packb(values)))
    head = b"\xc1\x02\x01\x00" + len(packed).to_bytes(4, "little") + packed
    return head + bytes(-len(head) % 64) + buffer if buffer else head


def stream(table: Any, **options: Any) -> bytes:
    """Return a table as Arrow writes it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write(table)
    return bytes(sink.getvalue())


def of_stream(buffer: bytes, what: object = "Table") -> bytes:
    return message_of(TABLE, 0, len(buffer), what, buffer=buffer)


def refused(message: bytes) -> str:
    """Return the text of the error."""
    with pytest.raises(DecodeError) as caught:
        codec_for("arrays").decode(message)
    return str(caught.value)


def compressed_dictionary() -> bytes:
    """Return a stream of which only the dictionary is compressed."""
    item = pa.table({"a": pa.array(["x" * 99]).dictionary_encode()})
    plain, packed = (list(pa.ipc.MessageReader.open_stream(stream(item, compression=each))) for each in (None, "lz4"))
    assert [part.type for part in packed] == ["schema", "dictionary", "record batch"]
    return b"".join(bytes(part.serialize()) for part in (plain[0], packed[1], plain[2])) + b"\xff\xff\xff\xff\0\0\0\0"


def bad_text() -> bytes:
    """Return a stream that claims more text than it has."""
    before, _, after = stream(pa.table({"a": ["abcd"]})).rpartition(b"\0\0\0\0\4\0\0\0")
    return before + b"\0\0\0\0\4\0\1\0" + after


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: of_stream(stream(pa.table({"a": [5] * 999}), compression="zstd")), "its buffers are compressed"),
        (lambda: of_stream(compressed_dictionary()), "its buffers are compressed"),
        (lambda: of_stream(stream(BAD["extension"][0]())), "a column is of an extension type"),
        (lambda: of_stream(stream(BAD["runs"][0]())), "a column is of the type run_end_encoded"),
        (lambda: of_stream(bad_text()), "out of bounds"),
        (lambda: of_stream(stream(table())[:-200]), "cannot decode it"),
        (lambda: of_stream(b"x" * 64), "cannot decode it"),
        (lambda: of_stream(stream(table()), "frame"), "no table is called 'frame'"),
        (lambda: of_stream(stream(pa.concat_tables([table(), table()])), "RecordBatch"), "too many values to unpack"),
        (lambda: message_of(TABLE, 0, 2**60, "Table"), "a buffer ends at"),
        (lambda: message_of(TABLE, 0, -1, "Table"), "has the shape"),
        (lambda: message_of(TABLE, 64, 1, "Table", buffer=bytes(65)), "a buffer is at 64"),
    ],
)
def test_a_table_that_could_do_harm_is_refused(make: Callable[[], bytes], words: str) -> None:
    """Arrow would trust it."""
    assert words in refused(make())


def array(dtype: str, *shape: int) -> msgpack.ExtType:
    return msgpack.ExtType(NDARRAY, msgpack.packb((0, dtype, shape, "C")))


NAMES, ROWS = ["text", None, ["a", "b"], "object"], ["range", None, 0, 1, 1]
ARRAY = [[0, 1], msgpack.ExtType(NDARRAY, msgpack.packb((0, "|u1", (1, 2), "C")))]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((NAMES, ["range", None, 0, 2, 1], [ARRAY], [], [], None), "2 columns of 2 rows are another array"),
        ((NAMES, ROWS, [[[0, 1], [1, 2]]], [], [], None), "2 columns of 1 rows are another array"),
        ((NAMES, ROWS, [[[0, 2], ARRAY[1]]], [], [], None), "the columns are not at the places from 0 on"),
        ((NAMES, ROWS, [[[0, 0], ARRAY[1]]], [], [], None), "the columns are not at the places from 0 on"),
        ((["range", None, 0, 2**60, 1], ROWS, [ARRAY], [], [], None), "the columns are not at the places from 0 on"),
        ((NAMES, ["range", None, 0, 1.5, 1], [ARRAY], [], [], None), "a range goes from, to and in steps of"),
        ((NAMES, ["range", [], 0, 1, 1], [ARRAY], [], [], None), "an index has the name []"),
        ((NAMES, ["array", None, [1]], [ARRAY], [], [], None), "an index is of list"),
        ((["text", None, ["a", 1], "object"], ROWS, [ARRAY], [], [], None), "an index has labels of 'object'"),
        ((["text", None, ["a", "b"], "category"], ROWS, [ARRAY], [], [], None), "an index has labels of 'category'"),
        ((["?", None], ROWS, [ARRAY], [], [], None), "no index is called '?'"),
        ((NAMES, ROWS, [ARRAY], [], [], msgpack.ExtType(FRAME, b"")), "a frame has a part of the type 101"),
        ((NAMES, ROWS, [], [0, 1], ["object"] * 2, None), "cannot decode it"),
        (5, "cannot decode it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parts_that_make_no_frame_are_refused(parts: Any, words: str) -> None:
    """The text says what is wrong."""
    assert words in refused(message_of(FRAME, *(parts if isinstance(parts, tuple) else (parts,)), buffer=b"ab"))


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("object", "a column of text is of int64"),
        ("Sparse[int]", "no column of a frame has the dtype 'Sparse[int]'"),
        (5, "no column of a frame has the dtype 5"),
        ("category", "a column of int64 is to have the dtype 'category'"),
        ("datetime64[ns, ../../etc/passwd]", "no column of a frame has the dtype"),
        ("datetime64[ns, /etc/passwd]", "cannot decode it"),
    ],
)
def test_columns_of_another_dtype_are_refused(dtype: object, words: str) -> None:
    """A dtype is one of a list."""
    buffer = stream(pa.table({"0": [1]}))
    part = msgpack.ExtType(TABLE, msgpack.packb((0, len(buffer), "RecordBatch")))
    parts = ["text", None, ["a"], "object"], ROWS, [], [0], [dtype], part
    assert words in refused(message_of(FRAME, *parts, buffer=buffer))


@settings(deadline=None, max_examples=100)
@given(data=strategies.data())
def test_a_damaged_table_is_decoded_or_refused(data: strategies.DataObject) -> None:
    """Never anything but DecodeError, and what is decoded can be read."""
    makes = {"Arrow": table, "Polars": lambda: pl.DataFrame({"a": ["x", "y"], "b": [1, 2]}), "pandas": frame}
    message = bytearray(encode(makes[data.draw(strategies.sampled_from(sorted(makes)))]()))
    for place, byte in data.draw(
        strategies.lists(strategies.tuples(strategies.integers(8), strategies.integers(0, 255)), min_size=1, max_size=3)
    ):
        message[2 + place % (len(message) - 2)] = byte
    try:
        item = codec_for("arrays").decode(bytes(message))
    except DecodeError:
        return
    if isinstance(item, pa.Table) and item.num_rows < 9:
        item.to_pylist()
    elif isinstance(item, pl.DataFrame):
        item.rows()
    elif isinstance(item, pd.DataFrame):
        item.to_dict()
