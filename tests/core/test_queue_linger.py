"""Batches that wait for more after their first item: get_many(linger=SECONDS)."""

import time
from contextlib import closing
from typing import Any

import pytest

import ipcq
from core.conftest import HANG, Handle, Thread
from core.fakes import FakeChannel, raising
from ipcq._handle.interface import keep
from ipcq.errors import DecodeError, InvalidArgument, QueueEmpty
from local_backends import local_backends


@pytest.mark.parametrize("backend", [info.name for info in local_backends() if info.usable])
def test_a_batch_is_complete_when_it_has_max_items(name: str, backend: str) -> None:
    """C9, C10: on every backend a lingering call returns at once when the last of its items arrives."""
    with closing(ipcq.open(name, backend, max_messages=4, max_message_size=512)) as queue:
        queue.put(1)
        consumer = Thread(lambda: queue.get_many(3, linger=HANG))
        for item in (2, 3, 4):
            queue.put(item)
        assert (consumer.outcome(), queue.get(timeout=HANG)) == ([1, 2, 3], 4)


@pytest.mark.parametrize(("max_items", "items"), [(None, [1, 2, 3]), (5, [1, 2, 3]), (2, [1, 2])])
def test_a_batch_is_complete_when_the_time_is_over(queue: Handle, max_items: int | None, items: list[int]) -> None:
    """C10: it waits for the given seconds, unless it has max_items before."""
    queue.put_many([1, 2, 3])
    began = time.monotonic()
    assert queue.get_many(max_items, linger=0.02) == items
    assert (time.monotonic() - began >= 0.02) is (max_items != 2)


def test_without_a_first_item_a_batch_does_not_linger(queue: Handle) -> None:
    """C10: the first item has the timeout of the call."""
    with pytest.raises(QueueEmpty):
        queue.get_many(3, block=False, linger=HANG)


@pytest.mark.parametrize("end", ["shutdown", "close"])
def test_an_end_completes_a_batch(queue: Handle, end: str) -> None:
    """C5: the items that were taken are returned."""
    queue.put(1)
    consumer = Thread(lambda: queue.get_many(3, linger=60 * HANG))
    while not queue.empty():
        time.sleep(0.001)
    getattr(queue, end)()
    assert consumer.outcome() == [1]


def test_an_exception_in_the_wait_loses_nothing(handle: Handle, channel: FakeChannel) -> None:
    """C12: what a signal handler raises passes through the call, and the next get returns the items in order."""
    handle.put_many([1, 2])
    channel.wait_readable = lambda *_: raising(KeyboardInterrupt())("")
    with pytest.raises(KeyboardInterrupt):
        handle.get_many(3, linger=HANG)
    handle.put(3)
    assert [handle.get_nowait() for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("added", [False, True])
def test_an_exception_after_a_take_loses_nothing(handle: Handle, error: BaseException, added: bool) -> None:
    """C12, C36: whether or not the messages that were taken last have been added to the batch."""
    rest = [(b"\x02", 0), (b"\x03", 0)]
    messages = [(b"\x01", 0), *(rest if added else [])]
    try:
        handle._stop_lingering(error, messages, rest)
        items = handle._extended([], messages)
    except KeyboardInterrupt:
        items = []
    items += [handle.get_nowait() for _ in range(handle.qsize())]
    assert items == [1, 2, 3]


def test_memory_that_runs_out_completes_a_batch(handle: Handle, channel: FakeChannel) -> None:
    """C36: the items that were taken are returned."""
    handle.put(1)
    channel.try_get_many = raising(MemoryError())
    assert handle.get_many(3, linger=HANG) == [1]


def test_messages_that_are_left_over_come_first(handle: Handle) -> None:
    """C36: a lingering batch passes over none of them."""
    keep(handle, [(b"\x01", 0), (b"\x02", 0)])
    handle.put(3)
    assert [handle.get_many(3, linger=HANG), handle.get_many(3, linger=0.001)] == [[1], [2, 3]]


def test_a_message_that_cannot_be_decoded_is_told_by_the_next_call(queue: Handle) -> None:
    """C6: as without linger."""
    with ipcq.open(queue.name, queue.backend, create=False, serializer="raw") as raw:
        raw.put_many([b"\x01", b"\xc1"])
    assert queue.get_many(2, linger=HANG) == [1]
    with pytest.raises(DecodeError):
        queue.get_many(2, linger=HANG)


@pytest.mark.parametrize("linger", [-1, "1", None, True, float("nan")])
def test_a_bad_time_is_refused(queue: Handle, linger: Any) -> None:
    """It is a number of seconds of at least 0, and nothing is taken."""
    queue.put(1)
    with pytest.raises(InvalidArgument, match="linger must be"):
        queue.get_many(2, linger=linger)
    assert queue.qsize() == 1
