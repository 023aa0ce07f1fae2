"""Put and get in C: they return and raise what the methods in Python do."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import ipcq
from backends import native
from backends.native import HANG_SECONDS, LARGE_BYTES, Handle, Open, outcome

if sys.platform != "linux":
    pytest.skip("shm is for Linux", allow_module_level=True)

switched_on, reset_codec = native.switched_on, native.reset_codec
name, opened, open_in_python, queue = native.name, native.opened, native.open_in_python, native.queue

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
    "put nothing": lambda queue: queue.put(),
    "put too much": lambda queue: queue.put(1, True, None, 0),
    "put by name": lambda queue: queue.put(item=1, block=True, timeout=None, priority=0),
    "put what is given twice": lambda queue: queue.put(1, item=1),
    "put with an unknown name": lambda queue: queue.put(1, wait=5),
    "put with a priority": lambda queue: queue.put(1, priority=1),
    "put with priority 0.0": lambda queue: queue.put(1, priority=0.0),
    "put with priority False": lambda queue: queue.put(1, priority=False),
    "put with priority -1": lambda queue: queue.put(1, priority=-1),
    "put with a priority of 80 bits": lambda queue: queue.put(1, priority=1 << 80),
    "put with block=1": lambda queue: queue.put(1, 1),
    "put with timeout 0": lambda queue: queue.put(1, timeout=0),
    "put with timeout 1": lambda queue: queue.put(1, timeout=1),
    "put with timeout 1.5": lambda queue: queue.put(1, True, 1.5),
    "put with timeout -1": lambda queue: queue.put(1, timeout=-1),
    "put with timeout nan": lambda queue: queue.put(1, timeout=float("nan")),
    "put with timeout inf": lambda queue: queue.put(1, timeout=float("inf")),
    "put with a timeout of 2000 bits": lambda queue: queue.put(1, timeout=1 << 2000),
    "put with timeout True": lambda queue: queue.put(1, timeout=True),
    "put with timeout text": lambda queue: queue.put(1, timeout="1"),
    "put without waiting and a bad timeout": lambda queue: queue.put(1, False, -1),
    "put what is too large": lambda queue: queue.put(bytes(1 << 20)),
    "put what is too large when encoded": lambda queue: queue.put("x" * (1 << 20)),
    "put nothing without waiting": lambda queue: queue.put_nowait(),
    "put two without waiting": lambda queue: queue.put_nowait(1, 2),
    "put by name without waiting": lambda queue: queue.put_nowait(item=1),
    "put a list": lambda queue: queue.put_many([b"1", b"2"], timeout=1),
    "put a tuple": lambda queue: queue.put_many((b"1", b"2"), False),
    "put a longer list than there is space": lambda queue: queue.put_many([b"1"] * 5, False),
    "put a mixed list": lambda queue: queue.put_many([b"1", 2], timeout=1),
    "put an empty list": lambda queue: queue.put_many([]),
    "put a list of what is too large": lambda queue: queue.put_many([b"1", bytes(1 << 20)]),
    "put a list of what is no message": lambda queue: queue.put_many([b"1", object()]),
    "put a large list": lambda queue: queue.put_many([bytes(LARGE_BYTES), bytes(LARGE_BYTES)], timeout=1),
    "put no list": lambda queue: queue.put_many(5),
    "put an iterator": lambda queue: queue.put_many(iter([b"1"]), timeout=1),
    "put a list with timeout -1": lambda queue: queue.put_many([b"1"], timeout=-1),
    "get many": lambda queue: queue.get_many(timeout=1),
    "get two": lambda queue: queue.get_many(2, timeout=1),
    "get none": lambda queue: queue.get_many(0),
    "get True": lambda queue: queue.get_many(True),
    "get text": lambda queue: queue.get_many("2"),
    "get 2 to the 80": lambda queue: queue.get_many(1 << 80, timeout=1),
    "get many with timeout -1": lambda queue: queue.get_many(timeout=-1),
    "get by name": lambda queue: queue.get(block=True, timeout=1),
    "get too much": lambda queue: queue.get(True, None, 1),
    "get with an unknown name": lambda queue: queue.get(wait=5),
    "get with block=0.5": lambda queue: queue.get(0.5),
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
        outcome(lambda handle=handle: handle.put(b"1") if verb == "put" else handle.get())
        for handle in (opened(**options), open_in_python(**options))
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("seconds", [0.05, 0.25], ids=["within a slice", "over slices"])
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
