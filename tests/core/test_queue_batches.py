"""Batches: how much is put and taken, and messages that cannot be decoded."""

import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ipcq
from core.conftest import HANG, Handle, Thread
from core.fakes import FakeChannel, raising
from ipcq.errors import (
    DecodeError,
    EncodeError,
    InvalidArgument,
    MessageQueueError,
    QueueClosed,
    QueueGone,
    QueueShutDown,
    Unsupported,
)

BAD = b"\xc1\xff"


def put_raw(queue: Handle, *messages: bytes) -> None:
    """Put bytes into a queue without its serializer."""
    with ipcq.open(queue.name, queue.backend, create=False, serializer="raw") as raw:
        for message in messages:
            raw.put(message)


# Batches


def encode_ones(item: object) -> bytes:
    """Encode nothing but 1, and do not say why."""
    if item != 1:
        raise EncodeError
    return b""


@pytest.mark.parametrize(("encode", "words"), [(None, "MessagePack cannot hold"), (encode_ones, EncodeError.wording)])
def test_an_item_of_a_batch_that_cannot_be_encoded_is_named(
    queue: Handle, encode: Callable[[object], bytes] | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C9: by its place, also in an iterator."""
    if encode is not None:
        monkeypatch.setattr(queue, "_encode", encode)
    for items in ([1, 1, object()], iter([1, 1, object()])):
        with pytest.raises(EncodeError, match=rf"memory': items\[2\]: {words}"):
            queue.put_many(items)
    assert queue.empty()


def test_a_batch_must_be_an_iterable(queue: Handle) -> None:
    """Anything else raises InvalidArgument."""
    with pytest.raises(InvalidArgument, match="items must be an iterable, not 5"):
        queue.put_many(5)


def test_an_exception_of_the_iterable_reaches_the_caller(queue: Handle) -> None:
    """It is not translated."""

    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        queue.put_many(items())


def test_a_batch_whose_iterable_raises_queues_nothing(queue: Handle) -> None:
    """All items are encoded before the first is put."""
    with pytest.raises(ZeroDivisionError):
        queue.put_many(1 // number for number in (1, 0))
    assert queue.empty()


def test_putting_a_batch_returns_the_number_if_the_queue_ends_meanwhile(handle: Handle, channel: FakeChannel) -> None:
    """C9: it counts the items that were put before the shutdown."""

    def shut_down(size: int, since: float, until: float) -> None:
        channel.queue.down = True

    channel.wait_writable = shut_down
    assert handle.put_many(range(5)) == 3


def test_putting_a_batch_raises_if_the_queue_has_ended(handle: Handle, channel: FakeChannel) -> None:
    """C9: no item was put, so the error is raised."""
    channel.queue.down = True
    with pytest.raises(QueueShutDown):
        handle.put_many([1])


def test_putting_a_batch_continues_when_space_becomes_free(handle: Handle, channel: FakeChannel) -> None:
    """C9: it puts as many items as possible before the deadline."""
    channel.wait_writable = lambda *_: channel.queue.messages.clear()
    assert handle.put_many(range(8)) == 8


def test_all_of_a_batch_have_its_priority(name: str, memory: str) -> None:
    """C8: also those that it has to wait for."""
    with ipcq.open(name, memory, priorities=True, max_messages=2, max_message_size=64) as queue:
        producer = Thread(lambda: queue.put_many(range(5), timeout=HANG, priority=3))
        taken = [queue.get_message(timeout=HANG) for _ in range(5)]
        assert (producer.outcome(), [each.priority for each in taken]) == (5, [3] * 5)


def test_a_batch_with_a_priority_needs_a_queue_with_priorities(queue: Handle) -> None:
    """C25: nothing is stored."""
    with pytest.raises(Unsupported, match="create it with priorities=True"):
        queue.put_many([1, 2], priority=1)
    assert queue.empty()


@pytest.mark.parametrize("priority", [-1, 32768, True, 1.0, "1", None, [1, 2]])
def test_a_bad_priority_of_a_batch_is_refused(queue: Handle, priority: Any) -> None:
    """It is one number for all items, as for `put`."""
    with pytest.raises(InvalidArgument, match="priority must be an int from 0 to 32767"):
        queue.put_many([1, 2], priority=priority)


def test_a_channel_without_priorities_gets_the_batch_alone(handle: Handle, channel: FakeChannel) -> None:
    """Backends that were written before batches had priorities still work."""
    channel.try_put_many = lambda batch: len(batch)
    assert handle.put_many([1, 2], priority=0) == 2


def test_a_batch_counts_one_wait(handle: Handle, channel: FakeChannel) -> None:
    """The statistics count calls that wait, not their slices."""
    counts: list[bool] = []
    channel.count_wait = counts.append
    handle.put_many(range(5), timeout=0.01)
    assert counts == [False]


def test_a_batch_without_waiting_counts_no_wait(handle: Handle, channel: FakeChannel) -> None:
    """A single try is not a wait."""
    counts: list[bool] = []
    channel.count_wait = counts.append
    handle.put_many(range(5), block=False)
    assert counts == []


@pytest.mark.parametrize("max_items", [0, -1, True, 1.0, "1", []])
def test_a_bad_size_of_a_batch_is_refused(queue: Handle, max_items: Any) -> None:
    """It is an int of at least 1, or None."""
    with pytest.raises(InvalidArgument, match="max_items must be an int of 1 or more, or None"):
        queue.get_many(max_items)


def test_a_batch_of_one_takes_one_message(handle: Handle) -> None:
    """`max_items` is the largest number to take."""
    handle.put_many([1, 2])
    assert (handle.get_many(1), handle.qsize()) == ([1], 1)


def test_a_batch_whose_queue_ends_after_the_first_message_returns_it(handle: Handle, channel: FakeChannel) -> None:
    """C5: a message that was taken is returned."""
    handle.put(1)
    channel.qsize = lambda: raising(QueueGone())("")
    assert handle.get_many() == [1]


# Messages of a batch that cannot be decoded


def test_a_batch_omits_messages_that_cannot_be_decoded(queue: Handle) -> None:
    """C6: a bad message does not hold back good ones."""
    queue.put(1)
    put_raw(queue, BAD)
    queue.put(2)
    items = queue.get_many()
    drained(queue)
    assert items == [1, 2]


def with_pending(queue: Handle) -> Handle:
    """Let a batch of the handle take a message that cannot be decoded, and return the handle."""
    queue.put(1)
    put_raw(queue, BAD)
    queue.get_many()
    return queue


def drained(queue: Handle) -> Handle:
    """Take the pending error, so that closing does not warn."""
    try:
        queue.get_nowait()
    except MessageQueueError:
        pass
    return queue


@pytest.mark.parametrize(
    "get",
    [
        lambda queue: queue.get(timeout=5),
        lambda queue: queue.get_nowait(),
        lambda queue: queue.get_message(timeout=5),
        lambda queue: queue.get_many(timeout=5),
        lambda queue: next(iter(queue)),
    ],
)
def test_the_next_get_reports_a_message_that_could_not_be_decoded(
    queue: Handle, get: Callable[[Handle], object]
) -> None:
    """C6: every kind of get raises DecodeError with the bytes."""
    with_pending(queue)
    with pytest.raises(DecodeError) as caught:
        get(queue)
    assert caught.value.data == BAD


def test_a_message_that_could_not_be_decoded_is_reported_once(queue: Handle) -> None:
    """C6: the get after that works."""
    drained(with_pending(queue)).put(3)
    assert queue.get(timeout=5) == 3


def test_a_batch_of_only_bad_messages_is_a_decode_error(queue: Handle) -> None:
    """C6: it reports the first; later gets report the others."""
    put_raw(queue, BAD, BAD + b"2")
    with pytest.raises(DecodeError) as caught:
        queue.get_many()
    assert caught.value.data == BAD
    drained(queue)


def test_each_bad_message_of_a_batch_is_reported(queue: Handle) -> None:
    """C6: each gets its own DecodeError."""
    put_raw(queue, BAD, BAD + b"2", BAD + b"3")
    told = []
    for _ in range(3):
        with pytest.raises(DecodeError) as caught:
            queue.get_many(block=False)
        told.append(caught.value.data)
    assert told == [BAD, BAD + b"2", BAD + b"3"]


def test_a_waiting_thread_reports_what_a_batch_could_not_decode(queue: Handle, start: Callable[..., Thread]) -> None:
    """C21: a get that waits in the same handle raises it within a slice."""
    waiting = threading.Event()
    wait = queue._channel.wait_readable

    def wait_and_say(since: float, until: float) -> None:
        waiting.set()
        wait(since, until)

    queue._channel.wait_readable = wait_and_say
    getter = start(queue.get)
    assert waiting.wait(HANG)
    queue._leftovers.errors.append(DecodeError(data=BAD))
    queue._try_get = queue._take_leftover_or_get
    with pytest.raises(DecodeError):
        getter.outcome()


class Overtaken(deque[Any]):
    """Pending errors that another thread takes between the check and the pop."""

    def popleft(self) -> Any:
        self.clear()
        return super().popleft()


def test_a_thread_that_is_overtaken_reports_its_own_bad_message(queue: Handle) -> None:
    """C21: a thread that finds no pending error goes on with its call."""
    queue._leftovers.errors = Overtaken()
    put_raw(queue, BAD)
    with pytest.raises(DecodeError):
        queue.get_many()
    queue._leftovers.errors.clear()


def test_a_thread_that_finds_nothing_pending_gets(queue: Handle) -> None:
    """C21: another thread has reported the error."""
    with_pending(queue)
    queue._leftovers.errors.clear()
    queue.put(5)
    assert queue.get(timeout=5) == 5


def test_threads_lose_nothing_among_bad_messages(name: str, start: Callable[..., Thread]) -> None:
    """C21 and C6: each good message is returned once and each bad one reported once, in any thread."""
    good, bad = list(range(300)), [BAD + str(number).encode() for number in range(300)]
    told: list[object] = []
    with (
        ipcq.open(name, "memory", max_messages=50, max_message_size=64) as queue,
        ipcq.open(name, "memory", serializer="raw") as raw,
    ):

        def take() -> None:
            while True:
                try:
                    told.extend(queue.get_many(3, timeout=HANG))
                except DecodeError as error:
                    told.append(error.data)
                except QueueShutDown:
                    return

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            threads = [start(take) for _ in range(3)]
            for item, data in zip(good, bad, strict=True):
                queue.put(item)
                raw.put(data)
            queue.shutdown()
            for thread in threads:
                thread.outcome()
        finally:
            sys.setswitchinterval(interval)
        told.extend(error.data for error in queue._leftovers.errors)
        queue._leftovers.errors.clear()  # errors that were pending when the last thread saw the shutdown
    assert sorted(map(repr, told)) == sorted(map(repr, good + bad))


def test_closing_reports_pending_errors(queue: Handle) -> None:
    """C7: no message that was taken vanishes without a report."""
    with_pending(queue)
    with pytest.warns(UserWarning, match=r"no get reported: \[b'\\xc1\\xff'\]"):
        queue.close()


def test_closing_reports_pending_errors_once(queue: Handle) -> None:
    """A second close does nothing."""
    with_pending(queue)
    with pytest.warns(UserWarning, match="no get reported"):
        queue.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        queue.close()
    assert not caught


def test_a_closed_handle_reports_no_pending_errors(queue: Handle) -> None:
    """C14: it raises QueueClosed."""
    with_pending(queue)
    with pytest.warns(UserWarning, match="no get reported"):
        queue.close()
    with pytest.raises(QueueClosed):
        queue.get_nowait()
