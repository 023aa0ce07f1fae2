"""How a handle ends: it is closed, unlinked, or garbage-collected."""

import gc
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

import ipcq
from core.conftest import HANG, Handle, Thread
from core.fakes import FakeBackend, FakeChannel, raising
from ipcq._handle.calls import calls_of_this_thread, counted
from ipcq._process.finaliser import quiet_at_exit
from ipcq.errors import PermissionDenied, QueueClosed, QueueNotFound

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
    """C14: it raises QueueClosed with queue and backend."""
    queue.close()
    with pytest.raises(QueueClosed, match=f"queue '{queue.name}' on backend 'memory': this handle is closed"):
        call(queue)


def wait_in(channel: FakeChannel, inside: threading.Event) -> None:
    """Set an event when a wait of the channel begins."""
    waits = channel.wait_readable, channel.wait_writable

    def readable(since: float, until: float) -> None:
        inside.set()
        waits[0](since, until)

    def writable(size: int, since: float, until: float) -> None:
        inside.set()
        waits[1](size, since, until)

    channel.wait_readable, channel.wait_writable = readable, writable


WAITS: dict[str, Callable[[Handle], object]] = {
    "get": lambda queue: queue.get(),
    "get_many": lambda queue: queue.get_many(),
    "get_message": lambda queue: queue.get_message(),
    "iteration": lambda queue: next(iter(queue)),
    "put": lambda queue: queue.put(1),
    "put_many": lambda queue: queue.put_many([1]),
}


@pytest.mark.parametrize("verb", WAITS)
def test_closing_wakes_the_waiters_of_this_handle(
    handle: Handle, channel: FakeChannel, start: Callable[..., Thread], verb: str
) -> None:
    """C14: they get QueueClosed."""
    if verb.startswith("put"):
        handle.put_many([1, 2, 3])
    inside = threading.Event()
    wait_in(channel, inside)
    waiter = start(WAITS[verb], handle)
    assert inside.wait(HANG)
    handle.close()
    with pytest.raises(QueueClosed):
        waiter.outcome()


def test_closing_waits_until_running_calls_have_returned(
    handle: Handle, channel: FakeChannel, start: Callable[..., Thread]
) -> None:
    """Clause 16: only then is the channel closed."""
    inside, go = threading.Event(), threading.Event()

    def stay(since: float, until: float) -> None:
        inside.set()
        go.wait(HANG)

    channel.wait_readable = stay
    waiter = start(handle.get)
    assert inside.wait(HANG)
    closer = start(handle.close)
    closed_early = channel.closings
    go.set()
    closer.outcome()
    with pytest.raises(QueueClosed):
        waiter.outcome()
    assert (closed_early, channel.closings) == (0, 1)


def test_several_threads_that_close_close_the_channel_once(
    handle: Handle, channel: FakeChannel, start: Callable[..., Thread]
) -> None:
    """C21, clause 16: `close` is called once."""
    for closer in [start(handle.close) for _ in range(8)]:
        closer.outcome()
    assert channel.closings == 1


@pytest.mark.parametrize("verb", ["get", "put"])
def test_a_wait_ends_if_its_own_thread_closes_the_handle(handle: Handle, channel: FakeChannel, verb: str) -> None:
    """C12: a signal handler or a finaliser of the waiting thread may close the handle."""
    if verb == "put":
        handle.put_many([1, 2, 3])
    channel.wait_readable = lambda *_: handle.close()
    channel.wait_writable = lambda *_: handle.close()
    with pytest.raises(QueueClosed):
        WAITS[verb](handle)


def test_a_channel_is_not_closed_during_a_call_of_the_same_thread(handle: Handle, channel: FakeChannel) -> None:
    """C12: the interrupted call closes the channel when it returns."""
    seen: list[int] = []

    def close(since: float, until: float) -> None:
        handle.close()
        seen.append(channel.closings)

    channel.wait_readable = close
    with pytest.raises(QueueClosed):
        handle.get()
    assert (seen, channel.closings) == ([0], 1)


@pytest.mark.parametrize("block", [True, False])
def test_a_signal_handler_may_close_while_a_put_encodes(handle: Handle, channel: FakeChannel, block: bool) -> None:
    """C12: nothing is put if the handle is closed between encoding and putting."""

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


def test_a_put_that_returns_has_put_its_item(fake: FakeBackend, handle: Handle, channel: FakeChannel) -> None:
    """C5: if a put did not raise, its item is in the queue."""

    def close(size: int, since: float, until: float) -> None:
        channel.queue.messages.clear()

    handle.put_many([1, 2, 3])
    channel.wait_writable = close
    handle.put(4)
    assert len(channel.queue.messages) == 1


def test_a_finaliser_may_close_while_a_batch_is_encoded(handle: Handle, channel: FakeChannel) -> None:
    """C12: a finaliser runs wherever the last reference is dropped."""

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


def test_a_handle_used_while_it_encodes_is_closed_after_the_outermost_call(
    handle: Handle, channel: FakeChannel
) -> None:
    """Nested calls are counted separately."""

    def items() -> Iterator[int]:
        handle.put(1)
        handle.close()
        yield channel.closings

    with pytest.raises(QueueClosed):
        handle.put_many(items())
    assert channel.closings == 1


def test_only_calls_on_the_same_handle_are_counted(handle: Handle, name: str) -> None:
    """Calls of another handle on the stack do not count for this one."""
    counts: list[int] = []

    def items() -> Iterator[int]:
        counts.append(calls_of_this_thread(other))
        counts.append(calls_of_this_thread(handle))
        yield 1

    with ipcq.open(name, "fake") as other:
        handle.put_many(items())
    assert counts == [0, 1]


def test_a_counted_function_is_not_wrapped() -> None:
    """Counting adds no call."""

    def method() -> None: ...

    assert counted(method) is method


def test_a_with_block_closes_even_after_an_exception(fake: FakeBackend, name: str) -> None:
    """Every handle is a context manager."""
    with pytest.raises(ZeroDivisionError), ipcq.open(name, "fake"):
        raise ZeroDivisionError
    assert [channel.closings for channel in fake.channels] == [1]


# Unlinking


def test_the_second_unlink_of_a_handle_does_nothing(handle: Handle, fake: FakeBackend) -> None:
    """A new queue of that name is not touched."""
    handle.unlink()
    fake.make(handle.name)
    handle.unlink()
    assert handle.name in fake.queues


def test_unlinking_a_queue_that_another_process_unlinked_is_no_error(handle: Handle, fake: FakeBackend) -> None:
    """The name is gone, as requested."""
    fake.unlink(handle.name)
    handle.unlink()
    assert handle.name not in fake.queues


def test_unlinking_never_removes_a_successor(handle: Handle, fake: FakeBackend) -> None:
    """A queue that was created later under the same name is not touched."""
    fake.unlink(handle.name)
    fake.make(handle.name)
    handle.unlink()
    assert handle.name in fake.queues


def test_unlinking_never_removes_a_successor_that_appears_meanwhile(
    handle: Handle, channel: FakeChannel, fake: FakeBackend, start: Callable[..., Thread]
) -> None:
    """Rule 3: `unlink` checks under the name lock that the name still leads to this queue."""
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
        done.wait(0.2)  # the name lock delays it
        return there

    channel.linked = linked
    handle.unlink()
    for other in others:
        other.outcome()
    assert handle.name in fake.queues


def test_unlinking_after_closing_works(handle: Handle, fake: FakeBackend) -> None:
    """The handle still knows its name."""
    handle.close()
    handle.unlink()
    assert handle.name not in fake.queues


def test_unlinking_a_missing_queue_after_closing_is_no_error(handle: Handle, fake: FakeBackend) -> None:
    """The same holds before closing."""
    handle.close()
    fake.unlink(handle.name)
    handle.unlink()
    assert handle.name not in fake.queues


def test_closing_does_not_unlink(handle: Handle, fake: FakeBackend) -> None:
    """`close` never unlinks."""
    handle.close()
    assert handle.name in fake.queues


def test_a_refused_unlink_can_be_retried(handle: Handle, fake: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """The handle does not count as unlinked after a failure."""
    with monkeypatch.context() as denied:
        denied.setattr(fake, "unlink", raising(PermissionDenied()))
        with pytest.raises(PermissionDenied):
            handle.unlink()
    handle.unlink()
    assert handle.name not in fake.queues


# Garbage collection


def test_a_collected_handle_warns_with_its_name(fake: FakeBackend, name: str) -> None:
    """The ResourceWarning has the repr of the unclosed handle."""
    with pytest.warns(ResourceWarning, match=f"unclosed <ipcq.Queue '{name}' on 'fake', open>"):
        ipcq.open(name, "fake")


def test_a_collected_handle_closes_its_channel(fake: FakeBackend, name: str) -> None:
    """C17: the channel does not leak."""
    with pytest.warns(ResourceWarning):
        ipcq.open(name, "fake")
    assert [channel.closings for channel in fake.channels] == [1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_collected_handle_closes_its_channel_even_if_warnings_are_errors(fake: FakeBackend, name: str) -> None:
    """C17: the program cannot catch that exception."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ipcq.open(name, "fake")
        gc.collect()
    assert [channel.closings for channel in fake.channels] == [1]


def test_a_handle_that_was_never_initialised_is_collected_silently() -> None:
    """After an interrupted construction, there is nothing to close."""
    handle = ipcq.Queue.__new__(ipcq.Queue)
    del handle
    assert True


def test_a_collected_handle_does_not_unlink(fake: FakeBackend, name: str) -> None:
    """Garbage collection never removes a persistent queue."""
    with pytest.warns(ResourceWarning):
        ipcq.open(name, "fake")
    assert name in fake.queues


def test_an_error_in_a_finaliser_is_reported_before_the_interpreter_exits() -> None:
    """Errors are only hidden while the interpreter exits."""

    def fail(_: object) -> None:
        raise TypeError("nothing to do with the end")

    with pytest.raises(TypeError, match="nothing to do with the end"):
        quiet_at_exit(fail)(None)


def test_an_error_in_a_finaliser_is_hidden_while_the_interpreter_exits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules are gone by then, and no one can do anything about it."""
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)

    def fail(_: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'close'")

    quiet_at_exit(fail)(None)
