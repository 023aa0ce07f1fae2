"""Put and get in C: they keep what they need, and leak nothing."""

import gc
import sys
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import ipcq
from backends import native
from backends.native import LARGE_BYTES, Handle, Open, grown_by, outcome

if sys.platform != "linux":
    pytest.skip("shm is for Linux", allow_module_level=True)

switched_on, reset_codec = native.switched_on, native.reset_codec
name, opened, open_in_python, queue = native.name, native.opened, native.open_in_python, native.queue


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
    put.__self__.close()


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
    "bad arguments": lambda queue: (outcome(lambda: queue.put(1, 1)), outcome(lambda: queue.get(1))),
    "no item": lambda queue: outcome(lambda: queue.put(object())),
    "too large": lambda queue: outcome(lambda: queue.put(bytes(1 << 19))),
    "too large when encoded": lambda queue: outcome(lambda: queue.put("x" * (1 << 19))),
    "no message": lambda queue: (queue._channel.try_put(b"\xc7", 0), outcome(queue.get)),
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_no_call_leaks(queue: Handle, loop: Callable[[Handle], object]) -> None:
    """C17: neither memory nor references leak."""
    watched = (None, True, queue, queue._channel, queue._encode, queue._decode, type(queue), b"", b"1")
    assert not any(grown_by(lambda: loop(queue), watched))


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
