"""C39: memory that messages are built and read in: who refers to it, arrays, threads, forks and finalisers."""

import gc
import os
import pickle
import struct
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import ipcq
from ipcq.testing.processes import fresh_name

pytestmark = pytest.mark.needs("memory")

Handle = ipcq.Queue[Any]


@pytest.fixture
def arrays() -> Iterator[Handle]:
    """Return a queue of arrays."""
    with ipcq.open(fresh_name(), "memory", serializer="arrays", max_messages=4) as queue:
        yield queue
        queue.unlink()


@pytest.fixture
def raw() -> Iterator[Handle]:
    """Return a queue of raw bytes."""
    with ipcq.open(fresh_name(), "memory", serializer="raw", max_messages=4, max_message_size=4096) as queue:
        yield queue
        queue.unlink()


@pytest.fixture
def lending() -> Iterator[Handle]:
    """Return a queue with leases."""
    with ipcq.open(fresh_name(), "memory", leases=True, max_messages=4) as queue:
        yield queue
        queue.unlink()


# Reservations


@pytest.mark.parametrize("shape", [(), 3, (2, 3), (0, 4)])
@pytest.mark.parametrize("dtype", ["uint8", ">i4", "datetime64[s]", [("a", "i2"), ("b", "f8")]])
def test_an_array_is_filled_in_place_and_becomes_the_item(arrays: Handle, shape: Any, dtype: Any) -> None:
    with arrays.reserve(1000) as reservation:
        array = reservation.array(shape, dtype)
        array[...] = np.ones(shape, "u1").astype(dtype) if isinstance(dtype, str) else (1, 2.0)
        expected = array.copy()
        del array
    item = arrays.get()
    assert (item.dtype, item.shape) == (np.dtype(dtype), expected.shape)
    assert (item == expected).all()


def test_an_array_on_a_queue_of_bytes_is_a_view_of_the_bytes(raw: Handle) -> None:
    with raw.reserve(8) as reservation:
        reservation.array(2, "<u4")[:] = 1, 2
    assert raw.get() == b"\1\0\0\0\2\0\0\0"


def test_with_arrays_bytes_stay_bytes(arrays: Handle) -> None:
    with arrays.reserve(70_000) as reservation:
        reservation.buffer[:] = bytes(70_000)
    assert arrays.get() == bytes(70_000)


def test_a_reference_to_a_reservation_keeps_its_message_out_of_the_queue(arrays: Handle) -> None:
    """NumPy's array refers to the memory and is no export of the buffer, so its release would succeed."""
    with pytest.raises(BufferError, match="del array"), arrays.reserve(100) as reservation:
        array = reservation.array(10)
    array[:] = 1  # its memory is still there
    assert arrays.empty()


def test_an_export_of_a_reservation_keeps_its_message_out_of_the_queue(raw: Handle) -> None:
    with raw.reserve(4) as reservation:
        part = memoryview(reservation.buffer)
        iterator = iter(np.ndarray(4, "u1", part))
        with pytest.raises(BufferError):
            reservation.commit()
        del part, iterator
        reservation.buffer[:] = b"good"
    assert raw.get() == b"good"


def test_an_exception_of_the_block_is_not_replaced(raw: Handle) -> None:
    with pytest.raises(ZeroDivisionError), raw.reserve(4) as reservation:
        kept = reservation.buffer[1:]
        _ = 1 / 0
    kept[0] = 1
    raw.put(b"item")
    with pytest.raises(ZeroDivisionError), raw.view() as view:
        part = view.buffer[1:]
        _ = 1 / 0
    assert part == b"tem"


@pytest.mark.parametrize("size", [-1, 5, True, "4", 2.0])
def test_a_reservation_puts_no_other_size(raw: Handle, size: Any) -> None:
    with raw.reserve(4) as reservation:
        with pytest.raises(ipcq.InvalidArgument, match="from 0 to 4"):
            reservation.commit(size)
        reservation.cancel()
    assert raw.empty()


def test_an_array_has_its_own_size(arrays: Handle) -> None:
    with arrays.reserve(80) as reservation:
        reservation.array(10)[:] = 0
        with pytest.raises(ipcq.InvalidArgument, match="the message is an array"):
            reservation.commit(40)
        reservation.cancel()
        reservation.cancel()
    assert arrays.empty()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((-1,), "0 or more"),
        ((True,), "0 or more"),
        (("8",), "0 or more"),
        ((8, 1), "block"),
        ((8, True, -1), "timeout"),
    ],
)
def test_a_reservation_checks_its_arguments(raw: Handle, arguments: Any, error: str) -> None:
    with pytest.raises(ipcq.InvalidArgument, match=error):
        raw.reserve(*arguments)


def test_a_reservation_is_bounded_as_messages_are(raw: Handle) -> None:
    with pytest.raises(ipcq.MessageTooLarge, match="4097 bytes are reserved, the limit is 4096") as caught:
        raw.reserve(4097)
    assert (caught.value.size, caught.value.limit) == (4097, 4096)
    with pytest.raises(ipcq.Unsupported, match="priorities"):
        raw.reserve(1, priority=1)
    with ipcq.open(raw.name, "memory", write=False) as reader, pytest.raises(ipcq.PermissionDenied):
        reader.reserve(1)


def test_the_head_counts_too() -> None:
    with ipcq.open(fresh_name(), "memory", max_message_size=64) as queue:
        with pytest.raises(ipcq.MessageTooLarge), queue.reserve(64):
            pass
        queue.unlink()


def test_messagepack_has_no_bytes_beyond_its_bound(raw: Handle) -> None:
    from ipcq.serializers._in_place import head_of_bytes

    assert head_of_bytes("bin", 2**32 - 1) == b"\xc6\xff\xff\xff\xff"
    with pytest.raises(ipcq.InvalidArgument, match="4294967296"):
        head_of_bytes("bin", 2**32)
    assert head_of_bytes("raw", 2**32) == b""


@pytest.mark.parametrize("options", [{"serializer": "pickle", "allow_pickle": True}, {"type": int}])
def test_serializers_that_make_objects_build_nothing_in_place(options: dict[str, Any]) -> None:
    with ipcq.open(fresh_name(), "memory", **options) as queue:
        queue.put(7)
        with queue.view() as view:
            assert view.item == 7
        with pytest.raises(ipcq.Unsupported, match="serializer='raw'"):
            queue.reserve(1)
        queue.unlink()


@pytest.mark.parametrize(
    ("shape", "dtype"), [(3, "f8"), (1, "O"), (1, "nonsense"), ("x", "f8"), (-2, "u1"), (1, [("a", "O")])]
)
def test_arrays_that_do_not_fit_are_refused(arrays: Handle, shape: Any, dtype: Any) -> None:
    with arrays.reserve(16) as reservation:
        with pytest.raises(ipcq.InvalidArgument):
            reservation.array(shape, dtype)
        reservation.cancel()
        with pytest.raises(ipcq.InvalidArgument, match="has ended"):
            reservation.array(1)
        with pytest.raises(ipcq.InvalidArgument, match="has ended"):
            reservation.commit()


def test_arrays_need_numpy(raw: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ipcq.serializers._numpy", None)
    monkeypatch.delattr("ipcq.serializers._numpy", raising=False)
    with raw.reserve(8) as reservation:
        with pytest.raises(ipcq.Unsupported, match=r"pip install 'ipcq-queue\[arrays\]'"):
            reservation.array(1)
        reservation.cancel()


def test_a_reservation_is_committed_once(raw: Handle) -> None:
    with raw.reserve(2) as reservation:
        reservation.buffer[:] = b"ab"
        assert "open" in repr(reservation)
        reservation.commit()
        assert reservation.ended
        with pytest.raises(ipcq.InvalidArgument, match="has ended"):
            reservation.commit()
        with pytest.raises(ValueError, match="released"):
            reservation.buffer[0] = 0
    assert raw.get_many() == [b"ab"]


def test_what_is_dropped_is_given_up_with_a_warning(raw: Handle) -> None:
    with pytest.warns(ResourceWarning, match="was given up, nothing was put"):
        raw.reserve(2)
        gc.collect(0)
    assert raw.empty()


def test_another_process_is_told_so(raw: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    with raw.reserve(2) as reservation:
        with monkeypatch.context() as patch, pytest.raises(ipcq.InvalidArgument, match="parent process"):
            patch.setattr(os, "getpid", lambda: 0)
            reservation.commit()
        reservation.cancel()


def test_a_forked_child_puts_nothing_of_its_parent_and_does_not_warn(raw: Handle) -> None:
    reservation = raw.reserve(2)
    child = os.fork()
    if not child:
        code = 1
        try:
            try:
                reservation.commit()
            except ipcq.InvalidArgument as error:
                code = 0 if "parent process" in str(error) else 2
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                del reservation
                gc.collect()
            code = 3 if told else code
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    reservation.cancel()


def test_neither_travels_to_another_process(raw: Handle) -> None:
    raw.put(b"item")
    with raw.reserve(1) as reservation, raw.view() as view:
        for each in (reservation, view):
            assert raw.name in repr(each)
            with pytest.raises(TypeError, match="belongs to the process"):
                pickle.dumps(each)
        reservation.cancel()
    assert "ended" in repr(reservation)
    assert "ended" in repr(view)
    assert reservation.size == 1


# Views


def test_arrays_of_a_view_lie_in_its_memory(arrays: Handle) -> None:
    arrays.put({"a": np.arange(6).reshape(2, 3), "b": 1})
    with arrays.view() as view:
        assert view.item is view.item
        assert view.item["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
        assert np.shares_memory(view.item["a"], np.frombuffer(view.buffer, "u1"))
        assert not view.item["a"].flags.writeable
    with pytest.raises(ipcq.InvalidArgument, match="has ended"):
        _ = view.item
    arrays.put(np.zeros(3))
    with pytest.raises(BufferError), arrays.view() as view:
        array = view.item
    assert array.tolist() == [0, 0, 0]


def test_an_export_that_python_counts_is_told_too(raw: Handle) -> None:
    raw.put(b"1234")
    with pytest.raises(BufferError, match="refers to the memory"), raw.view() as view:
        numbers = struct.iter_unpack("<H", view.buffer)
    assert len(list(numbers)) == 2


def test_a_view_that_is_released_stays_so(raw: Handle) -> None:
    raw.put(b"x")
    with raw.view() as view:
        assert view.priority == 0
        view.release()
        view.release()


def test_an_item_that_cannot_be_decoded_is_told_when_it_is_read(arrays: Handle) -> None:
    with ipcq.open(arrays.name, "memory", serializer="raw") as other:
        other.put(b"\xc1\x02\x01\x00")
        other.put(b"\xc4")
    with arrays.view() as view, pytest.raises(ipcq.DecodeError):
        _ = view.item
    with arrays.view() as view:
        assert view.buffer == b"\xc4"


def test_a_view_that_does_not_fit_into_memory_is_kept(raw: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    raw.put(b"kept")
    with monkeypatch.context() as patch:
        patch.setattr("ipcq._abilities.view.Memory", no_memory)
        with pytest.raises(MemoryError):
            raw.view()
    assert raw.get_nowait() == b"kept"


def test_a_view_on_loan_is_settled_by_its_block_or_by_its_lease(lending: Handle) -> None:
    lending.put("item")
    with lending.view() as view:
        assert view.lease is not None
        assert view.lease.item is None
        view.lease.release()
    with lending.view() as view:
        assert view.item == "item"
        assert view.lease is not None
        view.lease.ack()
    lending.join(timeout=0)


def test_a_lost_lease_is_what_the_end_of_the_block_tells(lending: Handle) -> None:
    lending.put(b"item")
    with pytest.raises(ipcq.LeaseLost), lending.view(hold=0.001) as view:
        part = view.buffer[1:]
        time.sleep(0.05)
    assert part == b"tem"


def test_a_hold_needs_leases(raw: Handle) -> None:
    with pytest.raises(ipcq.Unsupported, match="leases"):
        raw.view(hold=1)


# Copies


@pytest.mark.parametrize("item", [np.arange(6, dtype="i2"), np.asfortranarray([[1, 2], [3, 4]]), np.zeros(0), b"bytes"])
def test_the_elements_of_an_array_are_copied_in_c_order(arrays: Handle, item: Any) -> None:
    arrays.put(item)
    target = bytearray(100)
    size = arrays.get_into(target)
    assert target[:size] == (item if isinstance(item, bytes) else item.tobytes())


@pytest.mark.parametrize("item", [{"a": 1}, 7, "text", np.array("2020", "datetime64[D]")])
def test_what_has_no_bytes_is_not_copied(arrays: Handle, item: Any) -> None:
    arrays.put(item)
    with pytest.raises(ipcq.DecodeError, match="take such items with get") as caught:
        arrays.get_into(bytearray(100))
    assert caught.value.data
    assert arrays.empty()


@pytest.mark.parametrize(
    ("buffer", "error"),
    [
        (b"12345678", "writable"),
        ("text", "with a buffer"),
        (np.zeros((4, 4))[::2], "C order"),
        (np.zeros(0), "the buffer 0"),
    ],
)
def test_a_buffer_that_cannot_be_filled_takes_nothing(raw: Handle, buffer: Any, error: str) -> None:
    raw.put(b"item")
    with pytest.raises((ipcq.InvalidArgument, ipcq.MessageTooLarge), match=error):
        raw.get_into(buffer)
    assert raw.get() == b"item"


def test_a_message_that_is_too_large_keeps_its_priority() -> None:
    with ipcq.open(fresh_name(), "memory", priorities=True) as queue:
        queue.put(b"item", priority=7)
        with pytest.raises(ipcq.MessageTooLarge):
            queue.get_into(bytearray(1))
        assert queue.get_message() == ipcq.Message(b"item", 7)
        queue.unlink()
