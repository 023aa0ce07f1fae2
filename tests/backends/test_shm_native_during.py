"""Put and get in C: they stay correct whatever runs during a call: codecs, signal handlers, threads, forks."""

import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import ipcq
from backends import native
from backends.native import HANG_SECONDS, LARGE_BYTES, Handle, Open, codec, outcome
from ipcq.serializers import register

if sys.platform != "linux":
    pytest.skip("shm is for Linux", allow_module_level=True)

switched_on, reset_codec = native.switched_on, native.reset_codec
name, opened, open_in_python, queue = native.name, native.opened, native.open_in_python, native.queue

WAITS: dict[str, Callable[[Handle], object]] = {
    "put": lambda queue: queue.put({"a": 1}, timeout=HANG_SECONDS),
    "get": lambda queue: queue.get(timeout=HANG_SECONDS),
    "put_many": lambda queue: queue.put_many([{"a": 1}] * 3, timeout=HANG_SECONDS),
    "get_many": lambda queue: queue.get_many(timeout=HANG_SECONDS),
}


@pytest.mark.parametrize("verb", WAITS)
def test_the_exception_of_a_signal_handler_ends_a_wait(opened: Open, verb: str) -> None:
    """C12: within 100 ms; this allows ten times as long."""
    queue = opened(max_messages=2)
    stored = ["first", "second"] if verb.startswith("put") else []
    queue.put_many(stored)
    raised = 0.0

    def stop(*_: object) -> None:
        nonlocal raised
        raised = time.monotonic()
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, stop)
    began = time.monotonic()
    try:
        with pytest.raises(InterruptedError):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            WAITS[verb](queue)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (raised - began < 1.05, queue.qsize()) == (True, len(stored))


@pytest.mark.parametrize("verb", ["put", "put_nowait"])
def test_an_item_is_encoded_once_even_if_the_queue_is_full(opened: Open, verb: str) -> None:
    """An encoder may have side effects."""
    queue = opened(serializer="test-native", max_messages=1)
    queue.put(1)
    codec.encoded = 0
    with pytest.raises(ipcq.QueueFull):
        queue.put_nowait(2) if verb == "put_nowait" else queue.put(2, timeout=0.01)
    assert codec.encoded == 1


def test_the_time_of_the_encoder_counts(opened: Open) -> None:
    """The timeout begins when the call begins, as in Python."""
    queue = opened(serializer="test-native", max_messages=1)
    queue.put(1)
    codec.encode = lambda item: time.sleep(0.3) or b""
    before = queue.stats().waits
    with pytest.raises(ipcq.QueueFull):
        queue.put(2, timeout=0.1)
    assert queue.stats().waits == before  # no time was left


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("verb", ["put", "get"])
def test_an_exception_that_ends_a_program_propagates_through_a_codec(
    opened: Open, verb: str, kind: type[BaseException]
) -> None:
    """It is not an error of the codec."""
    queue = opened(serializer="test-native")
    queue.put(1)

    def end(_: object) -> Any:
        raise kind

    codec.encode = codec.decode = end
    with pytest.raises(kind):
        queue.put(1) if verb == "put" else queue.get()


def test_an_encoder_has_to_return_bytes(opened: Open, open_in_python: Open) -> None:
    """The result is checked."""
    opened()
    found = []
    for handle in (opened(serializer="raw"), open_in_python(serializer="raw")):
        handle._encode = lambda item: "text"
        if handle._armed:
            handle._arm(handle._channel.native(), handle._encode, handle._decode, True, True, True)
        found.append(outcome(lambda handle=handle: handle.put(1)))
    assert found[0] == found[1]


@pytest.mark.parametrize("how", ["itself", "a handler", "another thread"])
def test_a_handle_that_is_closed_by_its_encoder_puts_nothing(opened: Open, how: str) -> None:
    """C5: QueueClosed, and nothing was queued."""
    other, queue = opened(), opened(serializer="test-native")

    def close(*_: object) -> bytes:
        if how == "another thread":
            thread = threading.Thread(target=queue.close)
            thread.start()
            thread.join(HANG_SECONDS)
        elif how == "a handler":
            signal.raise_signal(signal.SIGUSR1)
        else:
            queue.close()
        return b"data"

    codec.encode = close
    before = signal.signal(signal.SIGUSR1, lambda *_: queue.close())
    try:
        with pytest.raises(ipcq.QueueClosed):
            queue.put(1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert other.empty()


@pytest.mark.parametrize("verb", ["put", "put_many", "get", "get_many"])
def test_a_closed_handle_does_nothing_while_a_call_is_still_inside(opened: Open, verb: str) -> None:
    """C14: the handle is closed at once, and its channel when that call has returned."""
    other, queue = opened(serializer="raw"), opened(serializer="raw")
    other.put_many([b"1", b"2"])
    found = []

    def items() -> Iterator[bytes]:
        queue.close()
        calls = {"put": lambda: queue.put(b"3"), "put_many": lambda: queue.put_many([b"3"])}
        found.append(outcome(calls.get(verb, getattr(queue, verb)))[0])
        yield b"4"

    with pytest.raises(ipcq.QueueClosed):
        queue.put_many(items())
    assert (found, other.qsize()) == ([ipcq.QueueClosed], 2)


def test_a_handle_that_is_closed_by_its_decoder_returns_the_item(opened: Open) -> None:
    """The message was taken before."""
    queue = opened(serializer="test-native")
    queue.put(1)
    codec.decode = lambda data: queue.close() or data
    assert queue.get() == b"1"


def test_a_codec_may_use_the_handle(opened: Open) -> None:
    """No lock is held while it runs."""
    queue = opened(serializer="test-native")

    def encode(item: Any) -> bytes:
        if item:
            queue.put(item - 1)
        return b"%d" % item

    codec.encode = encode
    queue.put(3)
    assert [queue.get() for _ in range(4)] == [b"0", b"1", b"2", b"3"]


def test_a_fork_by_an_encoder_puts_twice(opened: Open) -> None:
    """Parent and child continue, each with its own handle."""
    queue, other = opened(serializer="test-native"), opened(serializer="raw")
    children = []

    def fork(_: object) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            children.append(os.fork())
        return b"child" if children == [0] else b"parent"

    codec.encode = fork
    queue.put(1)
    if children == [0]:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert sorted(data[-5:] for data in other.get_many()) == [b"arent", b"child"]


def test_a_closed_channel_is_noticed(queue: Handle) -> None:
    """A finaliser closes only the channel, and the handle may be resurrected."""
    queue._channel.detach()
    with pytest.raises(ipcq.QueueClosed):
        queue.put(b"1")


def test_a_handler_runs_in_a_loop_of_short_calls(queue: Handle) -> None:
    """C12: within 100 ms; asserted at ten times that."""

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    try:
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Stop):
            while True:
                queue.put(b"1")
                queue.get()
        assert time.monotonic() - began < 0.05 + 1.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("item", [b"1", bytes(4 * LARGE_BYTES)], ids=["small", "large"])
@pytest.mark.parametrize("serializer", ["raw", "msgpack"])
def test_closing_while_threads_put_and_get_breaks_nothing(opened: Open, item: bytes, serializer: str) -> None:
    """C14: each thread ends with QueueClosed, even in the middle of a copy without the GIL."""
    for _ in range(20):
        queue = opened(serializer=serializer)
        ended = []

        def work(queue: Handle = queue, ended: list[object] = ended) -> None:
            try:
                while True:
                    queue.put(item)
                    assert queue.get() == item
            except ipcq.QueueClosed as error:
                ended.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(0.01)
        queue.close()
        for thread in threads:
            thread.join(HANG_SECONDS)
        assert len(ended) == 3


def close_in_children(queue: Handle, count: int) -> set[int]:
    """Fork `count` times, close the handle in each child, and return the children's exit codes."""
    codes = set()
    for _ in range(count):
        child = os.fork()
        if child == 0:
            signal.alarm(int(HANG_SECONDS))
            queue.close()
            os._exit(0)
        codes.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return codes


def test_a_wait_of_another_thread_is_not_awaited_in_a_child(queue: Handle) -> None:
    """C20: and the child does not end the parent's wait."""
    taken: list[object] = []
    thread = threading.Thread(target=lambda: taken.append(queue.get(timeout=HANG_SECONDS)))
    thread.start()
    codes = close_in_children(queue, 10)
    queue.put(b"item")
    thread.join(HANG_SECONDS)
    assert (codes, taken) == ({0}, [b"item"])


@pytest.mark.parametrize("serializer", ["raw", "msgpack"])
def test_a_large_copy_of_another_thread_is_not_awaited_in_a_child(opened: Open, serializer: str) -> None:
    """C20: the thread that copies exists only in the parent."""
    queue = opened(serializer=serializer)
    over = threading.Event()

    def copy() -> None:
        while not over.is_set():
            queue.put(bytes(6 * LARGE_BYTES))
            queue.get()

    thread = threading.Thread(target=copy)
    thread.start()
    codes = close_in_children(queue, 30)
    over.set()
    thread.join(HANG_SECONDS)
    assert codes == {0}


def test_messages_of_threads_are_neither_lost_nor_doubled(opened: Open) -> None:
    """C2, C21: with one handle for all threads."""
    queue = opened(serializer="raw", max_messages=50)
    taken: list[bytes] = []

    def produce(first: int) -> None:
        for number in range(first, first + 2000):
            queue.put(number.to_bytes(8))

    def consume() -> None:
        while (data := queue.get()) != b"end":
            taken.append(data)

    producers = [threading.Thread(target=produce, args=(2000 * each,)) for each in range(3)]
    consumers = [threading.Thread(target=consume) for _ in range(2)]
    for thread in producers + consumers:
        thread.start()
    for thread in producers:
        thread.join(HANG_SECONDS)
    for _ in consumers:
        queue.put(b"end")
    for thread in consumers:
        thread.join(HANG_SECONDS)
    assert sorted(taken) == [number.to_bytes(8) for number in range(6000)]


def test_an_item_without_memory_to_decode_it_is_got_next(name: str) -> None:
    """C36: the next get returns the item, in order and with its priority."""
    limits: dict[str, Any] = {"max_messages": 4, "max_message_size": 512, "priorities": True}
    register(5099, "scarce", _encode, _Scarce())
    with ipcq.open(name, "shm", exclusive=True, serializer="scarce", **limits) as queue:
        queue.put(b"low")
        queue.put(b"high", priority=9)
        with pytest.raises(MemoryError):
            queue.get()
        first = queue.get_message()
        assert (first.item, first.priority, queue.get()) == (b"high", 9, b"low")


def _encode(item: bytes) -> bytes:
    return item


class _Scarce:
    """A decoder that raises MemoryError for the first message."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, data: bytes) -> bytes:
        self._calls += 1
        if self._calls == 1:
            raise MemoryError
        return data
