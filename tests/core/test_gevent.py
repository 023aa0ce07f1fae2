"""Detecting gevent and waiting in its event loop; tests/aio/test_gevent.py runs programs under the real one."""

import importlib
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import ipcq
from ipcq._handle import waits as _cooperation
from ipcq._handle.waits import Descriptor, GeventWaits, waits_of
from ipcq._process import gevent as _gevent
from ipcq._process.gevent import NativeThread, has_patched, is_in_hub, is_this_thread, original
from ipcq.testing.processes import fresh_name

SOON = 5.0


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Pretend that gevent has patched everything."""
    monkey = SimpleNamespace(
        is_module_patched=lambda module: True,
        get_original=lambda module, attribute: getattr(importlib.import_module(module), attribute),
    )
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)
    return monkey


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that gevent is not imported."""
    monkeypatch.delitem(sys.modules, "gevent.monkey", raising=False)


def test_nothing_is_patched_without_gevent(without: None) -> None:
    """Then the standard library's functions are the originals."""
    assert not has_patched("select")
    assert not is_in_hub()
    assert original("time", "sleep") is time.sleep


def test_the_original_comes_from_gevent(patched: SimpleNamespace) -> None:
    """gevent keeps what it has replaced."""
    patched.get_original = lambda module, attribute: (module, attribute)
    assert has_patched("select")
    assert original("time", "sleep") == ("time", "sleep")


def test_the_hub_is_recognized(patched: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the current greenlet."""
    hub = object()
    gevent = SimpleNamespace(getcurrent=lambda: hub, get_hub=lambda: hub)
    monkeypatch.setitem(sys.modules, "gevent", gevent)
    assert is_in_hub()
    gevent.getcurrent = object
    assert not is_in_hub()


@pytest.mark.needs("memory")
def test_closing_in_the_hub_does_not_wait_for_calls(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`close` returns, and the last call closes the channel."""
    from ipcq._handle import lifecycle as _lifecycle

    with ipcq.open(fresh_name(), memory) as queue:

        def wait() -> None:
            with pytest.raises(ipcq.QueueClosed):
                queue.get()

        waiting = threading.Thread(target=wait)
        waiting.start()
        while not queue._calls:
            time.sleep(0.001)
        monkeypatch.setattr(_lifecycle, "is_in_hub", lambda: True)
        queue.close()
        waiting.join()
        assert not queue._unclosed
        queue.unlink()


@pytest.mark.parametrize("environment", ["without", "patched"])
@pytest.mark.parametrize("timeout", [None, SOON])
def test_a_native_thread_runs_and_ends(timeout: float | None, environment: str, request: pytest.FixtureRequest) -> None:
    """Under gevent, the unpatched call starts it."""
    request.getfixturevalue(environment)
    seen: list[bool] = []
    thread = NativeThread(target=lambda: seen.append(is_this_thread(thread)), daemon=True)
    thread.start()
    thread.join(timeout)
    assert seen == [True]
    assert not is_this_thread(thread)


def test_joining_a_native_thread_ends_at_the_timeout(patched: SimpleNamespace) -> None:
    """The thread goes on."""
    going = threading.Event()
    thread = NativeThread(target=going.wait, daemon=True)
    thread.start()
    thread.join(0.01)
    assert not thread._over.acquire(blocking=False)
    going.set()
    thread.join()


def test_a_handle_that_is_opened_under_gevent_waits_cooperatively(patched: SimpleNamespace, memory: str) -> None:
    """The kind of wait is chosen at opening."""
    with ipcq.open(fresh_name(), memory) as queue:
        assert isinstance(waits_of(queue._channel), GeventWaits)
        assert isinstance(queue._waits, GeventWaits)
        queue.unlink()


def test_a_missing_descriptor_is_not_requested_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may take long."""
    asked: list[int] = []
    monkeypatch.setattr(_cooperation, "_RETRY_SECONDS", 0.05)
    descriptor = Descriptor(lambda: asked.append(1))
    assert descriptor() is None
    assert descriptor() is None
    assert len(asked) == 1
    time.sleep(0.06)
    assert descriptor() is None
    assert len(asked) == 2


class Ends:
    """The part of a channel that waiting needs."""

    def __init__(self, end: socket.socket, *, pollable: bool = True) -> None:
        self._end = end
        self._pollable = pollable

    def fileno(self) -> int:
        if not self._pollable:
            raise ipcq.Unsupported
        return self._end.fileno()

    def space_fileno(self) -> int | None:
        return self._end.fileno() if self._pollable else None


def waited(channel: Any, verb: str, seconds: float) -> float:
    """Return how long a wait takes."""
    waits = GeventWaits(channel)
    began = time.monotonic()
    arguments = () if verb == "wait_readable" else (1,)
    getattr(waits, verb)(*arguments, began, began + seconds)
    return time.monotonic() - began


class Watcher:
    """Stands in for a watcher of gevent's event loop."""

    def __init__(self, loop: "Loop", *what: Any) -> None:
        self.what = what
        self.loop = loop
        self.callback: Callable[[None], object] = lambda _: None

    def start(self, callback: Callable[[None], object], argument: None) -> None:
        self.callback = callback
        self.loop.active.append(self)

    def stop(self) -> None:
        self.loop.active.remove(self)

    def close(self) -> None:
        self.loop.closed += 1


class Loop:
    """Stands in for gevent's hub and its event loop: switching greenlets would confuse the coverage measurement."""

    def __init__(self) -> None:
        self.loop = self
        self.active: list[Watcher] = []
        self.closed = 0

    def io(self, descriptor: int, event: int) -> Watcher:
        return Watcher(self, descriptor, event)

    def timer(self, seconds: float) -> Watcher:
        return Watcher(self, seconds)

    def run(self) -> None:
        ready, timer = self.active
        descriptor, event = ready.what
        readers, writers = ([descriptor], []) if event == 1 else ([], [descriptor])
        happened = any(select.select(readers, writers, [], *timer.what))
        (ready if happened else timer).callback(None)


class Waiter:
    def __init__(self, hub: Loop) -> None:
        self._hub = hub
        self.switched = False

    def switch(self, _: None) -> None:
        self.switched = True

    def get(self) -> None:
        self._hub.run()
        assert self.switched


@pytest.fixture
def event_loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    hub = SimpleNamespace(get_hub=lambda: loop, Waiter=Waiter)
    monkeypatch.setitem(sys.modules, "gevent", SimpleNamespace(hub=hub))
    monkeypatch.setitem(sys.modules, "gevent.hub", hub)
    return loop


@pytest.mark.parametrize("verb", ["wait_readable", "wait_writable"])
def test_a_wait_ends_with_the_event(verb: str, event_loop: Loop) -> None:
    """It leaves no watcher."""
    one, other = socket.socketpair()
    with one, other:
        other.send(b"x")
        assert waited(Ends(one), verb, SOON) < SOON
    assert (event_loop.active, event_loop.closed) == ([], 2)


def test_a_wait_ends_at_the_deadline(event_loop: Loop) -> None:
    """No event happens before."""
    one, other = socket.socketpair()
    with one, other:
        assert waited(Ends(one), "wait_readable", 0.05) >= 0.04
    assert (event_loop.active, event_loop.closed) == ([], 2)


@pytest.mark.parametrize("verb", ["wait_readable", "wait_writable"])
def test_without_a_descriptor_a_wait_is_a_pause(verb: str) -> None:
    """It is short."""
    one, other = socket.socketpair()
    with one, other:
        assert waited(Ends(one, pollable=False), verb, SOON) < SOON


def test_backends_can_import_these_functions() -> None:
    """`ipcq.backend` exports them."""
    from ipcq import backend

    assert (backend.NativeThread, backend.is_this_thread, backend.original) == (
        _gevent.NativeThread,
        _gevent.is_this_thread,
        _gevent.original,
    )
