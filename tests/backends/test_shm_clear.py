"""clear and an immediate shutdown of shm, with unfinished records of dead producers and with a held lock."""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import ipcq
from backends import shm
from backends.shm import attach, create, held_by
from ipcq.testing.contract._bench import HANG

_segment = pytest.importorskip("ipcq_shm._segment")
name, works = shm.name, shm.works

#: A process that nobody can see to be stopped: init.
INIT_PID = 1

# Offsets in a segment, and states of a record (csrc/layout.h).
DATA_OFFSET = 32
RECORD = 16
RESERVED, LARGE = 2, 40000
NOBODY = RESERVED | 4000 << 8 | 7 << 32
"""The word of a record that a producer left unfinished; no process has its slot."""

PRIORITIES = pytest.mark.parametrize("priorities", [False, True], ids=["in turn", "by priority"])
LIMITS: dict[str, Any] = {"max_messages": 4, "max_message_size": LARGE}


@contextmanager
def segment(name: str) -> Iterator[mmap.mmap]:
    """Map the shared memory of a queue, to write into it as a participant does."""
    with open(_segment.path_of(name), "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        yield memory


@contextmanager
def create_with_unfinished_record(name: str) -> Iterator["ipcq.Queue[Any]"]:
    """Create a queue of four records, of which the second was never finished."""
    with create(name, **LIMITS) as queue:
        queue.put(bytes(RECORD))
        queue.put(bytes(LARGE))
        queue.put(b"behind")
        queue.put(b"behind")
        with segment(name) as memory:
            (data,) = struct.unpack_from("=Q", memory, DATA_OFFSET)
            struct.pack_into("=Q", memory, data + 2 * RECORD, NOBODY)
        yield queue


def test_clear_drops_messages_behind_the_record_of_a_dead_producer(name: str) -> None:
    """C37: that record is no message and is not counted; the records behind it are dropped."""
    with create_with_unfinished_record(name) as queue:
        assert (queue.clear(), queue.qsize()) == (3, 0)


def test_an_immediate_shutdown_drops_messages_behind_the_record_of_a_dead_producer(name: str) -> None:
    """C37: no message can be taken afterwards."""
    with create_with_unfinished_record(name) as queue:
        queue.shutdown(immediate=True)
        with pytest.raises(ipcq.QueueShutDown):
            queue.get(timeout=HANG)


@PRIORITIES
def test_clear_reports_a_held_lock(name: str, priorities: bool) -> None:
    """C37: the call does not claim that the queue was empty."""
    with create(name, priorities=priorities) as queue:
        queue.put(b"kept")
        with held_by(queue, INIT_PID, "put", "get"), pytest.raises(ipcq.TimedOutError, match="stopped"):
            queue.clear()
        assert queue.clear() == 1


@PRIORITIES
def test_messages_that_an_immediate_shutdown_could_not_reach_are_dropped_too(name: str, priorities: bool) -> None:
    """C37: no message can be taken later, although a process is stopped inside."""
    with create(name, priorities=priorities) as queue, attach(name) as other:
        queue.put_many([b"dropped", b"dropped"])
        with held_by(queue, INIT_PID, "put", "get"):
            queue.shutdown(immediate=True)
        for call in (other.get, other.get_many, other.get_message):
            with pytest.raises(ipcq.QueueShutDown):
                call(timeout=HANG)


def test_dropped_messages_are_not_counted(name: str) -> None:
    """C37: also if a stopped process keeps the bytes in place."""
    with create(name) as queue:
        queue.put(b"dropped")
        with held_by(queue, INIT_PID, "get"):
            queue.shutdown(immediate=True)
            assert (queue.qsize(), queue.empty(), queue.stats().depth) == (0, True, 0)


def test_dropped_messages_cannot_be_peeked_at(name: str) -> None:
    """C37: peek finds the end, as get does."""
    with create(name) as queue:
        queue.put(b"dropped")
        with held_by(queue, INIT_PID, "get"):
            queue.shutdown(immediate=True)
        with pytest.raises(ipcq.QueueShutDown):
            queue.peek()


def test_a_later_shutdown_revives_no_message(name: str) -> None:
    """C37: a shutdown that lets consumers drain comes too late for dropped messages."""
    with create(name) as queue:
        queue.put(b"dropped")
        with held_by(queue, INIT_PID, "get"):
            queue.shutdown(immediate=True)
        queue.shutdown()
        with pytest.raises(ipcq.QueueShutDown):
            queue.get(timeout=HANG)


def test_a_request_for_a_notice_reports_a_held_lock(name: str) -> None:
    """C37: the error does not claim that another process has registered."""
    with create(name) as queue:
        with held_by(queue, INIT_PID, "put"), pytest.raises(ipcq.TimedOutError, match="stopped"):
            queue.notify(_nothing)
        queue.notify(_nothing)
        with suppress(ipcq.MessageQueueError):
            queue.notify()


def _nothing() -> None:
    """Be a notice that never comes."""
