"""How a handle keeps messages that it took but could not return because memory ran out."""

import threading
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from core.conftest import Handle
from core.fakes import FakeChannel
from ipcq._handle.interface import count_wait
from ipcq.errors import DecodeError, QueueClosed, QueueEmpty, QueueShutDown

GETS = pytest.mark.parametrize(
    "get",
    [lambda queue: queue.get(timeout=0), lambda queue: queue.get_message(timeout=0).item],
    ids=["get", "get_message"],
)


class Scarce:
    """A decoder that runs out of memory at the calls with these numbers."""

    def __init__(self, handle: Handle, *fails: int) -> None:
        self._decode = handle._decode
        self._fails = fails
        self.calls = 0
        handle._decode = self

    def __call__(self, data: bytes) -> Any:
        self.calls += 1
        if self.calls in self._fails:
            raise MemoryError
        return self._decode(data)


def fail(*_: object) -> Any:
    """Stand in for a call that runs out of memory."""
    raise MemoryError


def fail_after(call: Callable[..., Any], times: int) -> Callable[..., Any]:
    """Return a function that fails after that many calls."""
    left = iter(range(times))

    def counted(*arguments: Any) -> Any:
        return fail() if next(left, None) is None else call(*arguments)

    return counted


@GETS
def test_the_next_get_returns_a_message_that_could_not_be_decoded_for_lack_of_memory(
    handle: Handle, get: Callable[[Handle], object]
) -> None:
    """C36: MemoryError loses no message."""
    handle.put_many([1, 2])
    Scarce(handle, 1)
    with pytest.raises(MemoryError):
        get(handle)
    assert [get(handle), get(handle)] == [1, 2]


@GETS
def test_a_message_that_never_fits_into_memory_does_not_block_the_others(
    handle: Handle, get: Callable[[Handle], object]
) -> None:
    """C6, C36: a small message that fails twice raises DecodeError with its bytes."""
    handle.put_many([1, 2])
    Scarce(handle, 1, 2)
    with pytest.raises(MemoryError):
        get(handle)
    with pytest.raises(DecodeError, match="memory") as caught:
        get(handle)
    assert (caught.value.data, get(handle)) == (b"\x01", 2)


def test_a_call_that_takes_nothing_keeps_nothing(handle: Handle, channel: FakeChannel) -> None:
    """C36: if the channel runs out of memory, the message is still in the queue."""
    handle._try_get = fail
    for get in (handle.get, handle.get_message):
        with pytest.raises(MemoryError):
            get(timeout=0)
    assert not handle._leftovers.kept


def test_a_batch_ends_before_a_message_that_memory_does_not_suffice_to_decode(handle: Handle) -> None:
    """C36: the decoded items are returned at once, the others next, one by one and in order."""
    handle.put_many([1, 2, 3])
    Scarce(handle, 2)
    assert [handle.get_many(block=False) for _ in range(3)] == [[1], [2], [3]]


def test_the_next_get_returns_a_batch_of_which_nothing_could_be_decoded(handle: Handle) -> None:
    """C36: the call itself raises MemoryError."""
    handle.put_many([1, 2])
    Scarce(handle, 1)
    with pytest.raises(MemoryError):
        handle.get_many(block=False)
    assert [handle.get(timeout=0), handle.get(timeout=0)] == [1, 2]


def test_a_small_message_of_a_batch_that_fails_twice_is_a_decode_error(handle: Handle) -> None:
    """C6, C36: the same holds for `get`."""
    handle.put_many([1, 2])
    Scarce(handle, 1, 2)
    with pytest.raises(MemoryError):
        handle.get_many(block=False)
    with pytest.raises(DecodeError, match="memory"):
        handle.get_many(block=False)
    assert handle.get_many(block=False) == [2]


class Stingy(list[Any]):
    """A list of messages whose slices and extensions run out of memory."""

    __getitem__ = fail  # type: ignore[assignment]  # slicing fails
    extend = fail


def test_a_batch_that_cannot_be_split_is_kept_whole(handle: Handle) -> None:
    """C36: items that were decoded are decoded again."""
    messages = Stingy([(b"\x01", 0), (b"\x02", 0)])
    Scarce(handle, 2)
    with pytest.raises(MemoryError):
        handle._extended([], messages)
    assert [handle.get(timeout=0), handle.get(timeout=0)] == [1, 2]


def test_the_next_get_returns_the_rest_of_a_batch_that_could_not_be_added(handle: Handle, channel: FakeChannel) -> None:
    """C36: it was taken, so the handle keeps it."""
    handle.put_many([2, 3])
    messages = Stingy([(b"\x01", 0)])
    assert handle._add_rest(messages, channel, None) == 0
    assert [handle.get(timeout=0), handle.get(timeout=0)] == [2, 3]


def test_a_batch_returns_its_first_message_if_memory_does_not_suffice_for_the_rest(
    handle: Handle, channel: FakeChannel
) -> None:
    """C36: the rest stays in the queue."""
    handle.put_many([1, 2])
    channel.qsize = fail
    assert handle.get_many(block=False) == [1]


def test_large_messages_are_taken_a_few_at_a_time(
    handle: Handle, channel: FakeChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C36: memory then never holds the whole batch both as bytes and as items."""
    asked: list[int] = []
    many = channel.try_get_many

    def one(limit: int) -> list[Any]:
        asked.append(limit)
        return many(1)

    channel.try_get_many = one
    monkeypatch.setattr("ipcq._handle.queue.STEP", 2)
    handle.put_many([1, 2, 3])
    assert (handle.get_many(block=False), asked) == ([1, 2, 3], [2, 1])


def test_a_batch_of_large_messages_is_complete(
    handle: Handle, channel: FakeChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C9: the number of steps does not matter."""
    monkeypatch.setattr("ipcq._handle.queue.STEP", 1)
    handle.put_many([1, 2, 3])
    assert handle.get_many(block=False) == [1, 2, 3]


def test_a_call_in_c_gets_its_part_of_a_batch_back(handle: Handle) -> None:
    """C36: messages that it took have to be returned, although memory has run out."""
    handle.put(2)
    Scarce(handle, 1)
    assert handle._get_rest([1], [], 1) == [1]
    assert handle.get(timeout=0) == 2


def test_a_call_in_c_gets_its_part_back_if_the_call_runs_out_of_memory(
    handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C36: no further message was taken."""
    monkeypatch.setattr(type(handle), "_with_channel", fail)
    assert handle._get_rest([1], [], 1) == [1]


def test_a_call_in_c_leaves_messages_to_python(handle: Handle) -> None:
    """C9: Python decodes them, and continues the batch after them."""
    handle.put_many([3, 4])
    messages = [b"\x02"]
    assert handle._get_rest([1], messages, 1) == [1, 2, 3]
    assert messages == []


def test_what_a_call_in_c_left_to_python_is_got_next_if_memory_runs_out(handle: Handle) -> None:
    """C36: the call has no item to return."""
    Scarce(handle, 1)
    with pytest.raises(MemoryError):
        handle._get_rest([], [b"\x01", b"\x02"], 1)
    assert (handle.get(timeout=0), handle.get(timeout=0)) == (1, 2)


def test_a_batch_in_c_ends_before_what_does_not_fit_into_memory(handle: Handle) -> None:
    """C36: even if more messages are in the queue."""
    handle.put(3)
    Scarce(handle, 2)
    assert handle._get_rest([], [b"\x01", b"\x02"], 1) == [1]
    assert (handle.get(timeout=0), handle.get(timeout=0)) == (2, 3)


def test_the_error_of_a_batch_in_c_has_the_name_of_the_queue(handle: Handle) -> None:
    """Like every other error."""
    with pytest.raises(DecodeError) as caught:
        handle._get_rest([], [b"\xc1"], 0)
    assert (caught.value.queue, caught.value.data) == (handle.name, b"\xc1")


@pytest.mark.parametrize("priority", [0, 7])
def test_the_next_get_returns_what_a_call_in_c_could_not_decode(handle: Handle, priority: int) -> None:
    """C36: the message has its priority."""
    handle._keep(b"\x05", priority)
    message = handle.get_message(timeout=0)
    assert (message.item, message.priority) == (5, priority)


def test_kept_messages_count(handle: Handle) -> None:
    """C25: `qsize` counts them as if they were still in the queue."""
    handle.put_many([1, 2, 3])
    Scarce(handle, 1)
    with pytest.raises(MemoryError):
        handle.get_many(block=False)
    handle._keep(b"\x00", 0)
    assert (handle.qsize(), handle.empty()) == (4, False)
    handle._leftovers.kept.clear()


def test_clearing_drops_kept_messages(handle: Handle) -> None:
    """C37: they count as messages of the queue."""
    handle.put_many([1, 2, 3])
    Scarce(handle, 2)
    assert handle.get_many(block=False) == [1]
    assert handle.clear() == 2
    with pytest.raises(QueueEmpty):
        handle.get(timeout=0)


def test_an_immediate_shutdown_drops_kept_messages(queue: Handle) -> None:
    """C37: no get returns a message afterwards."""
    queue._keep(b"\x01", 0)
    queue.shutdown(immediate=True)
    with pytest.raises(QueueShutDown):
        queue.get(timeout=0)


def test_closing_reports_the_number_of_kept_messages(handle: Handle) -> None:
    """C36: no message that was taken is lost without a warning."""
    handle._keep(b"\x01", 0)
    with pytest.warns(UserWarning, match="lost 1 messages"):
        handle.close()
    with pytest.raises(QueueClosed):
        handle._take_leftover_or_get()


def test_a_child_does_not_get_messages_that_its_parent_keeps(handle: Handle) -> None:
    """C20: the parent returns them."""
    handle._keep(b"\x01", 0)
    handle._forget_calls()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert handle.qsize() == 0


class Overtaken(deque[Any]):
    """Kept messages that another thread takes between the check and the pop."""

    def popleft(self) -> Any:
        self.clear()
        return super().popleft()


def test_a_thread_that_is_overtaken_gets_a_message_from_the_queue(handle: Handle) -> None:
    """C21: another thread has just taken the kept message."""
    handle.put(5)
    handle._leftovers.errors = Overtaken([DecodeError()])
    handle._leftovers.kept = Overtaken([b"\x01"])
    assert handle._take_leftover_or_get() == (b"\x05", 0)


def test_a_kept_batch_stays_kept_if_memory_runs_out_again(handle: Handle) -> None:
    """C36: the kept message could not be returned."""

    class Stuck(list[Any]):
        pop = fail

    handle._leftovers.kept.append(Stuck([(b"\x01", 0)]))
    with pytest.raises(MemoryError):
        handle._take_leftover_or_get()
    assert len(handle._leftovers.kept) == 1
    handle._leftovers.kept.clear()


@pytest.mark.parametrize("verb", ["put", "get"])
def test_a_call_succeeds_even_if_its_wait_cannot_be_counted(handle: Handle, channel: FakeChannel, verb: str) -> None:
    """C36: counting loses no message, and a put that has put its item does not raise."""
    channel.count_wait = fail
    filled = verb == "put"
    while filled and channel.try_put(b"\x01", 0):
        pass

    def serve(*_: object) -> None:
        if filled:
            channel.try_get()
        else:
            channel.try_put(b"\x01", 0)

    channel.wait_readable = channel.wait_writable = serve
    assert handle.put(2, timeout=5) is None if filled else handle.get(timeout=5) == 1


def test_putting_a_batch_returns_the_number_if_memory_runs_out_meanwhile(handle: Handle, channel: FakeChannel) -> None:
    """C36: after an error, the caller would put the items again."""
    channel.wait_writable = fail
    assert handle.put_many(range(10), timeout=5) == 3


def test_putting_a_batch_in_c_returns_the_number_if_memory_runs_out_meanwhile(
    handle: Handle, channel: FakeChannel
) -> None:
    """C36: the caller must not put the stored messages again."""
    channel.try_put_many = fail
    assert handle._put_rest([b"3"], 2, 0.0) == 2


def test_putting_a_batch_in_c_raises_if_nothing_was_stored(handle: Handle, channel: FakeChannel) -> None:
    """The caller may put the whole batch again."""
    channel.try_put_many = fail
    with pytest.raises(MemoryError):
        handle._put_rest([b"1"], 0, 0.0)


def test_counting_a_wait_ignores_a_lack_of_memory(handle: Handle, channel: FakeChannel) -> None:
    """C36: a message that a compatibility module took has to be returned."""
    channel.count_wait = fail
    count_wait(handle, True)


def test_a_channel_ends_a_batch_when_memory_runs_out(channel: FakeChannel) -> None:
    """C36, clause 11: the default of `try_get_many` returns what it took."""
    channel.try_put_many([b"1", b"2", b"3"])
    channel.try_get = fail_after(channel.try_get, 2)
    assert channel.try_get_many(3) == [(b"1", 0), (b"2", 0)]


def test_a_channel_without_memory_for_a_batch_raises(channel: FakeChannel) -> None:
    """C36, clause 11: no message was taken."""
    channel.try_get = fail
    with pytest.raises(MemoryError):
        channel.try_get_many(3)


def test_a_channel_returns_the_number_it_put_before_memory_ran_out(channel: FakeChannel) -> None:
    """C36, clause 11: the default of `try_put_many` does so."""
    channel.try_put = fail_after(channel.try_put, 2)
    assert channel.try_put_many([b"1", b"2", b"3"]) == 2


def test_threads_that_get_kept_messages_lose_nothing(handle: Handle) -> None:
    """C21, C36: each kept message goes to one thread."""
    handle._leftovers.kept.append([(bytes([number]), 0) for number in range(100)])
    handle._begin_with_leftovers()
    taken: list[Any] = []

    def take() -> None:
        try:
            while True:
                taken.append(handle.get(timeout=0))
        except QueueEmpty:
            pass

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    while handle._leftovers.kept:  # a thread may find nothing while another has the batch
        taken.append(handle.get(timeout=0))
    assert sorted(taken) == list(range(100))
