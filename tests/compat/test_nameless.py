"""Clause 22 of `ipcq.backend`: what the contract suite does not test of nameless queues, and their handles."""

import os
import select
import time
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest

import ipcq
from ipcq._opening import registry
from ipcq._process import forks
from ipcq.backend import Request
from ipcq.compat import _nameless
from ipcq.testing.processes import fresh_name
from processes.needs import usable

pytestmark = pytest.mark.needs("shm")

ABLE = ("shm",)


def described(name: str) -> Any:
    (entry,) = entry_points(group="ipcq.backends", name=name)
    return entry.load().ipcq_backend()


@pytest.fixture(autouse=True)
def works() -> None:
    """Skip if the extension was not built."""
    usable("shm")


@pytest.fixture(params=ABLE)
def backend(request: pytest.FixtureRequest) -> Any:
    return described(request.param)


@pytest.fixture
def pair(backend: Any) -> Iterator[tuple[Any, Any]]:
    """Return two channels to one queue."""
    one = backend.create_nameless(Request(buffer_size=1 << 16))
    other = backend.adopt([os.dup(each) for each in one.descriptors()], Request())
    yield one, other
    one.close()
    other.close()


def test_messages_outlive_the_channel_that_put_them(pair: tuple[Any, Any], backend: Any) -> None:
    """Clause 22: the queue vanishes with its last channel."""
    third = backend.adopt([os.dup(each) for each in pair[0].descriptors()], Request())
    third.try_put(b"left", 0)
    third.close()
    assert pair[1].try_get() == (b"left", 0)


def test_each_channel_is_a_separate_participant(pair: tuple[Any, Any]) -> None:
    """Clause 22: it has other locks than the channel that lent it the descriptors."""
    assert pair[0].shared() and pair[1].shared()


def test_a_nameless_queue_has_the_lifetime_last_close(pair: tuple[Any, Any]) -> None:
    """Clause 22: its attributes show that."""
    assert pair[1].attributes.lifetime == "last-close"


def test_a_nameless_queue_does_not_count_as_unlinked(pair: tuple[Any, Any]) -> None:
    """Clause 22: it still works after the time in which an unlink is noticed."""
    time.sleep(0.3)
    pair[0].try_put(b"x", 0)
    assert pair[1].try_get() == (b"x", 0)


@pytest.mark.parametrize("first", [0, 1])
def test_its_descriptor_is_readable_while_there_is_a_message(pair: tuple[Any, Any], first: int) -> None:
    """Clause 22: on each channel, whichever requested its descriptor first."""
    poll = select.poll()
    poll.register(pair[first].fileno(), select.POLLIN)
    poll.register(pair[1 - first].fileno(), select.POLLIN)
    seen = [len(poll.poll(0))]
    pair[0].try_put(b"x", 0)
    seen.append(len(poll.poll(0)))
    pair[1].try_get()
    seen.append(len(poll.poll(0)))
    assert seen == [0, 2, 0]


def test_a_large_batch_is_put_whole(pair: tuple[Any, Any]) -> None:
    """Clause 22: even if the interpreter's lock is released during the copy."""
    pair[0].try_put_all([bytes(16_000)] * 3)
    assert [len(pair[1].try_get()[0]) for _ in range(3)] == [16_000] * 3


def test_a_child_can_use_an_inherited_queue(backend: Any) -> None:
    """Clauses 17, 22: the child is a participant and has a descriptor."""
    queue = _nameless.create(Request(buffer_size=1 << 16))
    queue.fileno()
    child = os.fork()
    if not child:
        queue.put(b"from the child", timeout=5)
        os._exit(0 if queue.fileno() >= 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    queue.close()


def test_a_child_gives_up_a_channel_without_a_handle(backend: Any) -> None:
    """Clause 17: the parent was about to create its handle, or to close it."""
    with forks.opening:
        channel = backend.create_nameless(Request(buffer_size=1 << 16))
    child = os.fork()
    if not child:
        try:
            channel.qsize()
        except ipcq.QueueClosed:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    channel.close()


def test_a_descriptor_that_is_not_a_doorbell_is_refused(backend: Any) -> None:
    """Clause 22: all descriptors are closed."""
    queue = backend.create_nameless(Request())
    before = os.listdir("/proc/self/fd")
    lent = [os.dup(queue.descriptors()[0]), os.open("/dev/null", os.O_RDONLY)]
    with pytest.raises(ipcq.MessageQueueError):
        backend.adopt(lent, Request())
    after = os.listdir("/proc/self/fd")
    queue.close()
    assert after == before


def test_a_doorbell_is_not_adopted_twice(backend: Any) -> None:
    """Clause 22: the channel already has one."""
    queue = backend.create_nameless(Request())
    with pytest.raises(OSError, match="Invalid argument"):
        queue.adopt_bell(queue.bell)
    queue.close()


def test_a_closed_descriptor_is_refused_as_a_doorbell(backend: Any) -> None:
    """Clause 22: the error is that of the system."""
    queue = backend.create_nameless(Request())
    with pytest.raises(OSError, match="Bad file descriptor"):
        queue.adopt_bell(1000)
    queue.close()


def test_a_descriptor_that_is_not_a_queue_is_refused(backend: Any) -> None:
    """Clause 22: all descriptors are closed."""
    before = os.listdir("/proc/self/fd")
    lent = [os.memfd_create("ipcq"), os.open("/dev/null", os.O_RDONLY)]
    with pytest.raises(ipcq.MessageQueueError):
        backend.adopt(lent, Request())
    assert os.listdir("/proc/self/fd") == before


def test_a_descriptor_that_cannot_be_opened_is_refused(backend: Any) -> None:
    """Clause 22: all descriptors are closed."""
    before = os.listdir("/proc/self/fd")
    read, write = os.pipe()
    os.close(write)
    lent = [os.open("/", os.O_RDONLY), read]
    with pytest.raises(ipcq.MessageQueueError):
        backend.adopt(lent, Request())
    assert os.listdir("/proc/self/fd") == before


def test_a_failed_creation_leaves_no_descriptor(backend: Any) -> None:
    """Clause 22: everything that it opened is closed."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ipcq.InvalidArgument):
        backend.create_nameless(Request(buffer_size=1, max_message_size=1000))
    assert os.listdir("/proc/self/fd") == before


def test_the_descriptors_of_a_queue_with_a_name_are_not_lent(name: str) -> None:
    """Clause 22: others attach by name."""
    channel = described("shm").create(name, Request())
    try:
        with pytest.raises(ipcq.Unsupported):
            channel.descriptors()
    finally:
        channel.close()
        ipcq.unlink(name)


@pytest.fixture
def name() -> str:
    return fresh_name()


# Handles


def test_without_a_usable_backend_the_error_has_every_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each backend has its reason."""

    def refuse(*_: object) -> Any:
        raise ipcq.NoSpace("no memory for it: free some")

    monkeypatch.setattr(type(registry.backend("shm")), "create_nameless", refuse)
    with pytest.raises(ipcq.BackendUnavailable) as caught:
        _nameless.create(Request())
    assert "no memory" in caught.value.reasons["shm"]


def test_without_a_backend_with_the_capability_creation_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the command that lists backends."""
    monkeypatch.setattr(registry, "able", lambda _: [])
    with pytest.raises(ipcq.BackendUnavailable, match="ipcq backends"):
        _nameless.create(Request())


def test_unlinking_a_nameless_queue_does_nothing() -> None:
    """The handle still works."""
    queue = _nameless.create(Request())
    queue.unlink()
    queue.put(b"x")
    assert queue.get() == b"x"


def test_a_handle_without_a_name_is_collected_without_a_warning() -> None:
    """The queues that it replaces do not warn either; warnings are errors here."""
    queue = _nameless.create(Request())
    assert repr(queue) == "<ipcq.Queue '(nameless)' on 'shm', open>"


def test_descriptors_that_arrived_are_closed_if_others_do_not() -> None:
    """C17: one descriptor has arrived, and another cannot."""

    class Travelling:
        def __init__(self, descriptor: int) -> None:
            self.descriptor = descriptor

        def detach(self) -> int:
            if self.descriptor < 0:
                raise EOFError
            return self.descriptor

    before = os.listdir("/proc/self/fd")
    come = [Travelling(os.open("/dev/null", os.O_RDONLY)), Travelling(-1)]
    with pytest.raises(EOFError), _nameless.arrived(come):
        pass
    assert os.listdir("/proc/self/fd") == before
