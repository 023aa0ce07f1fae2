"""Serializers: arrays in a structure, and back."""

import array
import ctypes
import sys
import tempfile
from collections import OrderedDict, deque
from datetime import UTC, datetime
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies
from hypothesis.extra import numpy as numpys

from core import serializing
from core.conftest import Run
from core.serializing import Point
from ipcq import serializers
from ipcq.errors import DecodeError, EncodeError, InvalidArgument
from ipcq.serializers import _arrays, codec_for

each_way, own_registrations = serializing.each_way, serializing.own_registrations


def back(item: object) -> Any:
    """Return what a reader gets."""
    codec = codec_for("arrays")
    return codec.decode(codec.encode(item))


def same(one: np.ndarray, other: object) -> bool:
    """Return whether two arrays have the same type, shape and bytes."""
    kept = isinstance(other, np.ndarray) and (one.dtype, one.shape) == (other.dtype, other.shape)
    return kept and one.tobytes() == other.tobytes()


# Arrays of NumPy

ARRAYS = numpys.arrays(
    numpys.scalar_dtypes() | numpys.nested_dtypes(), numpys.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(item=ARRAYS)
def test_an_array_of_any_type_and_shape_comes_back(item: np.ndarray) -> None:
    """Types of every kind and byte order, structured ones among them."""
    assert same(item, back(item))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    item=strategies.recursive(
        ARRAYS | strategies.integers(-9, 9) | strategies.text(), lambda part: strategies.lists(part, max_size=4)
    )
)
def test_arrays_in_lists_come_back(item: object) -> None:
    """Each at its own place."""

    def equal(one: Any, other: Any) -> bool:
        if isinstance(one, np.ndarray):
            return same(one, other)
        if isinstance(one, list):
            return len(one) == len(other) and all(map(equal, one, other))
        return type(one) is type(other) and one == other

    assert equal(item, back(item))


CODES = [*np.typecodes["All"].replace("O", ""), "M8[ns]", "m8[25s]", "S5", "U3", "V7", ">i4", "<f8", ">U2", ">M8[D]"]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (3, 0, 2)], ids=str)
def test_an_array_of_each_type_comes_back(code: str, shape: tuple[int, ...]) -> None:
    """Every one but objects."""
    item = np.zeros(shape, code)
    if item.dtype.itemsize == 0:
        item = np.zeros(shape, f"{code}1")
    assert same(item, back(item))


@pytest.mark.parametrize(
    "dtype",
    [
        [("a", "<i4"), ("b", ">f8", (2, 2)), ("c", [("d", "U3"), ("e", "?")])],
        np.dtype([("a", "i1"), ("b", "i8")], align=True),
        {"names": ["b", "a"], "formats": ["i2", "i4"], "offsets": [8, 2], "itemsize": 16},
        [("", "i4"), ("ä ö", "i4")],
        [(("title", "a"), "i4"), ("b", "i4")],
        [("a", "i4", (0,)), ("b", "i4")],
    ],
    ids=str,
)
def test_a_structured_array_comes_back(dtype: Any) -> None:
    """With names, offsets and gaps."""
    item = np.zeros(3, dtype)
    returned = back(item)
    assert same(item, returned)
    assert returned.dtype.fields == item.dtype.fields


GRID = np.arange(24).reshape(4, 6)


@pytest.mark.parametrize(
    ("item", "order"),
    [
        (GRID, "C"),
        (np.asfortranarray(GRID), "F"),
        (GRID.T, "F"),
        (GRID[::2], "C"),
        (GRID[:, ::-1], "C"),
        (np.broadcast_to(GRID[0], (3, 6)), "C"),
        (GRID.reshape(2, 2, 6).transpose(1, 0, 2), "C"),
        (np.zeros((1, 5)), "C"),
    ],
    ids=["C", "F", "transposed", "strided", "reversed", "broadcast", "three axes", "both"],
)
def test_the_order_of_an_array_is_kept(item: np.ndarray, order: str) -> None:
    """C and F; any other is written in C order."""
    returned = back(item)
    assert np.array_equal(item, returned)
    assert returned.flags[f"{order}_CONTIGUOUS"]
    assert returned.flags.f_contiguous == (order == "F" or 1 in item.shape)


def test_an_array_comes_back_as_a_view_of_the_message() -> None:
    """Without a copy, so it is read-only."""
    codec = codec_for("arrays")
    message = codec.encode(np.arange(1000))
    returned = codec.decode(message)
    assert returned.base is message
    assert not returned.flags.writeable


def test_elements_begin_at_multiples_of_64() -> None:
    """From the beginning of the message, for vector instructions on a message in place."""
    items = [np.full(3, 1, "u1"), np.full(70, 2, "u1"), array.array("b", [3]), memoryview(b"\4\4"), np.full(1, 5, "u1")]
    message = codec_for("arrays").encode(items)
    for value, item in enumerate(items, 1):
        place = message.index(bytes([value]) * len(item), 64)
        assert place % 64 == 0


def test_the_message_is_the_documented_one() -> None:
    """Byte for byte, for authors of programs in other languages."""
    message = codec_for("arrays").encode({"x": np.array([1, 2], "<u2")})
    structure = msgpack.packb({"x": msgpack.ExtType(96, msgpack.packb([0, "<u2", [2], "C"]))})
    head = b"\xc1\x02\x01\x00" + len(structure).to_bytes(4, "little")
    assert message == (head + structure).ljust(64, b"\0") + b"\1\0\2\0"


def test_a_file_in_memory_comes_back_as_an_array() -> None:
    """A memmap is an array whose elements are in a file."""
    with tempfile.TemporaryFile() as file:
        item = np.memmap(file, "i4", "w+", shape=(3,))
        item[:] = 1, 2, 3
        returned = back(item)
        assert type(returned) is np.ndarray
        assert returned.tolist() == [1, 2, 3]
        del item


# Scalars of NumPy

SCALARS = [
    np.int64(-3), np.uint8(3), np.bool_(True), np.float16(0.5), np.float32(0.1), np.longdouble(1) / 3, np.complex64(1j),
    np.complex128(2 - 1j), np.datetime64("2024-01-01T00:00", "ns"), np.timedelta64(3, "h"), np.void(b"abc"),
]  # fmt: skip


@pytest.mark.parametrize("item", SCALARS, ids=lambda item: type(item).__name__)
def test_a_scalar_comes_back_as_what_it_is(item: np.generic) -> None:
    """With its type."""
    returned = back([item])[0]
    assert (type(returned), returned.dtype, returned) == (type(item), item.dtype, item)


@pytest.mark.parametrize(("item", "kind"), [(np.float64(0.5), float), (np.str_("é"), str), (np.bytes_(b"a"), bytes)])
def test_a_scalar_of_a_class_of_python_comes_back_as_that(item: Any, kind: type) -> None:
    """They are subclasses of float, str and bytes, which MessagePack has."""
    returned = back([np.zeros(1), item])[1]
    assert (type(returned), returned) == (kind, item)


def test_a_record_comes_back() -> None:
    """An element of a structured array."""
    item = np.array([(1, "ab", [1, 2])], [("a", "i4"), ("b", "U2"), ("c", "i2", (2,))])[0]
    returned = back(item)
    assert returned.dtype == item.dtype
    assert returned.tobytes() == item.tobytes()


def test_scalars_may_be_keys() -> None:
    """Alone and in tuples."""
    item = {np.int32(1): "a", (np.int64(2), "b"): np.float32(1.5), 5: (np.uint8(1), np.uint8(1))}
    assert back(item) == {np.int32(1): "a", (2, "b"): 1.5, 5: [1, 1]}


# array.array and memoryview


@pytest.mark.parametrize("code", "bBhHiIlLqQfd")
def test_an_array_of_the_standard_library_comes_back(code: str) -> None:
    """With its type code, as a copy."""
    item = array.array(code, [1, 2, 3])
    returned = back({"a": item, "b": array.array(code)})
    assert returned == {"a": item, "b": array.array(code)}
    assert returned["a"].typecode == code
    returned["a"].append(4)


@pytest.mark.filterwarnings("ignore:The 'u' type code:DeprecationWarning")
@pytest.mark.parametrize("code", [code for code in "uw" if code in array.typecodes])
def test_an_array_of_text_comes_back(code: str) -> None:
    """Python 3.13 has a new type code for it, and gets that."""
    if array.array(code).itemsize != 4:
        pytest.skip("Windows has no 'w' before Python 3.13")
    assert back(array.array(code, "aé\U0001f600")).tounicode() == "aé\U0001f600"


@pytest.mark.parametrize(
    "item",
    [
        memoryview(b"abc"),
        memoryview(b""),
        memoryview(bytearray(b"abcdef"))[::2],
        memoryview(array.array("d", [0.5, 2])),
        memoryview(b"abcdef").cast("c", (2, 3)),
        memoryview(np.arange(6.0).reshape(2, 3).T),
        memoryview(np.array([True, False])),
        memoryview(np.array(5)),
        memoryview((ctypes.c_int * 3)(1, 2, 3)),
        memoryview(b"abcdefgh").cast("n"),
    ],
    ids=lambda item: f"{item.format}{item.shape}",
)
def test_a_memoryview_comes_back(item: memoryview) -> None:
    """With its format and shape, as a read-only view of the message."""
    codec = codec_for("arrays")
    message = codec.encode([item])
    returned = codec.decode(message)[0]
    assert (returned.format, returned.shape) == (item.format.removeprefix("<"), item.shape)
    # A memoryview of ctypes has the prefix, and cannot be read by itself.
    assert returned.tolist() == (np.asarray(item) if item.format.startswith("<") else item).tolist()
    assert returned.readonly
    assert returned.obj is message


# Structures


@pytest.mark.parametrize(
    "item",
    [
        None,
        5,
        {"id": 1, "tags": ["a", b"b", 1.5]},
        {(1, 2): 3},
        [[[{}]]],
        datetime(2024, 1, 1, tzinfo=UTC),
        msgpack.ExtType(5, b"x"),
        {"a": msgpack.ExtType(5, b"x")},
    ],
    ids=str,
)
def test_an_item_without_arrays_is_plain_messagepack(item: object) -> None:
    """So a reader with any serializer can get it."""
    assert codec_for("arrays").encode(item) == codec_for("msgpack").encode(item)
    assert back(item) == item


def test_what_messagepack_takes_comes_back_beside_arrays() -> None:
    """As without them."""
    beside: list[Any] = [
        (1, (2,)), Point(1, 2), OrderedDict(a=[1]), bytearray(b"x"), {(1, (2, 3)): 4}, datetime(1, 1, 1, tzinfo=UTC),
        msgpack.ExtType(5, b"x"), -(2**63), 2**64 - 1,
    ]  # fmt: skip
    returned = back([np.zeros(2), beside])
    assert returned[1] == codec_for("msgpack").decode(codec_for("msgpack").encode(beside))


def test_a_message_of_messagepack_is_read() -> None:
    """MessagePack is always allowed."""
    assert codec_for("arrays").decode(b"\x91\x05") == [5]


def test_another_handle_does_not_read_arrays() -> None:
    """The text names the serializer."""
    message = codec_for("arrays").encode(np.zeros(1))
    with pytest.raises(DecodeError, match="encoded by serializer 'arrays': open with serializer='arrays'") as caught:
        codec_for("msgpack").decode(message)
    assert caught.value.data == message


def test_pickles_are_read_if_they_are_allowed() -> None:
    """As with the other serializers."""
    message = codec_for("pickle", allow_pickle=True).encode({1})
    assert codec_for("arrays", allow_pickle=True).decode(message) == {1}


def test_arrays_have_no_types() -> None:
    """Types need msgspec."""
    with pytest.raises(InvalidArgument, match="type= needs serializer='msgspec', not 'arrays'"):
        codec_for("arrays", type=int)


# What cannot be encoded


def nested_dtype(levels: int) -> np.dtype:
    dtype = np.dtype("i4")
    for _ in range(levels):
        dtype = np.dtype([("a", dtype)])
    return dtype


def union() -> np.dtype:
    return np.dtype({"names": ["a", "b"], "formats": ["i4", "f4"], "offsets": [0, 0]})


BAD: dict[str, tuple[Any, str]] = {
    "objects": (np.array([None, 1]), r"\(its dtype object refers to Python objects\): put its \.tolist\(\)"),
    "objects in fields": (np.zeros(1, [("a", "i4"), ("b", "O")]), "refers to Python objects"),
    "a masked array": (np.ma.zeros(2), r"put its \.data and \.mask"),
    "a matrix": (np.zeros((1, 1)).view(np.matrix), r"put np\.array\(…\) of it"),
    "no size": (np.zeros(3, []), r"cannot be described\): put \.astype\(…\) with a plain dtype"),
    "a deep dtype": (np.zeros(3, nested_dtype(40)), "cannot be described"),
    "a union": (np.zeros(3, union()), "cannot be described"),
    "a title": (np.zeros(1, [((b"title", "a"), "i4")]), "cannot be described"),
    "a half": (memoryview(np.zeros(1, "f2")), "its format is 'e'"),
    "a format": (memoryview(np.zeros(2, "i4,f8")), r"its format is 'T\{.*\}'\): put np\.asarray\(…\) of it, or its"),
    "a foreign memoryview": (memoryview(np.zeros(2, np.dtype("f8").newbyteorder())), "its format is"),
    "an empty memoryview": (memoryview(np.zeros((3, 0))), r"no elements, and the shape \(3, 0\)"),
    "an extension": (msgpack.ExtType(96, b""), "extension 96 stands for an array.: choose another code"),
    "equal keys": ({np.float32("nan"): 1, np.float32("nan"): 2}, "two of its keys would be written alike"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_value_that_would_not_come_back_is_an_encode_error(bad: str) -> None:
    """The text has the reason and the way out."""
    value, words = BAD[bad]
    with pytest.raises(EncodeError, match=words) as caught:
        codec_for("arrays").encode(value)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("item", "place"),
    [
        ({"frames": [np.zeros(1), np.array([None])]}, "ndarray at item['frames'][1] (its dtype object"),
        ([[np.zeros(1)], {5: memoryview(np.zeros(2, "i4,f8"))}], "memoryview at item[1][5] (its format"),
        ({"a": np.zeros(1), "b": {1}}, "MessagePack cannot hold this set at item['b']: put list(…) of it"),
        ([np.zeros(1), 2**64], "int at item[1]"),
        ([np.zeros(1), deque()], "deque at item[1]"),
    ],
)
def test_the_error_shows_where_the_value_is(item: object, place: str) -> None:
    """In a large item, the value would be hard to find."""
    with pytest.raises(EncodeError) as caught:
        codec_for("arrays").encode(item)
    assert place in str(caught.value)


def test_a_list_in_itself_beside_an_array_is_an_encode_error() -> None:
    """Not a RecursionError."""
    item: list[Any] = [np.zeros(1)]
    item.append(item)
    with pytest.raises(EncodeError, match="it contains itself"):
        codec_for("arrays").encode(item)


def test_a_memoryview_that_was_released_is_an_encode_error() -> None:
    """Not a ValueError."""
    item = memoryview(b"abc")
    item.release()
    with pytest.raises(EncodeError, match=r"released .*: put its \.tobytes\(\)$"):
        codec_for("arrays").encode(item)


@pytest.mark.parametrize("error", [MemoryError(), OverflowError("too large")])
def test_a_message_that_cannot_be_joined_is_an_encode_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """For lack of memory, or with a structure of 4 GiB."""

    def joined(*arguments: object) -> bytes:
        raise error

    monkeypatch.setattr(_arrays._Writer, "message", joined)
    with pytest.raises(EncodeError) as caught:
        codec_for("arrays").encode(np.zeros(1))
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "item", [np.zeros(2), memoryview(b"abcd")[::2], array.array("i")], ids=lambda i: type(i).__name__
)
def test_the_default_serializer_recommends_this_one(item: object) -> None:
    """It refuses arrays."""
    with pytest.raises(EncodeError, match="or open both ends with serializer='arrays'"):
        codec_for("msgpack").encode([item])


# Without NumPy

WITHOUT_NUMPY = """
    import sys
    sys.modules["numpy"] = None
    import array, ipcq
    from ipcq.serializers import codec_for
"""


def test_without_numpy_structures_and_arrays_of_the_standard_library_work(run: Run) -> None:
    """Only arrays of NumPy need it."""
    assert (
        run(
            WITHOUT_NUMPY
            + """
    with ipcq.open("/jobs", "memory", serializer="arrays") as queue:
        queue.put({"a": array.array("i", [1, 2]), "b": [memoryview(b"x"), None]})
        item = queue.get()
        print(item["a"].tolist(), item["b"][0].tobytes())
    """
        )
        == str([1, 2]) + " b'x'"
    )


@pytest.mark.parametrize("item", [np.zeros(3), np.int32(1)], ids=["array", "scalar"])
def test_without_numpy_its_arrays_are_a_decode_error(run: Run, item: object) -> None:
    """The text has the command that installs it, and the error has the message."""
    message = codec_for("arrays").encode(item)
    said = run(
        WITHOUT_NUMPY
        + f"""
    with ipcq.open("/jobs", "memory", serializer="arrays") as queue:
        with ipcq.open("/jobs", "memory", serializer="raw") as raw:
            raw.put({message!r})
        try:
            queue.get()
        except ipcq.DecodeError as error:
            print(error, error.data == {message!r}, queue.qsize())
    """
    )
    assert said == (
        "queue '/jobs' on backend 'memory': serializer 'arrays' cannot decode it: it has arrays of NumPy, which is not "
        "installed here: pip install 'ipcq-queue[arrays]' True 0"
    )


def test_a_missing_numpy_is_found_out_when_the_serializer_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as above, step by step in one process."""
    message = codec_for("arrays").encode(np.zeros(3))
    for name in ("_arrays", "_numpy"):
        monkeypatch.delitem(sys.modules, f"ipcq.serializers.{name}")
        monkeypatch.delattr(serializers, name)
    monkeypatch.setitem(sys.modules, "numpy", None)
    codec = codec_for("arrays")
    with pytest.raises(DecodeError, match=r"pip install 'ipcq-queue\[arrays\]'"):
        codec.decode(message)
    assert codec.decode(codec.encode([array.array("i", [1])])) == [array.array("i", [1])]


def test_numpy_is_not_imported_by_the_default(run: Run) -> None:
    """It takes a tenth of a second."""
    assert run("import sys, ipcq; ipcq.open('/jobs', 'memory').close(); print('numpy' in sys.modules)") == "False"
