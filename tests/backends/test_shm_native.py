"""Put and get in C: they exist, behave like the methods in Python, and stay correct whatever happens during a call."""

import copy
import datetime as dt
import gc
import inspect
import os
import pickle
import pydoc
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import pytest

import ipcq
from backends import native
from backends.native import HANG_SECONDS, LARGE_BYTES, Handle, Open, codec, outcome
from ipcq.serializers import codec_for, register

if sys.platform != "linux":
    pytest.skip("shm is for Linux", allow_module_level=True)

from ipcq import _native

switched_on, reset_codec = native.switched_on, native.reset_codec
name, opened, open_in_python, queue = native.name, native.opened, native.open_in_python, native.queue


VERBS = ("put", "put_nowait", "put_many", "get", "get_nowait", "get_many")

# It exists


@pytest.mark.parametrize("verb", VERBS)
def test_the_verbs_of_a_handle_are_in_c(queue: Handle, verb: str) -> None:
    """A call of a function in Python takes as long as the work of the ring."""
    assert isinstance(getattr(queue, verb).__func__, _native.Verb)


def test_a_handle_of_shm_puts_and_gets_in_c(queue: Handle) -> None:
    """The channel has functions in C."""
    assert queue._armed


def frames(handle: Handle) -> list[str]:
    """Return the names of the functions in Python that run during a put and a get."""
    seen: list[str] = []
    sys.setprofile(lambda frame, event, _: seen.append(frame.f_code.co_name) if event == "call" else None)
    try:
        handle.put({"a": [b"1"]})
        handle.get()
    finally:
        sys.setprofile(None)
    return seen


def test_no_function_in_python_runs(queue: Handle) -> None:
    """Put and get are in C from end to end, including the codec."""
    assert frames(queue) == []


def test_the_switch_turns_c_off(open_in_python: Open) -> None:
    """IPCQ_SHORTCUTS=0."""
    handle = open_in_python()
    assert (handle._armed, {"put", "get"} <= set(frames(handle))) == (False, True)


def test_another_value_of_the_switch_has_no_effect(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only 0 is documented."""
    monkeypatch.setenv("IPCQ_SHORTCUTS", "1")
    assert opened()._armed


def test_a_process_inherits_the_switch(queue: Handle, name: str) -> None:
    """It is an environment variable."""
    script = "import ipcq, sys; print(ipcq.open(sys.argv[1])._armed)"
    command = [sys.executable, "-W", "ignore", "-c", script, name]
    told = subprocess.run(
        command, env={**os.environ, "IPCQ_SHORTCUTS": "0"}, capture_output=True, text=True, check=True
    )
    assert told.stdout == "False\n"


# It is a Queue


def test_a_handle_is_a_queue(queue: Handle) -> None:
    """isinstance is true."""
    assert isinstance(queue, ipcq.Queue)


def test_the_class_of_every_handle_is_queue(queue: Handle, open_in_python: Open) -> None:
    """Whatever its backend, and whether C or Python does its calls."""
    assert [type(queue), type(open_in_python())] == [ipcq.Queue, ipcq.Queue]


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_the_signature_that_is_written_in_python(queue: Handle, verb: str) -> None:
    """With its annotations, for help() and the documentation."""
    own = inspect.signature(inspect.unwrap(getattr(ipcq.Queue, verb)))
    first, *rest = own.parameters.values()
    assert inspect.signature(getattr(ipcq.Queue, verb)) == own
    assert inspect.signature(getattr(queue, verb)) == own.replace(parameters=rest)
    assert (first.name, own.return_annotation is not inspect.Signature.empty) == ("self", True)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_the_docstring_that_is_written_in_python(queue: Handle, verb: str) -> None:
    """help() shows it."""
    own = inspect.unwrap(getattr(ipcq.Queue, verb)).__doc__
    assert own and own == getattr(ipcq.Queue, verb).__doc__ == getattr(queue, verb).__doc__


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_begins_with_its_call(verb: str) -> None:
    """As for a function."""
    text = pydoc.render_doc(getattr(ipcq.Queue, verb), renderer=pydoc.plaintext)
    assert f"{verb}(self" in "".join(text.split())  # 3.13 writes one argument on a line


@pytest.mark.parametrize("verb", VERBS)
def test_inspect_takes_a_verb_for_a_function(verb: str) -> None:
    """Documentation tools and mocks rely on that."""
    assert inspect.isfunction(getattr(ipcq.Queue, verb))


def test_a_mock_of_the_class_knows_the_arguments_of_a_verb() -> None:
    """Tests of users find a wrong call."""
    with pytest.raises(TypeError, match="item"):
        mock.create_autospec(ipcq.Queue, instance=True).put()


@pytest.mark.parametrize("again", [lambda verb: pickle.loads(pickle.dumps(verb)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_pickled_and_copied_by_its_name(verb: str, again: Callable[[Any], Any]) -> None:
    """As a function is."""
    assert again(getattr(ipcq.Queue, verb)) is getattr(ipcq.Queue, verb)


def test_a_bound_verb_is_pickled_with_its_handle(queue: Handle) -> None:
    """A process can be started with it."""
    put = pickle.loads(pickle.dumps(queue.put))
    with put.__self__:
        put(b"item")
        assert queue.get() == b"item"


def test_a_verb_can_be_bound_by_hand(queue: Handle) -> None:
    """The bound method is still in C."""
    bound = ipcq.Queue.put.__get__(queue)
    assert isinstance(bound.__func__, _native.Verb)


def test_put_nowait_calls_what_replaced_put(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the method in Python does."""
    seen: list[object] = []
    monkeypatch.setattr(ipcq.Queue, "put", lambda _, item, block: seen.append((item, block)))
    queue.put_nowait(5)
    assert (seen, queue.empty()) == ([(5, False)], True)


def test_get_nowait_calls_what_replaced_get(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the method in Python does."""
    queue.put(5)
    monkeypatch.setattr(ipcq.Queue, "get", lambda _, block: ("replaced", block))
    assert (queue.get_nowait(), queue.qsize()) == (("replaced", False), 1)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_of_the_class_takes_the_handle(queue: Handle, verb: str) -> None:
    """As a function of a class does."""
    arguments = {"put": [b"1"], "put_nowait": [b"1"], "put_many": [[b"1"]]}.get(verb, [])
    if not arguments:
        queue.put(b"1")
    getattr(ipcq.Queue, verb)(queue, *arguments)


@pytest.mark.parametrize("wrong", [(), (5,), (5, 6, 7)], ids=str)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_without_a_handle_is_an_error(verb: str, wrong: tuple[object, ...]) -> None:
    """It raises and does not crash."""
    with pytest.raises((TypeError, AttributeError)):
        getattr(ipcq.Queue, verb)(*wrong)


def test_a_handle_that_was_never_opened_does_not_crash() -> None:
    """Its fields in C are empty."""
    with pytest.raises(AttributeError):
        ipcq.Queue.put(object.__new__(ipcq.Queue), 1)


def test_a_handle_shows_itself_as_a_queue(queue: Handle, open_in_python: Open) -> None:
    """The text is the same."""
    assert repr(queue) == repr(open_in_python())


def test_a_pickled_handle_uses_c_again(queue: Handle) -> None:
    """Unpickling opens a handle as open does."""
    with pickle.loads(pickle.dumps(queue)) as again:
        assert again._armed


def test_the_class_takes_type_arguments(queue: Handle) -> None:
    """As for Queue."""
    assert type(queue)[int].__args__ == (int,)


def test_a_handle_takes_no_other_attributes(queue: Handle) -> None:
    """A misspelt attribute is an error."""
    with pytest.raises(AttributeError):
        queue.maxsize = 5  # type: ignore[attr-defined]


def test_a_class_can_derive_from_it(queue: Handle) -> None:
    """Its fields come before those of any subclass."""

    class Mine(ipcq.Queue[Any]):
        __slots__ = ("extra",)

    mine = Mine(queue._channel, codec_for("raw"), queue._origin)
    mine.extra = 5
    mine.put(b"item")
    assert (mine._armed, mine.get(), mine.extra) == (True, b"item", 5)
    mine._unclosed.clear()  # the channel belongs to `queue`


@pytest.mark.parametrize("table", [None, 5, object(), dt.datetime_CAPI], ids=lambda table: type(table).__name__)
def test_only_a_capsule_of_a_channel_arms_a_handle(queue: Handle, table: object) -> None:
    """Any other object is refused, and the handle works as before."""
    with pytest.raises((TypeError, ValueError)):
        queue._arm(table, bytes, bytes, True, True, True)
    queue.put(b"item")
    assert (queue._armed, queue.get()) == (True, b"item")


@pytest.mark.parametrize("function", [len, int.__add__], ids=repr)
def test_no_other_method_is_in_c(function: Callable[..., object]) -> None:
    """The decorator refuses all others."""
    with pytest.raises(ValueError, match="in C"):
        _native.in_c(function)


def test_only_a_function_is_decorated() -> None:
    """A verb calls it directly."""
    with pytest.raises(TypeError, match="function"):
        _native.in_c(mock.Mock(__name__="put"))


# It behaves as Queue's own methods do

ITEMS = {
    **{f"bytes of {size}": bytes(size) for size in (0, 1, 2, 253, 254, 255, 256, 257, 65534, 65535, 65536, 65537)},
    **{
        f"bytes of {size}": b"x" * size
        for size in (LARGE_BYTES - 4, LARGE_BYTES - 3, LARGE_BYTES - 2, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 1)
    },
    "bytearray": bytearray(b"123"),
    "subclass of bytes": type("Mine", (bytes,), {})(b"123"),
    "memoryview": memoryview(b"123"),
    "None": None,
    "number": 5,
    "dict": {"a": [1, 2.5, None]},
    "no message": object(),
}


@pytest.mark.parametrize("serializer", ["raw", "msgpack", "msgspec", "test-native"])
@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_an_item_becomes_the_same_bytes(opened: Open, open_in_python: Open, item: object, serializer: str) -> None:
    """Or the error is the same."""
    raw = opened(serializer="raw")

    def put(handle: Handle) -> object:
        return outcome(lambda: handle.put(item)), raw.get_many() if raw.qsize() else None

    assert put(opened(serializer=serializer)) == put(open_in_python(serializer=serializer))


MESSAGES = {
    "nothing": b"",
    "bin 8": b"\xc4\x03abc",
    "bin 8 without its length": b"\xc4",
    "bin 8 that is too short": b"\xc4\x04abc",
    "bin 8 that is too long": b"\xc4\x02abc",
    "empty bin 8": b"\xc4\x00",
    "bin 16": b"\xc5\x01\x00" + bytes(256),
    "bin 16 of few": b"\xc5\x00\x03abc",
    "bin 16 without its length": b"\xc5\x00",
    "bin 16 that is too short": b"\xc5\x00\x04abc",
    "bin 32": b"\xc6\x00\x01\x00\x00" + bytes(65536),
    "bin 32 of few": b"\xc6\x00\x00\x00\x03abc",
    "bin 32 without its length": b"\xc6\x00\x00\x00",
    "text": b"\xa3abc",
    "list": b"\x92\x01\x02",
    "marked": b"\xc1\x01abc",
    "marked with this serializer": b"\xc1\xd9\x36abc",
    "no MessagePack": b"\xc7",
}


@pytest.mark.parametrize("options", [{}, {"serializer": "msgspec"}, {"type": bytes}, {"serializer": "raw"}], ids=str)
@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_a_message_becomes_the_same_item(
    opened: Open, open_in_python: Open, message: bytes, options: dict[str, Any]
) -> None:
    """Or the error is the same, and the message is taken."""
    raw = opened(serializer="raw")
    found = []
    for handle in (opened(**options), open_in_python(**options)):
        raw.put(message)
        found.append((outcome(handle.get), raw.qsize()))
    assert found[0] == found[1]


CALLS: dict[str, Callable[[Handle], object]] = {
    "put nothing": lambda queue: queue.put(),  # type: ignore[call-arg]
    "put too much": lambda queue: queue.put(1, True, None, 0),  # type: ignore[misc]
    "put by name": lambda queue: queue.put(item=1, block=True, timeout=None, priority=0),
    "put what is given twice": lambda queue: queue.put(1, item=1),  # type: ignore[misc]
    "put with an unknown name": lambda queue: queue.put(1, wait=5),  # type: ignore[call-arg]
    "put with a priority": lambda queue: queue.put(1, priority=1),
    "put with priority 0.0": lambda queue: queue.put(1, priority=0.0),  # type: ignore[arg-type]
    "put with priority False": lambda queue: queue.put(1, priority=False),
    "put with priority -1": lambda queue: queue.put(1, priority=-1),
    "put with a priority of 80 bits": lambda queue: queue.put(1, priority=1 << 80),
    "put with block=1": lambda queue: queue.put(1, 1),  # type: ignore[arg-type]
    "put with timeout 0": lambda queue: queue.put(1, timeout=0),
    "put with timeout 1": lambda queue: queue.put(1, timeout=1),
    "put with timeout 1.5": lambda queue: queue.put(1, True, 1.5),
    "put with timeout -1": lambda queue: queue.put(1, timeout=-1),
    "put with timeout nan": lambda queue: queue.put(1, timeout=float("nan")),
    "put with timeout inf": lambda queue: queue.put(1, timeout=float("inf")),
    "put with a timeout of 2000 bits": lambda queue: queue.put(1, timeout=1 << 2000),
    "put with timeout True": lambda queue: queue.put(1, timeout=True),
    "put with timeout text": lambda queue: queue.put(1, timeout="1"),  # type: ignore[arg-type]
    "put without waiting and a bad timeout": lambda queue: queue.put(1, False, -1),
    "put what is too large": lambda queue: queue.put(bytes(1 << 20)),
    "put what is too large when encoded": lambda queue: queue.put("x" * (1 << 20)),
    "put nothing without waiting": lambda queue: queue.put_nowait(),  # type: ignore[call-arg]
    "put two without waiting": lambda queue: queue.put_nowait(1, 2),  # type: ignore[call-arg]
    "put by name without waiting": lambda queue: queue.put_nowait(item=1),
    "put a list": lambda queue: queue.put_many([b"1", b"2"], timeout=1),
    "put a tuple": lambda queue: queue.put_many((b"1", b"2"), False),
    "put a longer list than there is space": lambda queue: queue.put_many([b"1"] * 5, False),
    "put a mixed list": lambda queue: queue.put_many([b"1", 2], timeout=1),
    "put an empty list": lambda queue: queue.put_many([]),
    "put a list of what is too large": lambda queue: queue.put_many([b"1", bytes(1 << 20)]),
    "put a list of what is no message": lambda queue: queue.put_many([b"1", object()]),
    "put a large list": lambda queue: queue.put_many([bytes(LARGE_BYTES), bytes(LARGE_BYTES)], timeout=1),
    "put no list": lambda queue: queue.put_many(5),  # type: ignore[arg-type]
    "put an iterator": lambda queue: queue.put_many(iter([b"1"]), timeout=1),
    "put a list with timeout -1": lambda queue: queue.put_many([b"1"], timeout=-1),
    "get many": lambda queue: queue.get_many(timeout=1),
    "get two": lambda queue: queue.get_many(2, timeout=1),
    "get none": lambda queue: queue.get_many(0),
    "get True": lambda queue: queue.get_many(True),
    "get text": lambda queue: queue.get_many("2"),  # type: ignore[arg-type]
    "get 2 to the 80": lambda queue: queue.get_many(1 << 80, timeout=1),
    "get many with timeout -1": lambda queue: queue.get_many(timeout=-1),
    "get by name": lambda queue: queue.get(block=True, timeout=1),
    "get too much": lambda queue: queue.get(True, None, 1),  # type: ignore[call-arg]
    "get with an unknown name": lambda queue: queue.get(wait=5),  # type: ignore[call-arg]
    "get with block=0.5": lambda queue: queue.get(0.5),  # type: ignore[arg-type]
    "get with timeout -1": lambda queue: queue.get(timeout=-1),
    "get with timeout 0": lambda queue: queue.get(timeout=0),
    "get without waiting": lambda queue: queue.get_nowait(),
}


@pytest.mark.parametrize("fill", ["one", "none", "full"])
@pytest.mark.parametrize("serializer", ["msgpack", "raw"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_ends_in_the_same_way(
    opened: Open, open_in_python: Open, call: Callable[[Handle], object], serializer: str, fill: str
) -> None:
    """For all arguments and contents of the queue; calls that would block have a timeout."""

    def end(handle: Handle) -> tuple[object, ...]:
        while fill == "full" and not handle.full():
            handle.put_nowait(b"full")
        if fill == "one":
            handle.put(b"one")
        came = threading.Event()

        def come() -> None:
            came.wait(0.2)
            outcome(lambda: handle.get_many(4, False) if fill == "full" else handle.put_nowait(b"late"))

        # On a full or empty queue, a call that may wait is served soon.
        soon = threading.Thread(target=come if fill != "one" else came.set)
        soon.start()
        ended = outcome(lambda: call(handle))
        came.set()
        soon.join()
        handle.clear()
        return ended

    assert end(opened(max_messages=4, serializer=serializer)) == end(open_in_python(serializer=serializer))


@pytest.mark.parametrize("verb", ["put", "put_nowait"])
def test_priorities_are_kept(opened: Open, verb: str) -> None:
    """Also in cells, where a message is stored in several parts."""
    queue = opened(priorities=True)
    queue.put(b"a" * 300, priority=3)
    queue.put(b"b" * 300, priority=32767)
    getattr(queue, verb)(b"c" * 300)
    assert [queue.get() for _ in range(3)] == [b"b" * 300, b"a" * 300, b"c" * 300]


@pytest.mark.parametrize("options", [{"read": False}, {"write": False}], ids=str)
@pytest.mark.parametrize("verb", ["put", "get"])
def test_rights_are_kept(opened: Open, open_in_python: Open, verb: str, options: dict[str, Any]) -> None:
    """The calls raise PermissionDenied like the methods in Python."""
    opened().put_many([b"1", b"1"])
    found = [
        outcome(lambda handle=handle: handle.put(b"1") if verb == "put" else handle.get())  # type: ignore[misc]
        for handle in (opened(**options), open_in_python(**options))
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("seconds", [0.01, 0.25], ids=["within a slice", "over slices"])
def test_a_wait_in_vain_is_counted_once(queue: Handle, seconds: float) -> None:
    """However often it polls; and it lasts as long as its timeout."""
    began = time.monotonic()
    with pytest.raises(ipcq.QueueEmpty):
        queue.get(timeout=seconds)
    assert time.monotonic() - began >= seconds
    figures = queue.stats()
    assert (figures.waits, figures.timeouts) == (1, 1)


def test_a_wait_that_is_served_is_counted_once(queue: Handle) -> None:
    """After more than one slice."""
    later = threading.Timer(0.25, queue.put, [b"item"])
    later.start()
    assert queue.get(timeout=HANG_SECONDS) == b"item"
    later.join()
    figures = queue.stats()
    assert (figures.waits, figures.timeouts) == (1, 0)


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


# Codecs and signal handlers that run during a call


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
        found.append(outcome(lambda handle=handle: handle.put(1)))  # type: ignore[misc]
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
    queue._channel.detach()  # type: ignore[attr-defined]
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


# References and memory


def test_a_forgotten_handle_warns_at_once(opened: Open, name: str) -> None:
    """No garbage collection is needed: there is no cycle through a handle."""
    opened()
    queue = ipcq.open(name, "shm")
    gone = weakref.ref(queue)
    gc.disable()
    try:
        with pytest.warns(ResourceWarning, match="unclosed"):
            del queue
        assert gone() is None
    finally:
        gc.enable()


def test_a_bound_verb_keeps_the_handle(opened: Open, name: str) -> None:
    """As a bound method does."""
    queue = opened()
    handle = ipcq.open(name, "shm")
    put = handle.put
    del handle
    put(b"1")
    assert queue.get() == b"1"
    put.__self__.close()  # type: ignore[attr-defined]


def test_a_cycle_through_a_codec_is_collected(opened: Open) -> None:
    """The garbage collector sees the references in C."""
    queue = opened()
    handle = ipcq.open(queue.name, "shm")
    gone = weakref.ref(handle)
    handle._arm(handle._channel.native(), partial(repr, handle), handle._decode, True, True, True)
    with pytest.warns(ResourceWarning, match="unclosed"):
        del handle
        gc.collect()
    assert gone() is None


def raise_bad(*_: object) -> Any:
    raise ValueError("bad")


LOOPS: dict[str, Callable[[Handle], object]] = {
    "bytes": lambda queue: (queue.put(b"1" * 60), queue.get()),
    "items": lambda queue: (queue.put({"a": 1}), queue.get()),
    "without waiting": lambda queue: (queue.put_nowait(b"1"), queue.get_nowait()),
    "by name": lambda queue: (queue.put(item=b"1", timeout=1), queue.get(timeout=1.5)),
    "batches": lambda queue: (queue.put_many([b"1", b"2"]), queue.get_many()),
    "batches of objects": lambda queue: (queue.put_many([{"a": 1}, "b"]), queue.get_many()),
    "batches that msgpack decodes": lambda queue: (
        queue._channel.try_put_many([b"\x05", b"\xd6\xff\0\0\0\1"]),
        queue.get_many(),
    ),
    "large": lambda queue: (queue.put(bytes(LARGE_BYTES)), queue.get()),
    "empty": lambda queue: outcome(queue.get_nowait),
    "bad arguments": lambda queue: (outcome(lambda: queue.put(1, 1)), outcome(lambda: queue.get(1))),  # type: ignore[arg-type]
    "no item": lambda queue: outcome(lambda: queue.put(object())),
    "too large": lambda queue: outcome(lambda: queue.put(bytes(1 << 19))),
    "too large when encoded": lambda queue: outcome(lambda: queue.put("x" * (1 << 19))),
    "no message": lambda queue: (queue._channel.try_put(b"\xc7", 0), outcome(queue.get)),
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_no_call_leaks(queue: Handle, loop: Callable[[Handle], object]) -> None:
    """C17: neither memory nor references leak."""

    watched = (None, True, queue, queue._channel, queue._encode, queue._decode, type(queue), b"", b"1")

    def grown() -> list[int]:
        """Return how much memory and reference counts grow with each call."""
        gc.collect()
        counts = [sys.getrefcount(each) for each in watched]
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(2000):
            loop(queue)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        growth = [sys.getrefcount(each) - seen for each, seen in zip(watched, counts, strict=True)]
        # The smallest object takes 16 bytes. Python's own caches change by less.
        return [max(after - before, 0) // (2000 * 8), *(max(each, 0) // 1000 for each in growth)]

    tracemalloc.start()
    try:
        # An allocation that Python makes only once may fall into one of the three runs.
        least = [min(each) for each in zip(grown(), grown(), grown(), strict=True)]
    finally:
        tracemalloc.stop()
    assert least == [0] * len(least)


def test_no_handle_leaks(opened: Open, name: str) -> None:
    """And nothing leaks that it refers to."""
    opened()
    for _ in range(3):
        ipcq.open(name, "shm").close()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(100):
        ipcq.open(name, "shm").close()
    gc.collect()
    assert len(gc.get_objects()) - before < 100


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
