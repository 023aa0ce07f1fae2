"""Clauses 43 and 44: what a handle does around a put that drops and a get of the newest message."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import ipcq
from ipcq.backend import Holder
from ipcq.testing.processes import fresh_name

pytestmark = pytest.mark.needs("memory")

Queue = ipcq.Queue[Any]


@pytest.fixture
def queue() -> Iterator[Queue]:
    """Return a handle to a queue of two messages."""
    name = fresh_name()
    with ipcq.open(name, "memory", max_messages=2) as queue:
        yield queue
    ipcq.unlink(name, "memory")


def keep_one(queue: Queue, item: object) -> None:
    """Let the handle keep a message that did not fit into memory when it was decoded."""
    decode = queue._decode

    def fail(_: object) -> Any:
        queue._decode = decode
        raise MemoryError

    queue.put(item)
    queue._decode = fail
    with pytest.raises(MemoryError):
        queue.get_latest(timeout=0)


def test_a_message_that_the_handle_keeps_is_older(queue: Queue) -> None:
    """C36: a newer one replaces it."""
    keep_one(queue, "old")
    queue.put("new")
    assert queue.get_latest(timeout=0) == "new"
    with pytest.raises(ipcq.QueueEmpty):
        queue.get(timeout=0)


@pytest.mark.parametrize("ended", [False, True])
def test_a_message_that_the_handle_keeps_is_not_lost(queue: Queue, ended: bool) -> None:
    """C36: it is the newest if the queue is empty, or has ended."""
    keep_one(queue, "old")
    if ended:
        queue.shutdown()
    assert queue.get_latest(timeout=0) == "old"
    with pytest.raises(ipcq.QueueShutDown if ended else ipcq.QueueEmpty):
        queue.get_latest(timeout=0)


def test_busy_is_not_full(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """C11: the error names the process that holds the lock."""
    holder = Holder(pid=7, name="python", stopped=True, seconds=3.0)
    monkeypatch.setattr(queue._channel, "try_put_dropping", lambda *_: None)
    monkeypatch.setattr(queue._channel, "holder", lambda _: holder)
    with pytest.raises(ipcq.QueueFull, match="it may have space, but"):
        queue.put("item", drop_oldest=True)


def test_a_full_queue_without_leases_says_that_nothing_may_be_dropped(queue: Queue) -> None:
    """Clause 43: no priorities are needed for that, if another process has taken what was there."""
    queue.put_many([1, 2])
    queue._channel.try_put_dropping = lambda *_: None  # type: ignore[method-assign]  # as if nothing may be dropped
    with pytest.raises(ipcq.QueueFull, match="too few ready messages of at most this priority"):
        queue.put("item", drop_oldest=True)


def test_the_rights_of_the_handle_count(queue: Queue) -> None:
    """C27: a handle that only reads cannot drop to put, and one that only writes cannot take."""
    with ipcq.open(queue.name, "memory", create=False, write=False) as reader, pytest.raises(ipcq.PermissionDenied):
        reader.put("item", drop_oldest=True)
    with ipcq.open(queue.name, "memory", create=False, read=False) as writer, pytest.raises(ipcq.PermissionDenied):
        writer.get_latest(timeout=0)


def test_a_closed_handle_drops_nothing(queue: Queue) -> None:
    """C14: both calls raise QueueClosed."""
    other = ipcq.open(queue.name, "memory", create=False)
    other.close()
    for call in (lambda: other.put("item", drop_oldest=True), lambda: other.get_latest(timeout=0)):
        with pytest.raises(ipcq.QueueClosed):
            call()


def test_a_put_that_drops_into_the_empty_queue_gives_notice() -> None:
    """Clause 43: as any put does; one that replaces a message need not."""
    name, called = fresh_name(), threading.Event()
    with ipcq.open(name, "memory", max_messages=1) as queue:
        queue.notify(called.set)
        assert queue.put("item", drop_oldest=True) == 0
        assert called.wait(10)
    ipcq.unlink(name, "memory")
