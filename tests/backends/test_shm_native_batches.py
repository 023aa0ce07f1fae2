"""Batches in C: they end as in Python, wait, and lose nothing whatever happens during a call."""

import datetime as dt
import sys
import threading
import time
from functools import partial
from typing import Any

import pytest

import ipcq
from backends import native
from backends.native import HANG_SECONDS, LARGE_BYTES, Handle, Open, outcome

if sys.platform != "linux":
    pytest.skip("shm is for Linux", allow_module_level=True)

switched_on, reset_codec = native.switched_on, native.reset_codec
name, opened, open_in_python, queue = native.name, native.opened, native.open_in_python, native.queue


def test_the_next_get_raises_the_decoding_error_of_a_batch(opened: Open) -> None:
    """Queue keeps the error, so the handle is disarmed."""
    raw, queue = opened(serializer="raw"), opened()
    for message in (b"\xc4\x01a", b"\xc7", b"\xc4\x01b"):
        raw.put(message)
    assert queue.get_many() == [b"a", b"b"]
    queue.put(b"c")
    with pytest.raises(ipcq.DecodeError):
        queue.get()


BATCHES = {
    "items": [b"\xc4\x01a", b"\xc4\x01b", b"\xc4\x01c"],
    "an object among items": [b"\xc4\x01a", b"\x05", b"\xc4\x01b"],
    "an object first": [b"\x05", b"\xc4\x01a", b"\xc4\x01b"],
    "an object last": [b"\xc4\x01a", b"\xc4\x01b", b"\x05"],
    "what cannot be decoded among items": [b"\xc4\x01a", b"\xc7", b"\x05", b"\xc4\x01b"],
    "what cannot be decoded first": [b"\xc7", b"\xc4\x01a", b"\xc4\x01b"],
    "nothing that can be decoded": [b"\xc7", b"\xc7"],
    "dicts": [b"\x81\xa1a\x01", b"\x81\xa1a\x02", b"\x81\xa1a\xc4\x01b"],
    "a time among dicts": [b"\x81\xa1a\x01", b"\xd6\xff\x00\x00\x00\x01", b"\x81\xa1a\x02", b"\xc4\x01a"],
    "a time first": [b"\xd6\xff\x00\x00\x00\x01", b"\x81\xa1a\x01"],
    "what cannot be decoded among dicts": [b"\x81\xa1a\x01", b"\xc7", b"\x81\xa1a\x02"],
    "a large message among dicts": [b"\x81\xa1a\x01", b"\xc6\0\0\x80\0" + bytes(LARGE_BYTES), b"\x81\xa1a\x02"],
}


@pytest.mark.parametrize("most", [None, 1, 2, 3, 9])
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_a_batch_becomes_the_same_items(
    opened: Open, open_in_python: Open, batch: list[bytes], most: int | None
) -> None:
    """C returns as many of them as Python, and leaves the rest for the next gets."""
    raw = opened(serializer="raw")
    found = []
    for handle in (opened(), open_in_python()):
        raw.put_many(batch)
        found.append([outcome(partial(handle.get_many, most, False)) for _ in range(len(batch) + 2)])
    assert found[0] == found[1]


def test_a_handle_that_is_closed_in_a_batch_returns_its_items(queue: Handle) -> None:
    """Their messages have been taken."""
    queue.close()
    assert queue._get_rest([b"a"], [], 1) == [b"a"]


PUT_BATCHES = {
    "bytes": [b"a", b"", b"b"],
    "dicts": [{"a": 1}, {"a": [1.5, None, "x"]}, {}],
    "dicts and bytes": [{"a": 1}, b"a", "a", b"b"],
    "more than a stack": [{"a": "x" * 700}, b"a", {"b": "y" * 700}, {"c": "z" * 7000}],
    "more than is put with the GIL": ["x" * 30000, b"a", {"b": "y" * 30000}],
    "what msgpack writes": [{"a": 1}, dt.datetime(2000, 1, 1, tzinfo=dt.UTC), b"a"],
    "what cannot be encoded": [{"a": 1}, object(), b"a"],
    "what is too large": [{"a": 1}, "x" * (1 << 19)],
    "nothing": [],
}


@pytest.mark.parametrize("batch", PUT_BATCHES.values(), ids=PUT_BATCHES)
@pytest.mark.parametrize("sequence", [list, tuple])
def test_a_batch_becomes_the_same_bytes(
    opened: Open, open_in_python: Open, batch: list[Any], sequence: type[list[Any] | tuple[Any, ...]]
) -> None:
    """Or the call raises the same error, and nothing is stored."""
    raw = opened(serializer="raw")
    found = []
    for handle in (opened(), open_in_python()):
        result = outcome(partial(handle.put_many, sequence(batch)))
        found.append((result, [raw.get() for _ in range(raw.qsize())]))
    assert found[0] == found[1]


def test_a_batch_of_dicts_waits_for_space(opened: Open) -> None:
    """It is put in order, within the timeout of put_many."""
    queue, other = opened(max_messages=2), opened()
    items = [{"number": number} for number in range(7)]
    taken: list[Any] = []
    consumer = threading.Thread(target=lambda: taken.extend(other.get(timeout=HANG_SECONDS) for _ in items))
    consumer.start()
    stored = queue.put_many(items, timeout=HANG_SECONDS)
    consumer.join(HANG_SECONDS)
    assert (stored, taken, (queue.stats().waits or 0) > 0) == (7, items, True)


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_a_batch_for_which_there_is_no_space_in_time_is_an_error(opened: Open, seconds: float) -> None:
    """The call raises if no item was stored, and otherwise returns the number of stored items."""
    queue = opened(max_messages=2)
    assert queue.put_many([{"a": 1}] * 3, timeout=seconds) == 2
    with pytest.raises(ipcq.QueueFull):
        queue.put_many([{"a": 2}], timeout=seconds)


def test_space_that_appears_after_the_attempt_of_a_batch_is_left_alone(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What put_many stores without waiting is one step: other producers' messages cannot come in between."""
    queue = opened(max_messages=2)
    put_rest = ipcq.Queue._put_rest

    def make_space_and_put_rest(self: Handle, *arguments: Any) -> int:
        queue.get()
        return put_rest(self, *arguments)

    monkeypatch.setattr(ipcq.Queue, "_put_rest", make_space_and_put_rest)
    assert queue.put_many([1, 2, 3], block=False) == 2
    assert queue.get_many() == [1, 2]


@pytest.mark.parametrize("most", [None, 1, 2])
def test_get_many_waits_for_the_first_message(opened: Open, most: int | None) -> None:
    """C9: the wait is counted once."""
    queue, other = opened(), opened()
    producer = threading.Timer(0.05, lambda: other.put({"a": 1}))
    producer.start()
    items = queue.get_many(most, timeout=HANG_SECONDS)
    producer.join(HANG_SECONDS)
    figures = queue.stats()
    assert (items, figures.waits, figures.timeouts) == ([{"a": 1}], 1, 0)


def test_get_many_waits_in_vain_for_as_long_as_its_timeout(queue: Handle) -> None:
    """The wait is counted once."""
    before = time.monotonic()
    with pytest.raises(ipcq.QueueEmpty):
        queue.get_many(timeout=0.05)
    figures = queue.stats()
    assert (time.monotonic() - before >= 0.05, figures.waits, figures.timeouts) == (True, 1, 1)


def test_messages_of_a_batch_that_python_cannot_take_over_are_got_next(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C36: memory runs out on the way from C to Python."""
    raw, queue = opened(serializer="raw"), opened()
    batch = [b"\x81\xa1a\x01", b"\xd6\xff\0\0\0\x01", b"\x81\xa1a\x02"]
    raw.put_many(batch)

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(ipcq.Queue, "_get_rest", fail)
        first = queue.get_many()
    time_of_batch = dt.datetime.fromtimestamp(1, dt.UTC)
    assert (first, queue.get(timeout=0), queue.get(timeout=0)) == ([{"a": 1}], time_of_batch, {"a": 2})


def test_a_batch_that_is_left_to_python_and_runs_out_of_memory_is_got_next(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C36: the call raises if no item was decoded."""
    raw, queue = opened(serializer="raw"), opened()
    raw.put_many([b"\xd6\xff\0\0\0\x01", b"\x81\xa1a\x02"])

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(ipcq.Queue, "_get_rest", fail)
        with pytest.raises(MemoryError):
            queue.get_many()
    assert (queue.qsize(), queue.get(timeout=0).timestamp(), queue.get(timeout=0)) == (2, 1.0, {"a": 2})


def test_the_rest_of_a_batch_waits_for_space(opened: Open) -> None:
    """It waits within the timeout of put_many, and follows the first part."""
    queue, other = opened(serializer="raw", max_messages=2), opened(serializer="raw")
    taken: list[bytes] = []
    consumer = threading.Thread(target=lambda: taken.extend(other.get(timeout=HANG_SECONDS) for _ in range(5)))
    consumer.start()
    stored = queue.put_many([b"1", b"2", b"3", b"4", b"5"], timeout=HANG_SECONDS)
    consumer.join(HANG_SECONDS)
    assert (stored, taken) == (5, [b"1", b"2", b"3", b"4", b"5"])


@pytest.mark.parametrize("serializer", ["raw", "msgpack"])
@pytest.mark.parametrize("most", [None, 5, 2])
def test_a_batch_has_small_and_large_messages(name: str, serializer: str, most: int | None) -> None:
    """C9: at least one item, then the others in the queue, whether small or large."""
    items = [b"a", bytes(50000), b"b", b"c", bytes(60000)]
    limits = {"max_messages": 5, "max_message_size": 70000}
    with ipcq.open(name, "shm", exclusive=True, serializer=serializer, **limits) as queue:
        for item in items:
            queue.put(item)
        assert queue.get_many(most) == items[:most]
