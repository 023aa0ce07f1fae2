"""One handle: what its calls do around the channel, while it is closed, forked, forgotten and pickled."""

import gc
import os
import pickle
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import ipcq
from core.conftest import HANG, Installed, Run, Thread
from core.fakes import HOST, FakeBackend, FakeChannel, raising
from ipcq import _queue, _registry
from ipcq._calls import calls_of_this_thread, counted
from ipcq.backend import Capabilities, Scope
from ipcq.errors import (
    DecodeError,
    EncodeError,
    InvalidArgument,
    MessageQueueError,
    MessageTooLarge,
    PermissionDenied,
    QueueClosed,
    QueueEmpty,
    QueueExists,
    QueueFull,
    QueueGone,
    QueueNotFound,
    QueueShutDown,
    Unsupported,
)

BAD = b"\xc1\xff"

Handle = ipcq.Queue[Any]


@pytest.fixture
def fake(installed: Installed) -> FakeBackend:
    """Return an installed backend whose channels can be made to do anything."""
    fake = FakeBackend("fake", rank=900, capabilities=replace(HOST, notify=True, pollable=True))
    installed.backend(fake)
    return fake


@pytest.fixture
def handle(fake: FakeBackend, name: str) -> Iterator[Handle]:
    """Return a handle to a new queue of 3 messages of 64 bytes on the fake."""
    handle = ipcq.open(name, "fake", max_messages=3, max_message_size=64)
    yield handle
    handle.close()


@pytest.fixture
def channel(handle: Handle, fake: FakeBackend) -> FakeChannel:
    """Return the channel below the handle."""
    return fake.channels[0]


def put_raw(queue: Handle, *messages: bytes) -> None:
    """Put bytes into a queue's mechanism, past the serializer."""
    with ipcq.open(queue.name, queue.backend, create=False, serializer="raw") as raw:
        for message in messages:
            raw.put(message)


# Batches


def test_what_is_no_iterable_is_no_batch(queue: Handle) -> None:
    """Everything a user can pass wrongly gets an InvalidArgument."""
    with pytest.raises(InvalidArgument, match="items is an iterable, not 5"):
        queue.put_many(5)  # type: ignore[arg-type]


def test_what_a_batchs_own_iterable_raises_goes_through(queue: Handle) -> None:
    """It is not ours to change."""

    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        queue.put_many(items())


def test_a_batch_whose_iterable_raises_queues_nothing(queue: Handle) -> None:
    """All items are encoded before the first is stored."""
    with pytest.raises(ZeroDivisionError):
        queue.put_many(1 // number for number in (1, 0))
    assert queue.empty()


def test_a_batch_tells_what_was_stored_before_the_end(handle: Handle, channel: FakeChannel) -> None:
    """C9: what is in is counted, though the queue ended behind it."""

    def shut_down(size: int, since: float, until: float) -> None:
        channel.queue.down = True

    channel.wait_writable = shut_down  # type: ignore[method-assign]
    assert handle.put_many(range(5)) == 3


def test_a_batch_of_which_nothing_was_stored_before_the_end_raises(handle: Handle, channel: FakeChannel) -> None:
    """C9: the end is told where there is nothing else to tell."""
    channel.queue.down = True
    with pytest.raises(QueueShutDown):
        handle.put_many([1])


def test_a_batch_goes_on_where_space_comes_free(handle: Handle, channel: FakeChannel) -> None:
    """C9: as many as find space in time."""
    channel.wait_writable = lambda *_: channel.queue.messages.clear()  # type: ignore[method-assign]
    assert handle.put_many(range(8)) == 8


def test_a_batch_counts_one_wait(handle: Handle, channel: FakeChannel) -> None:
    """stats: waits counts calls and not slices."""
    counts: list[bool] = []
    channel.count_wait = counts.append  # type: ignore[method-assign]
    handle.put_many(range(5), timeout=0.01)
    assert counts == [False]


def test_a_batch_that_never_waits_counts_none(handle: Handle, channel: FakeChannel) -> None:
    """stats: one try is no wait."""
    counts: list[bool] = []
    channel.count_wait = counts.append  # type: ignore[method-assign]
    handle.put_many(range(5), block=False)
    assert counts == []


@pytest.mark.parametrize("max_items", [0, -1, True, 1.0, "1", []])
def test_a_bad_size_of_a_batch_is_refused(queue: Handle, max_items: Any) -> None:
    """An int from 1 on, or None."""
    with pytest.raises(InvalidArgument, match="max_items is an int from 1 on or None"):
        queue.get_many(max_items)


def test_a_batch_of_one_takes_no_more(handle: Handle) -> None:
    """max_items is how many at the most."""
    handle.put_many([1, 2])
    assert (handle.get_many(1), handle.qsize()) == ([1], 1)


def test_a_batch_whose_queue_ends_behind_its_first_message_keeps_it(handle: Handle, channel: FakeChannel) -> None:
    """C1: what was taken is returned."""
    handle.put(1)
    channel.qsize = lambda: raising(QueueGone())("")  # type: ignore[method-assign,assignment,return-value]
    assert handle.get_many() == [1]


# What a batch could not decode


def test_a_batch_leaves_out_what_cannot_be_decoded(queue: Handle) -> None:
    """C6: good items are not held back by a bad one."""
    queue.put(1)
    put_raw(queue, BAD)
    queue.put(2)
    items = queue.get_many()
    drained(queue)
    assert items == [1, 2]


def with_pending(queue: Handle) -> Handle:
    """Let a batch of the handle meet a message that it cannot decode."""
    queue.put(1)
    put_raw(queue, BAD)
    queue.get_many()
    return queue


def drained(queue: Handle) -> Handle:
    """Take what is pending, so that closing has nothing to tell."""
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
def test_the_next_get_tells_what_could_not_be_decoded(queue: Handle, get: Callable[[Handle], object]) -> None:
    """C6: DecodeError carries the bytes, whichever way of getting comes next."""
    with_pending(queue)
    with pytest.raises(DecodeError) as caught:
        get(queue)
    assert caught.value.data == BAD


def test_what_could_not_be_decoded_is_told_once(queue: Handle) -> None:
    """C6: and the next get works."""
    drained(with_pending(queue)).put(3)
    assert queue.get(timeout=5) == 3


def test_a_batch_of_bad_messages_alone_is_a_decode_error(queue: Handle) -> None:
    """C6: the first is told, the others by the gets that follow."""
    put_raw(queue, BAD, BAD + b"2")
    with pytest.raises(DecodeError) as caught:
        queue.get_many()
    assert caught.value.data == BAD
    drained(queue)


def test_a_batch_of_bad_messages_tells_each_of_them(queue: Handle) -> None:
    """C6: none is forgotten."""
    put_raw(queue, BAD, BAD + b"2", BAD + b"3")
    told = []
    for _ in range(3):
        with pytest.raises(DecodeError) as caught:
            queue.get_many(block=False)
        told.append(caught.value.data)
    assert told == [BAD, BAD + b"2", BAD + b"3"]


def test_a_waiting_thread_is_told_what_a_batch_could_not_decode(queue: Handle, start: Callable[..., Thread]) -> None:
    """C21: a get that waits in the same handle tells it within a slice."""
    waiting = threading.Event()
    wait = queue._channel.wait_readable

    def wait_and_say(since: float, until: float) -> None:
        waiting.set()
        wait(since, until)

    queue._channel.wait_readable = wait_and_say  # type: ignore[method-assign]
    getter = start(queue.get)
    assert waiting.wait(HANG)
    queue._undecodable.append(DecodeError(data=BAD))
    queue._try_get = queue._report_or_get
    with pytest.raises(DecodeError):
        getter.outcome()


class Overtaken(deque[Any]):
    """What is pending, as a thread sees it that another one overtakes: there, and then not."""

    def popleft(self) -> Any:
        self.clear()
        return super().popleft()


def test_a_thread_that_is_overtaken_tells_its_own_bad_message(queue: Handle) -> None:
    """C21: two threads in get_many do not take each other's errors."""
    queue._undecodable = Overtaken()
    put_raw(queue, BAD)
    with pytest.raises(DecodeError):
        queue.get_many()
    queue._undecodable.clear()


def test_a_thread_that_finds_nothing_pending_gets(queue: Handle) -> None:
    """C21: another thread told it first."""
    with_pending(queue)
    queue._undecodable.clear()
    queue.put(5)
    assert queue.get(timeout=5) == 5


def test_threads_lose_nothing_behind_bad_messages(name: str, start: Callable[..., Thread]) -> None:
    """C21 and C6: each good message is got once and each bad one told once, by whichever thread."""
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
        told.extend(error.data for error in queue._undecodable)
        queue._undecodable.clear()  # what was left when the last thread met the shutdown
    assert sorted(map(repr, told)) == sorted(map(repr, good + bad))


def test_closing_tells_what_nobody_saw(queue: Handle) -> None:
    """C1: nothing that was taken goes in silence."""
    with_pending(queue)
    with pytest.warns(UserWarning, match=r"nobody saw: \[b'\\xc1\\xff'\]"):
        queue.close()


def test_closing_tells_it_once(queue: Handle) -> None:
    """Closing twice is closing once."""
    with_pending(queue)
    with pytest.warns(UserWarning, match="nobody saw"):
        queue.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        queue.close()
    assert not caught


def test_a_closed_handle_tells_nothing_more(queue: Handle) -> None:
    """C14: QueueClosed comes first."""
    with_pending(queue)
    with pytest.warns(UserWarning, match="nobody saw"):
        queue.close()
    with pytest.raises(QueueClosed):
        queue.get_nowait()


# Arguments


@pytest.mark.parametrize("priority", [-1, 32768, True, False, 1.0, "1", None, []])
def test_a_bad_priority_is_refused(queue: Handle, priority: Any) -> None:
    """An int from 0 to 32767."""
    with pytest.raises(InvalidArgument, match="priority is an int from 0 to 32767, not"):
        queue.put(1, priority=priority)


def test_a_priority_of_zero_that_is_another_object_is_none(queue: Handle) -> None:
    """A queue without priorities takes every 0."""

    class Number(int):
        pass

    queue.put(1, priority=Number(0))
    assert queue.get_message().priority == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda queue, **given: queue.put(1, **given),
        lambda queue, **given: queue.put_many([1], **given),
        lambda queue, **given: queue.get(**given),
        lambda queue, **given: queue.get_many(**given),
        lambda queue, **given: queue.get_message(**given),
    ],
)
@pytest.mark.parametrize("given", [{"block": 0.5}, {"timeout": -1}, {"block": False, "timeout": "1"}])
def test_bad_times_are_refused_by_every_call(queue: Handle, call: Callable[..., object], given: dict[str, Any]) -> None:
    """C10: get(0.5) is InvalidArgument, a negative timeout too."""
    with pytest.raises(InvalidArgument, match=f"queue '{queue.name}' on backend 'memory'"):
        call(queue, **given)


def test_a_message_that_is_too_large_says_its_figures(queue: Handle) -> None:
    """Limit, actual value and the way out."""
    with pytest.raises(MessageTooLarge, match=r"has 603 bytes, the queue takes 512: .*max_message_size=603") as caught:
        queue.put(b"x" * 600)
    assert (caught.value.size, caught.value.limit) == (603, 512)


@pytest.mark.parametrize("immediate", [None, 1, "yes", []])
def test_a_bad_way_of_shutting_down_is_refused(queue: Handle, immediate: Any) -> None:
    """immediate is a bool."""
    with pytest.raises(InvalidArgument, match="immediate is True or False"):
        queue.shutdown(immediate)


# Notices


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"callback": print, "signal": signal.SIGINT}, "not both"),
        ({"callback": 5}, "callback is a function"),
        ({"callback": "print"}, "callback is a function"),
        ({"signal": 0}, "the number of a signal, not 0"),
        ({"signal": -1}, "the number of a signal"),
        ({"signal": 10_000}, "the number of a signal"),
        ({"signal": True}, "the number of a signal"),
        ({"signal": 10.0}, "the number of a signal"),
        ({"signal": "SIGUSR1"}, "the number of a signal"),
        ({"signal": []}, "the number of a signal"),
    ],
)
def test_a_bad_notice_is_refused(queue: Handle, given: dict[str, Any], words: str) -> None:
    """A callback or a signal, and such that it can work."""
    with pytest.raises(InvalidArgument, match=words):
        queue.notify(**given)


@pytest.mark.parametrize(
    ("given", "noticed"),
    [
        ({}, None),
        ({"callback": print}, print),
        ({"signal": signal.SIGTERM}, signal.SIGTERM),
        ({"signal": 10}, 10),
    ],
)
def test_a_notice_reaches_the_channel(
    handle: Handle, channel: FakeChannel, given: dict[str, Any], noticed: object
) -> None:
    """A function, a number, or None to cancel."""
    handle.notify(**given)
    assert channel.noticed == [noticed]


# Rights


@pytest.mark.parametrize(
    "call",
    [
        lambda queue: queue.get(),
        lambda queue: queue.get_nowait(),
        lambda queue: queue.get_many(),
        lambda queue: queue.get_message(),
        lambda queue: queue.peek(),
        lambda queue: queue.clear(),
        lambda queue: queue.fileno(),
        lambda queue: next(iter(queue)),
    ],
)
def test_a_handle_that_does_not_read_refuses_every_way_of_getting(
    queue: Handle, call: Callable[[Handle], object]
) -> None:
    """read=False raises PermissionDenied on the other verb."""
    with (
        ipcq.open(queue.name, "memory", read=False) as writer,
        pytest.raises(PermissionDenied, match=f"queue '{queue.name}' on backend 'memory': .*read=False"),
    ):
        call(writer)


@pytest.mark.parametrize(
    "call", [lambda queue: queue.put(1), lambda queue: queue.put_nowait(1), lambda queue: queue.put_many([1])]
)
def test_a_handle_that_does_not_write_refuses_every_way_of_putting(
    queue: Handle, call: Callable[[Handle], object]
) -> None:
    """write=False raises PermissionDenied on the other verb."""
    with ipcq.open(queue.name, "memory", write=False) as reader, pytest.raises(PermissionDenied, match="write=False"):
        call(reader)


def test_an_item_is_encoded_before_rights_are_looked_at_or_not_at_all(queue: Handle) -> None:
    """A batch that may not be put is not even walked through."""
    with ipcq.open(queue.name, "memory", write=False) as reader, pytest.raises(PermissionDenied):
        reader.put_many(1 // 0 for _ in range(1))


# What a backend cannot do


@pytest.mark.parametrize(
    ("ability", "call", "words"),
    [
        ("peek", lambda queue: queue.peek(), "cannot look at a message without taking it"),
        ("pollable", lambda queue: queue.fileno(), "cannot give a descriptor to poll"),
        ("notify", lambda queue: queue.notify(), "cannot give notice of a message"),
        ("shutdown", lambda queue: queue.shutdown(), "cannot be shut down"),
        ("priorities", lambda queue: queue.put(1, priority=1), "has no priorities"),
    ],
)
def test_a_refusal_names_the_backends_that_can(
    installed: Installed, name: str, ability: str, call: Callable[[Handle], object], words: str
) -> None:
    """Unsupported names a backend that can, those that cross processes first."""
    installed.backend(FakeBackend("plain", capabilities=Capabilities(scope=Scope.HOST)))
    installed.backend(
        FakeBackend("able", rank=999, capabilities=replace(Capabilities(scope=Scope.HOST), **{ability: True}))
    )
    with (
        ipcq.open(name, "plain") as queue,
        pytest.raises(Unsupported, match=f"queue '{name}' on backend 'plain': this queue {words}: use backend='able'"),
    ):
        call(queue)


@pytest.mark.needs("memory")
def test_a_refusal_has_the_alternatives_for_programs(installed: Installed, name: str) -> None:
    """Names of installed backends that can."""
    installed.backend(FakeBackend("plain", capabilities=Capabilities(scope=Scope.HOST)))
    with ipcq.open(name, "plain") as queue, pytest.raises(Unsupported) as caught:
        queue.peek()
    assert caught.value.alternatives == tuple(_registry.able("peek")) != ()


def test_a_queue_without_priorities_on_a_backend_that_has_them_says_how(queue: Handle) -> None:
    """The nearest way out comes first."""
    best = _registry.able("priorities")[0]
    with pytest.raises(
        Unsupported, match=f"has no priorities: create it with priorities=True, or use backend={best!r}"
    ):
        queue.put(1, priority=1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda queue: queue.lease(), "has no leases"),
        (lambda queue: queue.reserve(5), "cannot be written in place"),
        (lambda queue: queue.view(), "cannot be read in place"),
    ],
)
def test_what_comes_later_is_unsupported(queue: Handle, call: Callable[[Handle], object], words: str) -> None:
    """Until then Unsupported, and no installed backend can."""
    with pytest.raises(Unsupported, match=f"{words}: no installed backend can"):
        call(queue)


# Looking


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("backend", "memory"),
        ("max_messages", 4),
        ("max_message_size", 512),
        ("buffer_size", None),
        ("mode", 0o600),
        ("priorities", False),
        ("lifetime", "persistent"),
        ("closed", False),
    ],
)
def test_a_handle_knows_its_queue(queue: Handle, fact: str, value: object) -> None:
    """Limits, mode and lifetime live with the queue."""
    assert getattr(queue, fact) == value


@pytest.mark.parametrize("fact", ["name", "backend", "max_messages", "max_message_size", "mode", "capabilities"])
def test_a_closed_handle_still_knows_its_queue(queue: Handle, fact: str) -> None:
    """What is known needs no channel."""
    queue.close()
    assert getattr(queue, fact) is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [({}, ", open>"), ({"read": False}, ", open, write only>"), ({"write": False}, ", open, read only>")],
)
def test_a_handle_shows_its_state(queue: Handle, options: dict[str, Any], words: str) -> None:
    """STYLE 21: repr shows backend, name and state."""
    with ipcq.open(queue.name, "memory", **options) as other:
        assert repr(other) == f"<ipcq.Queue {queue.name!r} on 'memory'{words}"


def test_a_closed_handle_shows_it(queue: Handle) -> None:
    """STYLE 21: as above."""
    queue.close()
    assert repr(queue) == f"<ipcq.Queue {queue.name!r} on 'memory', closed>"


def test_a_channel_that_only_does_what_it_must_does_the_rest_by_it(handle: Handle) -> None:
    """backend: what is not abstract has a default that is correct."""
    handle.put_many([1, 2, 3])
    assert (handle.full(), handle.empty(), handle.stats().depth, handle.clear()) == (True, False, 3, 3)


def test_clearing_stops_where_another_took_the_rest(handle: Handle, channel: FakeChannel) -> None:
    """What somebody else took meanwhile was not dropped."""
    handle.put_many([1, 2])
    channel.qsize = lambda: 5  # type: ignore[method-assign]
    assert handle.clear() == 2


# Closing


@pytest.mark.parametrize(
    "call",
    [
        lambda queue: queue.put(1),
        lambda queue: queue.put_nowait(1),
        lambda queue: queue.put_many([1]),
        lambda queue: queue.get(),
        lambda queue: queue.get_nowait(),
        lambda queue: queue.get_many(),
        lambda queue: queue.get_message(),
        lambda queue: queue.peek(),
        lambda queue: queue.clear(),
        lambda queue: queue.qsize(),
        lambda queue: queue.empty(),
        lambda queue: queue.full(),
        lambda queue: queue.stats(),
        lambda queue: queue.fileno(),
        lambda queue: queue.notify(),
        lambda queue: queue.shutdown(),
        lambda queue: next(iter(queue)),
    ],
)
def test_a_closed_handle_refuses_every_call(queue: Handle, call: Callable[[Handle], object]) -> None:
    """C14: QueueClosed, with the place."""
    queue.close()
    with pytest.raises(QueueClosed, match=f"queue '{queue.name}' on backend 'memory': this handle is closed"):
        call(queue)


def wait_in(channel: FakeChannel, inside: threading.Event) -> None:
    """Let the channel's waits say when they are entered."""
    waits = channel.wait_readable, channel.wait_writable

    def readable(since: float, until: float) -> None:
        inside.set()
        waits[0](since, until)

    def writable(size: int, since: float, until: float) -> None:
        inside.set()
        waits[1](size, since, until)

    channel.wait_readable, channel.wait_writable = readable, writable  # type: ignore[method-assign]


WAITS: dict[str, Callable[[Handle], object]] = {
    "get": lambda queue: queue.get(),
    "get_many": lambda queue: queue.get_many(),
    "get_message": lambda queue: queue.get_message(),
    "iteration": lambda queue: next(iter(queue)),
    "put": lambda queue: queue.put(1),
    "put_many": lambda queue: queue.put_many([1]),
}


@pytest.mark.parametrize("verb", WAITS)
def test_closing_wakes_who_waits_in_this_handle(
    handle: Handle, channel: FakeChannel, start: Callable[..., Thread], verb: str
) -> None:
    """C14: waiters get QueueClosed."""
    if verb.startswith("put"):
        handle.put_many([1, 2, 3])
    inside = threading.Event()
    wait_in(channel, inside)
    waiter = start(WAITS[verb], handle)
    assert inside.wait(HANG)
    handle.close()
    with pytest.raises(QueueClosed):
        waiter.outcome()


def test_closing_waits_until_who_was_inside_is_out(
    handle: Handle, channel: FakeChannel, start: Callable[..., Thread]
) -> None:
    """DESIGN 4: only then the channel is closed."""
    inside, go = threading.Event(), threading.Event()

    def stay(since: float, until: float) -> None:
        inside.set()
        go.wait(HANG)

    channel.wait_readable = stay  # type: ignore[method-assign]
    waiter = start(handle.get)
    assert inside.wait(HANG)
    closer = start(handle.close)
    closed_early = channel.closings
    go.set()
    closer.outcome()
    with pytest.raises(QueueClosed):
        waiter.outcome()
    assert (closed_early, channel.closings) == (0, 1)


def test_several_threads_that_close_close_once(
    handle: Handle, channel: FakeChannel, start: Callable[..., Thread]
) -> None:
    """C21: contract clause 16, close is called once."""
    for closer in [start(handle.close) for _ in range(8)]:
        closer.outcome()
    assert channel.closings == 1


@pytest.mark.parametrize("verb", ["get", "put"])
def test_a_wait_that_is_closed_from_within_ends(handle: Handle, channel: FakeChannel, verb: str) -> None:
    """C12: a signal handler or a finaliser closes the handle that this very thread waits in."""
    if verb == "put":
        handle.put_many([1, 2, 3])
    channel.wait_readable = lambda *_: handle.close()  # type: ignore[method-assign]
    channel.wait_writable = lambda *_: handle.close()  # type: ignore[method-assign]
    with pytest.raises(QueueClosed):
        WAITS[verb](handle)


def test_a_handle_closed_from_within_is_not_closed_under_the_call(handle: Handle, channel: FakeChannel) -> None:
    """C12: the outer call gives back the channel on its way out, and not before."""
    seen: list[int] = []

    def close(since: float, until: float) -> None:
        handle.close()
        seen.append(channel.closings)

    channel.wait_readable = close  # type: ignore[method-assign]
    with pytest.raises(QueueClosed):
        handle.get()
    assert (seen, channel.closings) == ([0], 1)


@pytest.mark.parametrize("block", [True, False])
def test_a_signal_handler_may_close_while_a_put_encodes(handle: Handle, channel: FakeChannel, block: bool) -> None:
    """C12: closed between encoding and storing, nothing is stored."""

    class Item(list[int]):
        def __iter__(self) -> Iterator[int]:
            signal.raise_signal(signal.SIGUSR1)
            return super().__iter__()

    before = signal.signal(signal.SIGUSR1, lambda *_: handle.close())
    try:
        with pytest.raises(QueueClosed):
            handle.put(Item([1]), block)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (len(channel.queue.messages), channel.closings) == (0, 1)


def test_a_put_that_closes_its_own_handle_after_storing_has_stored(
    fake: FakeBackend, handle: Handle, channel: FakeChannel
) -> None:
    """C5: a put that did not raise is in the queue."""

    def close(size: int, since: float, until: float) -> None:
        channel.queue.messages.clear()

    handle.put_many([1, 2, 3])
    channel.wait_writable = close  # type: ignore[method-assign]
    handle.put(4)
    assert len(channel.queue.messages) == 1


def test_a_finaliser_may_close_while_a_batch_is_encoded(handle: Handle, channel: FakeChannel) -> None:
    """C12: a finaliser runs wherever the last reference goes."""

    class Owner:
        def __del__(self) -> None:
            handle.close()

    def items() -> Iterator[int]:
        owner = Owner()
        yield 1
        del owner

    with pytest.raises(QueueClosed):
        handle.put_many(items())
    assert channel.closings == 1


def test_a_call_within_a_call_counts_for_itself(handle: Handle, channel: FakeChannel) -> None:
    """A handle that is used while it encodes is closed when the outermost call is out."""

    def items() -> Iterator[int]:
        handle.put(1)
        handle.close()
        yield channel.closings

    with pytest.raises(QueueClosed):
        handle.put_many(items())
    assert channel.closings == 1


def test_only_calls_on_the_same_handle_are_counted(handle: Handle, name: str) -> None:
    """Calls of another handle on the stack are no calls of this one."""
    counts: list[int] = []

    def items() -> Iterator[int]:
        counts.append(calls_of_this_thread(other))
        counts.append(calls_of_this_thread(handle))
        yield 1

    with ipcq.open(name, "fake") as other:
        handle.put_many(items())
    assert counts == [0, 1]


def test_a_marked_function_stays_itself() -> None:
    """Marking costs the calls nothing."""

    def method() -> None: ...

    assert counted(method) is method


# Unlinking


def test_unlinking_twice_is_unlinking_once(handle: Handle, fake: FakeBackend) -> None:
    """Both work in either order and twice."""
    handle.unlink()
    fake.make(handle.name)
    handle.unlink()
    assert handle.name in fake.queues


def test_unlinking_what_somebody_else_unlinked_is_all_right(handle: Handle, fake: FakeBackend) -> None:
    """It is gone, which is what was wanted."""
    fake.unlink(handle.name)
    handle.unlink()
    assert handle.name not in fake.queues


def test_unlinking_never_takes_the_successor(handle: Handle, fake: FakeBackend) -> None:
    """A queue that was created under the same name since is not touched."""
    fake.unlink(handle.name)
    fake.make(handle.name)
    handle.unlink()
    assert handle.name in fake.queues


def test_unlinking_never_takes_a_successor_that_comes_just_then(
    handle: Handle, channel: FakeChannel, fake: FakeBackend, start: Callable[..., Thread]
) -> None:
    """Rule 3: whether the name still leads to this queue is looked at under the name's lock."""
    others: list[Thread] = []
    done = threading.Event()

    def replace_it() -> None:
        try:
            ipcq.unlink(handle.name, "fake")
        except QueueNotFound:
            pass
        ipcq.open(handle.name, "fake").close()
        done.set()

    def linked() -> bool:
        there = channel.queue.linked
        others.append(start(replace_it))
        done.wait(1)  # where the name is locked, it comes after
        return there

    channel.linked = linked  # type: ignore[method-assign]
    handle.unlink()
    for other in others:
        other.outcome()
    assert handle.name in fake.queues


def test_unlinking_after_closing_works(handle: Handle, fake: FakeBackend) -> None:
    """Both work in either order."""
    handle.close()
    handle.unlink()
    assert handle.name not in fake.queues


def test_unlinking_after_closing_what_is_gone_is_all_right(handle: Handle, fake: FakeBackend) -> None:
    """As before closing."""
    handle.close()
    fake.unlink(handle.name)
    handle.unlink()
    assert handle.name not in fake.queues


def test_closing_does_not_unlink(handle: Handle, fake: FakeBackend) -> None:
    """STYLE 19: close never unlinks."""
    handle.close()
    assert handle.name in fake.queues


def test_a_refused_unlink_can_be_tried_again(
    handle: Handle, fake: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not unlinked is not taken for unlinked."""
    with monkeypatch.context() as denied:
        denied.setattr(fake, "unlink", raising(PermissionDenied()))
        with pytest.raises(PermissionDenied):
            handle.unlink()
    handle.unlink()
    assert handle.name not in fake.queues


# Forgetting


def test_a_forgotten_handle_warns_with_its_name(fake: FakeBackend, name: str) -> None:
    """STYLE 20: an unclosed handle warns with ResourceWarning naming itself."""
    with pytest.warns(ResourceWarning, match=f"unclosed <ipcq.Queue '{name}' on 'fake', open>"):
        ipcq.open(name, "fake")


def test_a_forgotten_handle_gives_back_its_channel(fake: FakeBackend, name: str) -> None:
    """C17: nothing leaks."""
    with pytest.warns(ResourceWarning):
        ipcq.open(name, "fake")
    assert [channel.closings for channel in fake.channels] == [1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_forgotten_handle_gives_back_its_channel_though_warnings_are_errors(fake: FakeBackend, name: str) -> None:
    """C17: also where the warning is an exception that nobody can catch."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ipcq.open(name, "fake")
        gc.collect()
    assert [channel.closings for channel in fake.channels] == [1]


def test_a_handle_that_was_never_made_whole_is_forgotten_in_silence() -> None:
    """An interrupted construction has nothing to give back."""
    handle = ipcq.Queue.__new__(ipcq.Queue)
    del handle
    assert True


def test_a_forgotten_handle_does_not_unlink(fake: FakeBackend, name: str) -> None:
    """Garbage collection never unlinks a persistent queue."""
    with pytest.warns(ResourceWarning):
        ipcq.open(name, "fake")
    assert name in fake.queues


# Iterating


def test_an_iteration_takes_until_the_shutdown(queue: Handle) -> None:
    """`for item in q` ends where the queue is shut down and empty."""
    queue.put_many([1, 2, 3])
    queue.shutdown()
    assert list(queue) == [1, 2, 3]


def test_an_iteration_that_is_closed_meanwhile_says_so(queue: Handle) -> None:
    """Own close meanwhile: QueueClosed."""
    queue.put(1)
    items = iter(queue)
    next(items)
    queue.close()
    with pytest.raises(QueueClosed):
        next(items)


def test_a_with_block_closes_whatever_happens(fake: FakeBackend, name: str) -> None:
    """STYLE 20: every handle is a context manager."""
    with pytest.raises(ZeroDivisionError), ipcq.open(name, "fake"):
        raise ZeroDivisionError
    assert [channel.closings for channel in fake.channels] == [1]


# Pickling


def test_a_handle_within_one_process_is_not_pickled(queue: Handle) -> None:
    """memory: Unsupported, and the text says why."""
    with pytest.raises(Unsupported, match=f"queue '{queue.name}' on backend 'memory': its queues live in one process"):
        pickle.dumps(queue)


def test_a_closed_handle_can_be_pickled(handle: Handle) -> None:
    """What is pickled is where to attach, and not the channel."""
    handle.close()
    with pickle.loads(pickle.dumps(handle)) as copy:
        assert copy.name == handle.name


# Errors


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda queue: queue.get_nowait(), QueueEmpty),
        (lambda queue: queue.get(timeout=0.01), QueueEmpty),
        (lambda queue: [queue.put_nowait(1) for _ in range(5)], QueueFull),
        (lambda queue: [queue.put(1, timeout=0.01) for _ in range(5)], QueueFull),
        (lambda queue: queue.put(object()), EncodeError),
        (lambda queue: queue.put_many([object()]), EncodeError),
        (lambda queue: queue.put_many([b"x" * 99]), MessageTooLarge),
    ],
)
def test_every_error_names_queue_and_backend(
    handle: Handle, call: Callable[[Handle], object], kind: type[MessageQueueError]
) -> None:
    """DESIGN 4: a message names the queue and the backend."""
    with pytest.raises(kind, match=f"^queue '{handle.name}' on backend 'fake': "):
        call(handle)


def test_peeking_into_an_empty_queue_is_queue_empty(queue: Handle) -> None:
    """There is none now."""
    with pytest.raises(QueueEmpty):
        queue.peek()


def test_peeking_can_tell_the_priority(name: str) -> None:
    """As get_message does, and the message stays."""
    with ipcq.open(name, "memory", priorities=True) as queue:
        queue.put("high", priority=7)
        assert [queue.peek_message(), queue.get_message()] == [ipcq.Message("high", 7, 1)] * 2


def test_a_wait_is_counted_with_its_end(handle: Handle, channel: FakeChannel) -> None:
    """stats: waits, and among them timeouts."""
    counts: list[bool] = []
    channel.count_wait = counts.append  # type: ignore[method-assign]
    with pytest.raises(QueueEmpty):
        handle.get(timeout=0.01)
    channel.wait_readable = lambda *_: channel.queue.messages.append((b"\x05", 0))  # type: ignore[method-assign]
    handle.get(timeout=5)
    handle.put_many([1, 2, 3])
    channel.wait_writable = lambda *_: channel.queue.messages.clear()  # type: ignore[method-assign]
    handle.put(4, timeout=5)
    assert counts == [False, True, True]


# Forking


def child(handle: Handle) -> None:
    """Do in this process what happens first in a forked child."""
    handle._after_fork()


def test_an_inherited_handle_works_where_its_channel_does(handle: Handle) -> None:
    """C20: a handle inherited through fork works or raises."""
    child(handle)
    handle.put(5)
    assert handle.get(timeout=5) == 5


def test_an_inherited_handle_that_cannot_work_says_so(installed: Installed, fake: FakeBackend, name: str) -> None:
    """C20: and says what to do."""
    fake.survives_fork = False
    with ipcq.open(name, "fake") as handle:
        child(handle)
        with pytest.raises(QueueClosed, match="do not cross a fork: open it in the child"):
            handle.put(5)


def test_an_inherited_channel_that_cannot_work_is_left_alone(fake: FakeBackend, name: str) -> None:
    """Contract clause 17: then nothing more is called on it."""
    fake.survives_fork = False
    with ipcq.open(name, "fake") as handle:
        child(handle)
    assert [channel.closings for channel in fake.channels] == [0]


def test_a_closed_handle_is_not_asked_in_the_child(fake: FakeBackend, name: str) -> None:
    """Contract clause 17: its channel is closed."""
    fake.survives_fork = False
    handle = ipcq.open(name, "fake")
    handle.close()
    child(handle)
    assert handle.closed


def test_an_inherited_handle_is_forgotten_in_silence(fake: FakeBackend, name: str) -> None:
    """It is the parent's to close."""
    handle = ipcq.open(name, "fake")
    child(handle)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del handle
        gc.collect()
    assert not caught


def test_calls_of_the_parents_threads_do_not_count_in_the_child(handle: Handle, channel: FakeChannel) -> None:
    """C20: who was inside in the parent is not in the child, so closing does not wait for them."""
    handle._inside.extend([None] * 3)
    child(handle)
    handle.close()
    assert channel.closings == 1


def test_a_call_that_forks_still_counts_in_the_child(handle: Handle, channel: FakeChannel) -> None:
    """C20: a fork in the midst of a call: the child's copy of the call returns through the handle."""

    def items() -> Iterator[int]:
        child(handle)
        handle.close()
        yield channel.closings

    with pytest.raises(QueueClosed):
        handle.put_many(items())
    assert channel.closings == 1


def test_all_handles_are_told_of_a_fork(handle: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: whichever there are."""
    told: list[object] = []
    monkeypatch.setattr(ipcq.Queue, "_after_fork", lambda queue: told.append(queue))
    _queue._after_fork()
    assert handle in told


def test_a_fork_between_two_calls_of_one_handle_can_be_closed_in_the_child(run: Run) -> None:
    """C20: a signal handler that forks as a call is about to return leaves the child nothing to wait for."""
    assert (
        run(
            """
            import os, signal, sys
            import ipcq

            queue = ipcq.open("/core-fork", "mqueue", exclusive=True, max_messages=4, max_message_size=64)
            children = []

            def fork_on_the_way_out(frame, event, argument):
                if event == "c_return" and frame.f_code is ipcq.Queue.put.__code__:
                    if getattr(argument, "__name__", "") in ("pop", "_leave") and not children:
                        children.append(os.fork())

            try:
                sys.setprofile(fork_on_the_way_out)
                queue.put(1)
                sys.setprofile(None)
                if children == [0]:
                    signal.alarm(10)
                    queue.close()
                    os._exit(0)
                print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
            finally:
                queue.close()
                queue.unlink()
            """
        )
        == "0"
    )


# Standing in for queue.Queue


def test_a_taken_name_is_told_by_exclusive_creation(queue: Handle) -> None:
    """QueueExists is a FileExistsError."""
    with pytest.raises(QueueExists):
        ipcq.open(queue.name, "memory", exclusive=True)


def test_what_waits_in_a_queue_that_is_unlinked_is_told(queue: Handle) -> None:
    """After unlink, other handles raise QueueGone."""
    with ipcq.open(queue.name, "memory") as other:
        queue.unlink()
        with pytest.raises(QueueGone):
            other.get(timeout=5)


def test_a_handle_can_be_referred_to_weakly(queue: Handle) -> None:
    """As the standard library's queues."""
    assert queue in _queue._handles


def test_a_handle_takes_no_other_attributes(queue: Handle) -> None:
    """A misspelt attribute is an error."""
    with pytest.raises(AttributeError):
        queue.maxsize = 5  # type: ignore[attr-defined]


def test_the_process_is_the_parent(handle: Handle) -> None:
    """No test above left a child behind."""
    assert os.getpid() == int(handle.name.split("-")[1])
