"""What a handle does with messages that it took and could not return because memory ran out."""

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
    """A decoder that runs out of memory at the calls of these numbers."""

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
    """Let a call fail after so many."""
    left = iter(range(times))

    def counted(*arguments: Any) -> Any:
        return fail() if next(left, None) is None else call(*arguments)

    return counted


@GETS
def test_what_there_was_no_memory_to_decode_is_got_next(handle: Handle, get: Callable[[Handle], object]) -> None:
    """C36: MemoryError costs no message."""
    handle.put_many([1, 2])
    Scarce(handle, 1)
    with pytest.raises(MemoryError):
        get(handle)
    assert [get(handle), get(handle)] == [1, 2]


@GETS
def test_what_never_has_memory_does_not_stand_before_all_else_for_ever(
    handle: Handle, get: Callable[[Handle], object]
) -> None:
    """C6, C36: a small message that fails twice is a DecodeError with its bytes."""
    handle.put_many([1, 2])
    Scarce(handle, 1, 2)
    with pytest.raises(MemoryError):
        get(handle)
    with pytest.raises(DecodeError, match="memory") as caught:
        get(handle)
    assert (caught.value.data, get(handle)) == (b"\x01", 2)


def test_a_call_that_takes_nothing_keeps_nothing(handle: Handle, channel: FakeChannel) -> None:
    """C36: a message that did not fit into memory in the channel is still in the queue."""
    handle._try_get = fail
    for get in (handle.get, handle.get_message):
        with pytest.raises(MemoryError):
            get(timeout=0)
    assert not handle._leftovers.kept


def test_a_batch_ends_before_what_there_is_no_memory_to_decode(handle: Handle) -> None:
    """C36: the items that there are come at once, the others next, one by one and in order."""
    handle.put_many([1, 2, 3])
    Scarce(handle, 2)
    assert [handle.get_many(block=False) for _ in range(3)] == [[1], [2], [3]]


def test_a_batch_of_which_nothing_can_be_decoded_is_got_next(handle: Handle) -> None:
    """C36: and then it raises MemoryError."""
    handle.put_many([1, 2])
    Scarce(handle, 1)
    with pytest.raises(MemoryError):
        handle.get_many(block=False)
    assert [handle.get(timeout=0), handle.get(timeout=0)] == [1, 2]


def test_a_small_message_of_a_batch_that_fails_twice_is_a_decode_error(handle: Handle) -> None:
    """C6, C36: as for get."""
    handle.put_many([1, 2])
    Scarce(handle, 1, 2)
    with pytest.raises(MemoryError):
        handle.get_many(block=False)
    with pytest.raises(DecodeError, match="memory"):
        handle.get_many(block=False)
    assert handle.get_many(block=False) == [2]


class Stingy(list[Any]):
    """A list of messages whose slices and extensions run out of memory."""

    __getitem__ = fail  # type: ignore[assignment]  # as cutting does
    extend = fail  # type: ignore[assignment]


def test_a_batch_that_cannot_be_parted_is_kept_whole(handle: Handle) -> None:
    """C36: then the items that were decoded are decoded again."""
    messages = Stingy([(b"\x01", 0), (b"\x02", 0)])
    Scarce(handle, 2)
    with pytest.raises(MemoryError):
        handle._extended([], messages)
    assert [handle.get(timeout=0), handle.get(timeout=0)] == [1, 2]


def test_the_rest_of_a_batch_that_cannot_be_added_is_got_next(handle: Handle, channel: FakeChannel) -> None:
    """C36: it was taken, so it is kept."""
    handle.put_many([2, 3])
    messages = Stingy([(b"\x01", 0)])
    assert handle._add_rest(messages, channel, None) == 0
    assert [handle.get(timeout=0), handle.get(timeout=0)] == [2, 3]


def test_a_batch_for_whose_rest_there_is_no_memory_is_its_first_message(handle: Handle, channel: FakeChannel) -> None:
    """C36: the rest stays where it is."""
    handle.put_many([1, 2])
    channel.qsize = fail  # type: ignore[method-assign]
    assert handle.get_many(block=False) == [1]


def test_large_messages_are_taken_a_few_at_a_time(
    handle: Handle, channel: FakeChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C36: so that not the whole batch is held as bytes and as items."""
    asked: list[int] = []
    many = channel.try_get_many

    def one(limit: int) -> list[Any]:
        asked.append(limit)
        return many(1)

    channel.try_get_many = one  # type: ignore[method-assign]
    monkeypatch.setattr("ipcq._handle.queue.STEP", 2)
    handle.put_many([1, 2, 3])
    assert (handle.get_many(block=False), asked) == ([1, 2, 3], [2, 1])


def test_a_batch_of_large_messages_has_all_that_are_there(
    handle: Handle, channel: FakeChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C9: however many steps it takes."""
    monkeypatch.setattr("ipcq._handle.queue.STEP", 1)
    handle.put_many([1, 2, 3])
    assert handle.get_many(block=False) == [1, 2, 3]


def test_a_shortcut_is_given_back_its_part_of_a_batch(handle: Handle) -> None:
    """C36: what it took has to be returned, although memory has run out."""
    handle.put(2)
    Scarce(handle, 1)
    assert handle._get_rest([1], 2) == [1]
    assert handle.get(timeout=0) == 2


def test_a_shortcut_whose_call_finds_no_memory_is_given_back_its_part(
    handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C36: nothing more was taken."""
    monkeypatch.setattr(type(handle), "_with_channel", fail)
    assert handle._get_rest([1], 2) == [1]


@pytest.mark.parametrize("priority", [0, 7])
def test_what_a_shortcut_could_not_decode_is_got_next(handle: Handle, priority: int) -> None:
    """C36: with its priority."""
    handle._keep(b"\x05", priority)
    message = handle.get_message(timeout=0)
    assert (message.item, message.priority) == (5, priority)


def test_what_is_kept_counts(handle: Handle) -> None:
    """C25: as if it were still in the queue."""
    handle.put_many([1, 2, 3])
    Scarce(handle, 1)
    with pytest.raises(MemoryError):
        handle.get_many(block=False)
    handle._keep(b"\x00", 0)
    assert (handle.qsize(), handle.empty()) == (4, False)
    handle._leftovers.kept.clear()


def test_clearing_drops_what_is_kept(handle: Handle) -> None:
    """C37: it was in the queue."""
    handle.put_many([1, 2, 3])
    Scarce(handle, 2)
    assert handle.get_many(block=False) == [1]
    assert handle.clear() == 2
    with pytest.raises(QueueEmpty):
        handle.get(timeout=0)


def test_an_immediate_shutdown_drops_what_is_kept(queue: Handle) -> None:
    """C37: nothing is got afterwards."""
    queue._keep(b"\x01", 0)
    queue.shutdown(immediate=True)
    with pytest.raises(QueueShutDown):
        queue.get(timeout=0)


def test_closing_tells_how_many_nobody_got(handle: Handle) -> None:
    """C36: no message that was taken is lost without a warning."""
    handle._keep(b"\x01", 0)
    with pytest.warns(UserWarning, match="lost 1 messages"):
        handle.close()
    with pytest.raises(QueueClosed):
        handle._report_or_get()


def test_a_child_does_not_get_what_its_parent_keeps(handle: Handle) -> None:
    """C20: the parent returns it."""
    handle._keep(b"\x01", 0)
    handle._forget_calls()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert handle.qsize() == 0


class Overtaken(deque[Any]):
    """The kept messages, as seen by a thread that another thread overtakes."""

    def popleft(self) -> Any:
        self.clear()
        return super().popleft()


def test_a_thread_that_is_overtaken_gets_what_is_in_the_queue(handle: Handle) -> None:
    """C21: another thread took what was kept just then."""
    handle.put(5)
    handle._leftovers.errors = Overtaken([DecodeError()])
    handle._leftovers.kept = Overtaken([b"\x01"])
    assert handle._report_or_get() == (b"\x05", 0)


def test_what_a_kept_batch_has_no_memory_for_stays_kept(handle: Handle) -> None:
    """C36: also where the kept message cannot be handed out."""

    class Stuck(list[Any]):
        pop = fail  # type: ignore[assignment]

    handle._leftovers.kept.append(Stuck([(b"\x01", 0)]))
    with pytest.raises(MemoryError):
        handle._report_or_get()
    assert len(handle._leftovers.kept) == 1
    handle._leftovers.kept.clear()


@pytest.mark.parametrize("verb", ["put", "get"])
def test_a_wait_that_was_served_and_cannot_be_counted_was_served(
    handle: Handle, channel: FakeChannel, verb: str
) -> None:
    """C36: counting costs no message, and a put that stored does not raise."""
    channel.count_wait = fail  # type: ignore[method-assign]
    filled = verb == "put"
    while filled and channel.try_put(b"\x01", 0):
        pass

    def serve(*_: object) -> None:
        if filled:
            channel.try_get()
        else:
            channel.try_put(b"\x01", 0)

    channel.wait_readable = channel.wait_writable = serve  # type: ignore[method-assign]
    assert handle.put(2, timeout=5) is None if filled else handle.get(timeout=5) == 1


def test_a_batch_tells_what_was_stored_before_memory_ran_out(handle: Handle, channel: FakeChannel) -> None:
    """C36: a caller that gets an error would put the items again."""
    channel.wait_writable = fail  # type: ignore[method-assign]
    assert handle.put_many(range(10), timeout=5) == 3


def test_a_shortcuts_batch_tells_what_was_stored_before_memory_ran_out(handle: Handle) -> None:
    """C36: also where there is none to encode the rest."""
    handle._encode = fail
    assert handle._put_rest([b"1", b"2", b"3"], 2, 0.0) == 2


def test_a_face_counts_no_wait_that_there_is_no_memory_for(handle: Handle, channel: FakeChannel) -> None:
    """C36: what it took has to be returned."""
    channel.count_wait = fail  # type: ignore[method-assign]
    count_wait(handle, True)


def test_a_channels_batch_ends_before_what_there_is_no_memory_for(channel: FakeChannel) -> None:
    """C36, clause 11: the default's too."""
    channel.try_put_many([b"1", b"2", b"3"])
    channel.try_get = fail_after(channel.try_get, 2)  # type: ignore[method-assign]
    assert channel.try_get_many(3) == [(b"1", 0), (b"2", 0)]


def test_a_channels_batch_without_memory_raises(channel: FakeChannel) -> None:
    """C36, clause 11: nothing was taken."""
    channel.try_get = fail  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        channel.try_get_many(3)


def test_a_channels_batch_tells_what_it_stored_before_memory_ran_out(channel: FakeChannel) -> None:
    """C36, clause 11: the default's too."""
    channel.try_put = fail_after(channel.try_put, 2)  # type: ignore[method-assign]
    assert channel.try_put_many([b"1", b"2", b"3"]) == 2


def test_threads_that_get_beside_a_shortage_lose_nothing(handle: Handle) -> None:
    """C21, C36: each kept message goes to one of them."""
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
    while handle._leftovers.kept:  # a thread may see nothing while another one holds the batch
        taken.append(handle.get(timeout=0))
    assert sorted(taken) == list(range(100))
