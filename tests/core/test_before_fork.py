"""Channels that prepare for a fork, because the state of their library must not cross it."""

import gc
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import ipcq
from core.conftest import HANG, Installed, Run
from core.fakes import FakeBackend, FakeChannel
from ipcq._handle import lifecycle as _lifecycle
from ipcq._process import forks
from ipcq.backend import Channel, NativeRLock, Request, belongs
from ipcq.errors import QueueClosed

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    # From Python 3.12 on os.fork warns in a process with threads.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


class Connected(FakeChannel):
    """A channel that drops its connection before a fork, as a client of a database must."""

    during: Callable[[], object] = staticmethod(lambda: None)

    def connect(self) -> None:
        self.lock = NativeRLock()
        self.told: list[str] = []
        self.connected = True
        belongs(self)

    def before_fork(self) -> None:
        self.during()
        self.lock.acquire()
        self.connected = False
        self.told.append("before")

    def after_fork_in_parent(self) -> None:
        self.told.append("in parent")
        self.lock.release()

    def after_fork(self) -> bool:
        self.told.append("in child")
        return False


class ConnectedBackend(FakeBackend):
    def _channel(self, name: str, request: Request) -> FakeChannel:
        channel = super()._channel(name, request)
        channel.__class__ = Connected
        assert isinstance(channel, Connected)
        channel.connect()
        return channel


@pytest.fixture
def backend(installed: Installed) -> ConnectedBackend:
    backend = ConnectedBackend("connected")
    installed.backend(backend)
    return backend


@pytest.fixture
def queue(backend: ConnectedBackend, name: str) -> Iterator["ipcq.Queue[int]"]:
    with ipcq.open(name, "connected") as queue:
        yield queue


@pytest.fixture
def channel(queue: "ipcq.Queue[int]", backend: ConnectedBackend) -> Connected:
    channel = backend.channels[0]
    assert isinstance(channel, Connected)
    return channel


def forked(act: Callable[[], object]) -> str:
    """Call a function in a forked child and return its result or exception as text."""
    there, here = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            signal.alarm(int(HANG))
            text = str(act())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(here, text.encode())
        os._exit(0)
    os.close(here)
    with open(there, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


def test_a_channel_is_called_before_and_after_a_fork(channel: Connected) -> None:
    """Clause 17: in the parent, both calls are made, in this order."""
    forked(lambda: None)
    assert channel.told == ["before", "in parent"]


def test_the_channel_in_a_child_is_called_before_the_fork_and_after_it(channel: Connected) -> None:
    """Clause 17: the connection that was dropped before the fork is absent in the child too."""
    assert forked(lambda: (channel.told, channel.connected)) == "(['before', 'in child'], False)"


def test_a_lock_that_is_held_during_the_fork_keeps_threads_out(channel: Connected) -> None:
    """Clause 17: no thread connects again before the fork is over."""
    told: list[list[str]] = []

    def reconnect() -> None:
        with channel.lock:
            told.append(list(channel.told))

    thread = threading.Thread(target=reconnect)
    with channel.lock:
        thread.start()
        forked(lambda: None)
    thread.join(HANG)
    assert told == [["before", "in parent"]]


def test_a_channel_that_another_thread_opens_during_a_fork_prepares(
    channel: Connected, backend: ConnectedBackend, name: str
) -> None:
    """Clause 17: even if it is recorded after all others have prepared."""

    def open_another() -> None:
        if len(backend.channels) == 1:
            thread = threading.Thread(target=lambda: handles.append(ipcq.open(name, "connected")))
            thread.start()
            thread.join(HANG)

    handles: list[ipcq.Queue[int]] = []
    channel.during = open_another
    try:
        connected = forked(lambda: [getattr(each, "connected", None) for each in backend.channels])
    finally:
        handles[0].close()
    assert connected == "[False, False]"


def test_a_channel_that_is_not_recorded_is_called_by_its_handle(
    installed: Installed, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 17: `belongs` is only for forks while a channel is being opened."""
    told: list[object] = []
    monkeypatch.setattr(Connected, "before_fork", lambda channel: told.append(channel) or channel.lock.acquire())
    backend = FakeBackend("plain")
    monkeypatch.setattr(FakeBackend, "_channel", lambda self, name, request: _unrecorded(self, request))
    installed.backend(backend)
    with ipcq.open(name, "plain"):
        forked(lambda: None)
    assert len(told) == 1


def _unrecorded(backend: FakeBackend, request: Request) -> Channel:
    channel = Connected(next(iter(backend.queues.values())), backend.capabilities)
    channel.lock, channel.told = NativeRLock(), []
    return channel


class _Fails(Exception):
    pass


def _fail() -> None:
    raise _Fails


@pytest.fixture
def failing(channel: Connected) -> Iterator[Connected]:
    channel.during = _fail
    yield channel
    channel.during = lambda: None


unraisable = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@unraisable
def test_a_handle_that_could_not_prepare_is_closed_in_the_child(failing: Connected, queue: "ipcq.Queue[int]") -> None:
    """C20: it raises QueueClosed with the way out."""
    assert "a call on the queue was in progress when this process was forked" in forked(queue.qsize)


@unraisable
def test_a_queue_that_could_not_be_prepared_is_not_opened_in_the_child(failing: Connected, name: str) -> None:
    """C20: a new connection would find the state of the old one."""
    assert 'start processes with "spawn"' in forked(lambda: ipcq.open(name, "connected"))


@unraisable
def test_another_queue_can_be_opened_in_a_child_whose_parent_could_not_prepare(failing: Connected, name: str) -> None:
    """C20: other queues are not affected."""
    assert forked(lambda: ipcq.open(name + "-other", "connected").qsize()) == "0"


@unraisable
def test_a_channel_that_could_not_prepare_is_not_called_after_the_fork(failing: Connected) -> None:
    """Clause 17: it has prepared nothing, so there is nothing to undo."""
    forked(lambda: None)
    assert failing.told == []


@unraisable
def test_a_channel_that_cannot_prepare_does_not_stop_others(
    failing: Connected, backend: ConnectedBackend, name: str
) -> None:
    """Clause 17: each channel is called."""
    with ipcq.open(name + "-other", "connected") as other:
        assert "queues of this backend do not cross a fork" in forked(other.qsize)


@unraisable
def test_an_exception_after_a_fork_does_not_block_the_next_fork(
    channel: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 17: the second fork works like the first."""
    monkeypatch.setattr(Connected, "after_fork_in_parent", lambda channel: channel.lock.release() or _fail())
    assert [forked(os.getppid) for _ in range(2)] == [str(os.getpid())] * 2


@unraisable
def test_a_queue_whose_opening_could_not_prepare_is_not_opened_in_the_child(
    backend: ConnectedBackend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C20, C35: its name is unknown, so the child opens none of the names that were being opened."""
    said: list[str] = []

    def fork(_: str) -> None:
        channel = Connected(backend.queues[name], backend.capabilities)
        channel.during = _fail
        channel.connect()
        backend.on_attach = lambda _: None
        said.append(forked(lambda: ipcq.open(name, "connected")))
        forks._channels.discard(channel)

    ipcq.open(name, "connected").close()
    backend.on_attach = fork
    ipcq.open(name, "connected").close()
    assert said[0].startswith("QueueClosed: ")


def test_a_fork_waits_until_a_concurrent_fork_is_over(channel: Connected) -> None:
    """C20: two forks that take the locks of several channels at the same time could deadlock."""
    asked = threading.Event()
    overlapped: list[bool] = []

    def during() -> None:
        if threading.current_thread() is threading.main_thread():
            thread.start()
            overlapped.append(asked.wait(0.2))
        else:
            asked.set()

    channel.during = during
    thread = threading.Thread(target=lambda: forked(lambda: None))
    forked(lambda: None)
    thread.join(HANG)
    assert (overlapped, asked.is_set()) == ([False], True)


FORKS_DURING_A_FORK = """
from core.fakes import HOST, FakeQueue
from core.test_before_fork import Connected, forked
from ipcq._process import forks
from ipcq.backend import Request

channel = Connected(FakeQueue(Request()), HOST)
with forks.opening:
    channel.connect()
inner = []

def fork():
    channel.during = lambda: None
    inner.append(forked(lambda: channel.connected))

channel.during = fork
outer = forked(lambda: channel.connected)
free = channel.lock.acquire(blocking=False) and not channel.lock.release()
print(inner, outer, channel.told[-1], free)
"""


def test_a_fork_in_a_handler_during_a_fork_is_prepared_too(run: Run) -> None:
    """C20: it takes the locks that the outer fork holds again, and releases them as often.

    It needs a new process: `concurrent.futures` holds a lock during a fork that its thread cannot take twice.
    """
    assert run(FORKS_DURING_A_FORK) == "['False'] False in parent True"


def test_a_fork_gives_up_if_new_channels_appear_without_end(
    channel: Connected, backend: ConnectedBackend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A superfluous descriptor in the child is better than a fork that never happens."""
    monkeypatch.setattr(forks, "_TIMEOUT_SECONDS", 0.0)
    monkeypatch.setattr(forks, "no_fork", NativeRLock())
    others: list[Connected] = []

    def record_another() -> None:
        other = Connected(channel.queue, channel.capabilities)
        other.during = record_another
        with forks.opening:
            other.connect()
        others.append(other)

    channel.during = record_another
    forked(lambda: None)
    for each in (channel, *others):
        each.during = lambda: None
    assert others


def test_a_channel_without_preparation_is_not_recorded(installed: Installed, name: str) -> None:
    """Most queues need no preparation, and opening and closing them shall cost nothing more."""
    installed.backend(FakeBackend("plain"))
    with ipcq.open(name, "plain") as queue:
        assert queue._channel not in forks._channels


def test_a_closed_channel_is_not_called_at_forks(channel: Connected, queue: "ipcq.Queue[int]") -> None:
    """Clause 16: no call follows `close`."""
    queue.close()
    forked(lambda: None)
    assert channel.told == []


@unraisable
@pytest.mark.parametrize("at", ["before_fork", "after_fork_in_parent"])
def test_an_error_at_a_fork_keeps_no_frame_alive(channel: Connected, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 17: a frame that the fork interrupted may hold what a backend has to close before the next one."""

    def fail() -> None:
        raise QueueClosed

    def interrupted() -> "weakref.ref[threading.Event]":
        held = threading.Event()
        forked(lambda: None)
        return weakref.ref(held)

    monkeypatch.setattr(sys, "unraisablehook", lambda report: None)
    monkeypatch.setattr(channel, at, fail)
    gc.disable()
    try:
        assert interrupted()() is None
    finally:
        gc.enable()


def test_a_handler_that_raises_before_a_fork_begins_leaves_the_next_one_alone() -> None:
    """Python prints the exception and forks all the same; the step after the fork has nothing to undo."""
    forks._after_fork_in_parent()
    assert forked(os.getppid) == str(os.getpid())


def test_a_handle_that_was_closed_by_a_fork_gives_the_reason(queue: "ipcq.Queue[int]") -> None:
    """C20: the text is the same as for opening."""
    queue._abandon(_lifecycle.NOT_PREPARED)
    with suppress(ipcq.QueueEmpty), pytest.raises(QueueClosed, match="a call on the queue was in progress"):
        queue.get_nowait()


@pytest.fixture
def unsafe() -> Iterator[set[str]]:
    before = set(forks.unsafe)
    yield forks.unsafe
    forks.unsafe.intersection_update(before)


def test_no_name_is_unsafe_if_no_channel_has_to_prepare(unsafe: set[str]) -> None:
    """C20: even a name that was being opened at the fork."""
    with forks.Opening("/core-opening"):
        assert (forks.unprepared([], lambda _: False), "/core-opening" in unsafe) == (set(), False)


def test_a_name_being_opened_is_unsafe_if_a_channel_without_a_handle_did_not_prepare(
    channel: Connected, unsafe: set[str]
) -> None:
    """C20, C35: the channel could belong to that name. Here no fork has called it."""
    with forks.Opening("/core-opening"):
        forks.unprepared([], lambda each: each is channel)
    assert "/core-opening" in unsafe


def test_a_handle_and_its_name_are_given_up_if_its_channel_did_not_prepare(
    queue: "ipcq.Queue[int]", channel: Connected, unsafe: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C20: this process takes the first step of a child."""
    # Handles of other tests that are not collected yet must not behave as in a child.
    monkeypatch.setattr(_lifecycle, "_handles", weakref.WeakSet((queue,)))
    monkeypatch.setattr(forks, "_channels", weakref.WeakSet((channel,)))
    monkeypatch.setattr(forks, "_descriptors", set())
    _lifecycle._after_fork()
    with pytest.raises(QueueClosed, match="a call on the queue was in progress"):
        queue.qsize()
    with pytest.raises(QueueClosed, match="a call on the queue was in progress"):
        ipcq.open(queue.name, "connected")
