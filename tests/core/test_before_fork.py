"""Channels over libraries whose state must not cross a fork."""

import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import ipcq
from core.conftest import HANG, Installed, Run
from core.fakes import FakeBackend, FakeChannel
from ipcq._handle import handle as _handle
from ipcq._process import forks
from ipcq.backend import Channel, NativeRLock, Request, belongs
from ipcq.errors import QueueClosed

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    # From Python 3.12 on os.fork warns in a process with threads.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


class Connected(FakeChannel):
    """A channel that gives up its connection before a fork, as one to a database has to."""

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
    """Return what a forked child's function returned or raised, as text."""
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


def test_a_channel_is_told_before_a_fork_and_after_it(channel: Connected) -> None:
    """Clause 17: in the parent both, in this order."""
    forked(lambda: None)
    assert channel.told == ["before", "in parent"]


def test_a_childs_channel_is_told_before_the_fork_and_in_the_child(channel: Connected) -> None:
    """Clause 17: what was given up is given up in the child too."""
    assert forked(lambda: (channel.told, channel.connected)) == "(['before', 'in child'], False)"


def test_a_lock_that_is_kept_over_the_fork_keeps_threads_out(channel: Connected) -> None:
    """Clause 17: no thread takes up again what was given up before the fork is over."""
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


def test_a_channel_that_another_thread_opens_meanwhile_is_told(
    channel: Connected, backend: ConnectedBackend, name: str
) -> None:
    """Clause 17: also the one that is recorded when the fork has asked all others already."""

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


def test_a_channel_that_is_not_recorded_is_told_by_its_handle(
    installed: Installed, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 17: `belongs` is for what happens while a channel is opened."""
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
    """C20: it raises QueueClosed, which says what to do."""
    assert "a call on the queue was in progress when this process was forked" in forked(queue.qsize)


@unraisable
def test_a_queue_that_could_not_be_prepared_is_not_opened_in_the_child(failing: Connected, name: str) -> None:
    """C20: a second connection would find the state of the first."""
    assert 'start processes with "spawn"' in forked(lambda: ipcq.open(name, "connected"))


@unraisable
def test_another_queue_can_be_opened_in_a_child_whose_parent_could_not_prepare(failing: Connected, name: str) -> None:
    """C20: the other queues have nothing to do with it."""
    assert forked(lambda: ipcq.open(name + "-other", "connected").qsize()) == "0"


@unraisable
def test_a_channel_that_could_not_prepare_is_not_told_of_the_fork(failing: Connected) -> None:
    """Clause 17: it has changed nothing, so there is nothing to end."""
    forked(lambda: None)
    assert failing.told == []


@unraisable
def test_a_channel_that_cannot_prepare_keeps_no_other_from_it(
    failing: Connected, backend: ConnectedBackend, name: str
) -> None:
    """Clause 17: each is asked."""
    with ipcq.open(name + "-other", "connected") as other:
        assert "queues of this backend do not cross a fork" in forked(other.qsize)


@unraisable
def test_what_is_raised_after_a_fork_keeps_no_fork_out(channel: Connected, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 17: the next one is as the first."""
    monkeypatch.setattr(Connected, "after_fork_in_parent", lambda channel: channel.lock.release() or _fail())
    assert [forked(os.getppid) for _ in range(2)] == [str(os.getpid())] * 2


@unraisable
def test_what_was_being_opened_and_could_not_prepare_is_not_opened_in_the_child(
    backend: ConnectedBackend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C20, C35: nobody knows which name it was, so none of those that were being opened can be."""
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


def test_a_fork_waits_until_another_has_prepared(channel: Connected) -> None:
    """C20: two that take the locks of several channels at a time could wait for one another."""
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


def test_a_handler_that_forks_during_a_fork_is_prepared_for_as_well(run: Run) -> None:
    """C20: it takes the locks that the outer fork has, and gives back its own.

    In a process of its own: `concurrent.futures` holds a lock over a fork that its thread cannot take twice.
    """
    assert run(FORKS_DURING_A_FORK) == "['False'] False in parent True"


def test_a_fork_gives_up_on_channels_that_come_without_end(
    channel: Connected, backend: ConnectedBackend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor too many in a child is better than a fork that never comes."""
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


def test_no_handle_of_a_plain_channel_is_recorded(installed: Installed, name: str) -> None:
    """Opening and closing most queues costs no more than before."""
    installed.backend(FakeBackend("plain"))
    with ipcq.open(name, "plain") as queue:
        assert queue._channel not in forks._channels


def test_a_closed_channel_is_not_told_of_forks(channel: Connected, queue: "ipcq.Queue[int]") -> None:
    """Clause 16: no call follows its close."""
    queue.close()
    forked(lambda: None)
    assert channel.told == []


def test_a_handler_that_raises_before_a_fork_begins_leaves_the_next_one_alone() -> None:
    """Python shows the exception and forks, and what ends a fork has nothing to end."""
    forks._after_fork_in_parent()
    assert forked(os.getppid) == str(os.getpid())


def test_a_closed_handle_says_in_the_child_why(queue: "ipcq.Queue[int]") -> None:
    """C20: the text of the refusal is the one that opening gives."""
    queue._give_up(_handle.NOT_PREPARED)
    with suppress(ipcq.QueueEmpty), pytest.raises(QueueClosed, match="a call on the queue was in progress"):
        queue.get_nowait()


@pytest.fixture
def unsafe() -> Iterator[set[str]]:
    before = set(forks.unsafe)
    yield forks.unsafe
    forks.unsafe.intersection_update(before)


def test_nothing_is_unsafe_where_nothing_has_to_be_prepared(unsafe: set[str]) -> None:
    """C20: whatever was being opened at the fork."""
    with forks.Opening("/core-opening"):
        assert (forks.unprepared([], lambda _: False), "/core-opening" in unsafe) == (set(), False)


def test_what_was_being_opened_is_unsafe_where_a_channel_of_nobody_was_not_prepared(
    channel: Connected, unsafe: set[str]
) -> None:
    """C20, C35: as here, where no fork has asked."""
    with forks.Opening("/core-opening"):
        forks.unprepared([], lambda each: each is channel)
    assert "/core-opening" in unsafe


def test_a_handle_and_its_name_are_given_up_where_its_channel_was_not_prepared(
    queue: "ipcq.Queue[int]", channel: Connected, unsafe: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """C20: done in this process, as the first thing in a child."""
    # The handles of other tests, which the collector may not have met yet, are not to act as in a child.
    monkeypatch.setattr(_handle, "_handles", weakref.WeakSet((queue,)))
    monkeypatch.setattr(forks, "_channels", weakref.WeakSet((channel,)))
    monkeypatch.setattr(forks, "_descriptors", set())
    _handle._after_fork()
    with pytest.raises(QueueClosed, match="a call on the queue was in progress"):
        queue.qsize()
    with pytest.raises(QueueClosed, match="a call on the queue was in progress"):
        ipcq.open(queue.name, "connected")
