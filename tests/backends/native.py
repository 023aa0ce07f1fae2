"""For the tests of calls in C on shm: handles that make them, the same in Python, and a codec that a test replaces."""

import gc
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

import ipcq
from ipcq.serializers import register

Handle = ipcq.Queue[Any]
Open = Callable[..., Handle]

HANG_SECONDS = 20.0
#: From this size on a message is copied without the GIL (ipcq/channel.h).
LARGE_BYTES = 32768


class Codec:
    """A serializer whose functions a test can replace."""

    def __init__(self) -> None:
        self.encode: Callable[[Any], bytes] = lambda item: repr(item).encode()
        self.decode: Callable[[bytes], Any] = lambda data: data
        self.encoded = 0


codec = Codec()


def encode(item: Any) -> bytes:
    codec.encoded += 1
    return codec.encode(item)


register(7001, "test-native", encode, lambda data: codec.decode(data))


@pytest.fixture(autouse=True)
def switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let handles make their calls in C, whatever the environment says."""
    monkeypatch.delenv("IPCQ_SHORTCUTS", raising=False)


@pytest.fixture(autouse=True)
def reset_codec() -> None:
    """Forget what the last test did with the codec."""
    codec.__init__()  # type: ignore[misc]  # reset it


@pytest.fixture
def name() -> Iterator[str]:
    """Return the name of a queue, which is unlinked after the test."""
    name = f"/native-{os.getpid()}"
    yield name
    ipcq.unlink(name, "shm")


@pytest.fixture
def opened(name: str) -> Iterator[Open]:
    """Return a function that opens handles to one queue, by default of 1 MiB."""
    handles: list[Handle] = []

    def opened(**options: Any) -> Handle:
        if "type" in options or options.get("serializer") == "msgspec":
            pytest.importorskip("msgspec", reason="types cannot be used here without msgspec")
        handles.append(ipcq.open(name, "shm", **options))
        return handles[-1]

    yield opened
    while handles:
        handles.pop().close()


@pytest.fixture
def open_in_python(opened: Open, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Return a function that opens handles whose calls are all in Python."""

    def open_in_python(**options: Any) -> Handle:
        monkeypatch.setenv("IPCQ_SHORTCUTS", "0")
        try:
            return opened(**options)
        finally:
            monkeypatch.delenv("IPCQ_SHORTCUTS")

    return open_in_python


@pytest.fixture
def queue(opened: Open) -> Handle:
    """Return a handle to a new queue of 1 MiB."""
    return opened()


def outcome(call: Callable[[], object]) -> tuple[object, ...]:
    """Return what a call returned or raised, with everything that its caller sees."""
    try:
        return ("returned", call())
    except Exception as error:
        facts = [type(error), str(error), getattr(error, "queue", None), getattr(error, "backend", None)]
        facts += [getattr(error, "data", None), type(error.__cause__), type(error.__context__), str(error.__cause__)]
        return tuple(facts)


def grown_by(call: Callable[[], object], watched: Sequence[object]) -> list[int]:
    """Return how much memory and the reference counts of objects grow with each call; zeros if nothing leaks."""
    times = 500

    def grown() -> list[int]:
        gc.collect()
        counts = [sys.getrefcount(each) for each in watched]
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(times):
            call()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        growth = [sys.getrefcount(each) - seen for each, seen in zip(watched, counts, strict=True)]
        # The smallest object takes 16 bytes. Python's own caches change by less.
        return [max(after - before, 0) // (times * 8), *(max(each, 0) // (times // 2) for each in growth)]

    tracemalloc.start()
    try:
        grown()
        growth = grown()
        # An allocation that Python makes only once may fall into a run. A leak shows in each.
        for _ in range(2):
            if any(growth):
                growth = [min(each) for each in zip(growth, grown(), strict=True)]
        return growth
    finally:
        tracemalloc.stop()
