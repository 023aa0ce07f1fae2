"""Processes that are killed at any call on the file of a pyshm queue, and the state they leave for the others."""

import errno
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

import ipcq
from backends import pyshm, striking
from backends.pyshm import (
    HANG_SECONDS,
    SMALL,
    Handle,
    both_locks,
    create,
    drain,
    forge_state,
    linux,
    read_file,
    read_state,
    with_shmlock,
    write_file,
)
from ipcq_pyshm import _lock, _place
from ipcq_pyshm._layout import CELL, DATA_AT, STATES_AT, Header, place

name, queue = pyshm.name, pyshm.queue

TRIAL = """
def trial(first, second):
    queue = ipcq.open(name, "pyshm", exclusive=True, serializer="raw", max_messages=4, max_message_size=64, **options)
    exec(prepare)
    more = killed(first, begin, act)
    more_again = killed(second, "", repair) if more and second else False
    figures = queue.stats()
    items = []
    while not queue.empty():
        message = queue.get_message()
        items.append([message.item.decode(), message.priority])
    sound = figures.depth == len(items) == figures.puts - figures.gets
    sound = sound and figures.bytes == sum(len(data) for data, _ in items)
    sound = sound and queue.stats().bytes == 0
    if not repair.startswith("queue.shut"):
        while not queue.full():
            queue.put_nowait(bytes(64))
        sound = sound and [queue.get_nowait() for _ in range(4)] == [bytes(64)] * 4
    print(json.dumps([items, sound, figures.recoveries]))
    queue.unlink()
    queue.close()
    return more, more_again
"""

#: Moves the end of the ring into the middle of the next record, so that the record wraps around.
WRAPPED = "\nfor _ in range(3): queue.put_nowait(bytes(50)); queue.get_nowait()\n"
FULL = "for letter in b'abcd': queue.put_nowait(bytes([letter]) * 64)"
RANKED = "for rank, letter in enumerate(b'abcd'): queue.put(bytes([letter]) * 60, priority=rank)"


def kill_at_each_call(name: str, prepare: str, act: str, repair: str = "", **options: Any) -> list[Any]:
    """Kill a process at each call of an act, and one that repairs at each of its calls; return what is found after."""
    return striking.kill_at_each_call(TRIAL, name, prepare, "", act, repair, **options)


KILLED: dict[str, tuple[str, str]] = {
    "put into an empty queue": ("", "queue.put_nowait(b'x' * 64)"),
    "put": ("queue.put_nowait(b'a')", "queue.put_nowait(b'x' * 64)"),
    "put over the end": (WRAPPED, "queue.put_nowait(b'x' * 64)"),
    "put nothing": ("queue.put_nowait(b'a')", "queue.put_nowait(b'')"),
    "get the only one": ("queue.put_nowait(b'a')", "queue.get_nowait()"),
    "get": (FULL, "queue.get_nowait()"),
    "get over the end": (WRAPPED + FULL, "queue.get_nowait()"),
    "put a batch": ("queue.put_nowait(b'a')", "queue.put_many([b'x' * 64, b'y' * 30, b'z'])"),
    "put a batch over the end": (WRAPPED, "queue.put_many([b'x' * 64, b'y' * 30, b'z'])"),
    "put half a batch": (FULL + "\nqueue.get(); queue.get()", "queue.put_many([b'x' * 64, b'y' * 30, b'z'], False)"),
    "clear": (FULL, "queue.clear()"),
}
RANKS: dict[str, tuple[str, str]] = {
    "put the highest": (RANKED + "\nqueue.get()", "queue.put(b'x' * 64, priority=9)"),
    "put between": (RANKED + "\nqueue.get()", "queue.put(b'x' * 64, priority=1)"),
    "put the lowest": (RANKED + "\nqueue.get()", "queue.put_nowait(b'x' * 64)"),
    "get the highest": (RANKED, "queue.get_nowait()"),
    "get the highest of two": (RANKED + "\nqueue.get(); queue.get()", "queue.get_nowait()"),
    "clear": (RANKED, "queue.clear()"),
}


def has_happened_or_not(found: list[Any]) -> None:
    """Expect one state before some instant and another from it on."""
    assert all(sound for _, sound, _ in found)
    items = [items for items, _, _ in found]
    turns = [(one, other) for one, other in pairwise(items) if one != other]
    assert len(turns) == 1, items
    assert len(found) > 5


@pytest.mark.parametrize("act", KILLED)
@both_locks
def test_a_process_killed_at_any_call_has_done_its_step_or_not(name: str, act: str, lock: str) -> None:
    """C15: of a queue without priorities, with torn writes as well."""
    has_happened_or_not(kill_at_each_call(name, *KILLED[act], lock=lock))


@pytest.mark.parametrize("act", KILLED | RANKS)
def test_a_process_killed_at_any_call_has_done_its_step_or_not_with_priorities(name: str, act: str) -> None:
    """C15: of a queue with priorities."""
    has_happened_or_not(kill_at_each_call(name, *(KILLED | RANKS)[act], priorities=True))


@pytest.mark.parametrize("options", [{}, {"priorities": True}, {"leases": True}], ids=["plain", "priorities", "leases"])
@pytest.mark.parametrize("act", ["queue.put(b'x' * 64, drop_oldest=True)", "queue.get_latest()"])
def test_a_process_killed_while_it_drops_loses_nothing_else(name: str, act: str, options: dict[str, Any]) -> None:
    """C15, clauses 43, 44: the others find what was there, without some of the oldest, and perhaps the new message."""
    found = kill_at_each_call(name, FULL, act, **options)
    assert all(sound for _, sound, _ in found)
    before, after = found[0][0], found[-1][0]
    dropped = [4 - len(items) for items, _, _ in found if items != after]
    assert [items for items, _, _ in found if items != after] == [before[count:] for count in dropped]
    assert dropped == sorted(dropped)
    assert after == ([*before[1:], ["x" * 64, 0]] if "put" in act else [])


def test_a_shutdown_killed_at_any_call_has_happened_or_not(name: str) -> None:
    """C15: the same for an immediate shutdown, which drops the messages."""
    found = kill_at_each_call(name, FULL, "queue.shutdown(immediate=True)", "queue.shutdown(immediate=True)")
    assert {len(items) for items, _, _ in found} == {0, 4}
    assert all(sound for _, sound, _ in found)


@pytest.mark.parametrize("act", ["put the highest", "get the highest"])
def test_a_process_that_repairs_may_be_killed_at_any_call_too(name: str, act: str) -> None:
    """C15: entries that a dead process was moving are moved again, as often as it takes."""
    found = kill_at_each_call(name, *RANKS[act], "queue.peek()", priorities=True)
    assert all(sound for _, sound, _ in found)
    assert len({str(items) for items, _, _ in found}) == 2
    assert {recoveries for _, _, recoveries in found} == {0, 1, 2}  # 2 if the repair was killed as well


@with_shmlock
def test_a_block_that_a_dead_process_left_is_counted_as_a_recovery(name: str) -> None:
    """C15, C25: stats counts how often a queue was repaired."""
    assert 1 in {
        recoveries
        for *_, recoveries in kill_at_each_call(name, "", "queue.put_nowait(b'a')", "queue.clear()", lock="shmlock")
    }


def test_a_batch_under_way_is_all_or_nothing(name: str) -> None:
    """C9: messages that a batch stores together appear in one commit."""
    found = kill_at_each_call(name, *KILLED["put a batch"])
    assert {len(items) for items, _, _ in found} == {1, 4}


CREATING = """
import os, signal, sys
import ipcq
from ipcq_pyshm import _file, _segment
name, instant = sys.argv[1], int(sys.argv[2])
calls = 0
def struck(call):
    def strike_or_call(*arguments, **named):
        global calls
        calls += 1
        if calls == instant:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **named)
    return strike_or_call
for call in ("open", "link", "unlink", "fchmod", "posix_fallocate", "close", "fstat"):
    setattr(os, call, struck(getattr(os, call)))
_file.pwrite, _file.hold = struck(_file.pwrite), struck(_file.hold)
exec(sys.argv[3])
"""

MAKE = "ipcq.open(name, 'pyshm', exclusive=True, max_messages=4, max_message_size=64{})"


@pytest.mark.parametrize(
    "act",
    [
        MAKE.format(""),
        MAKE.format(", lifetime='last-close'"),
        MAKE.format(", priorities=True") + ".unlink()",
        MAKE.format(", lifetime='last-close'") + ".close()",
    ],
)
def test_a_process_killed_while_it_makes_or_unlinks_a_queue_leaves_the_name_usable(name: str, act: str) -> None:
    """C16: at each call there is a whole queue or none, and nothing else is left."""
    instant = 0
    while True:
        instant += 1
        run = subprocess.run([sys.executable, "-W", "ignore", "-c", CREATING, name, str(instant), act], check=False)
        with ipcq.open(name, "pyshm", **{**SMALL, "priorities": "priorities" in act}) as queue:
            queue.put(b"item")
            assert queue.get(timeout=HANG_SECONDS) == b"item"
            queue.unlink()
        assert not list(Path(_place.directory()).glob(Path(_place.path_of(name)).name + "*"))
        if run.returncode == 0:
            break
        assert run.returncode == -signal.SIGKILL
    assert instant > 10


def test_a_state_torn_by_a_dead_process_is_a_recovery(queue: Handle, name: str) -> None:
    """C15, C25: the step that overwrites it counts it."""
    queue.put(b"x")
    state = read_state(name)
    state.sequence += 1
    write_file(name, place(state.sequence), state.packed()[:60])
    assert queue.stats().recoveries == 0
    assert queue.get() == b"x"
    assert queue.stats().recoveries == 1


def test_a_redo_record_is_applied(name: str) -> None:
    """C15: once, by the first process that finds it, and counted."""
    with create(name, priorities=True) as queue:
        queue.put(b"low")
        queue.put(b"high", priority=1)
        order = queue._channel._order
        raw = CELL.pack(0, *order._entry(1))
        write_file(name, DATA_AT, raw)
        forge_state(name, redo=1 << 32 | crc32(raw))
        assert queue.peek() == b"low"
        assert queue.stats().recoveries == 1
        assert read_state(name).redo == 0


# Inside shmlock's lock


@with_shmlock
def test_an_empty_block_that_was_left_is_removed(name: str) -> None:
    """C15: shmlock alone would wait for it forever; here it is removed and counted."""
    with create(name, lock="shmlock") as queue:
        Path("/dev/shm", queue._channel._lock._name).touch()
        queue.put(b"x")
        assert queue.stats().recoveries == 1
        assert drain(queue) == [b"x"]


DIE_INSIDE = """
import os, signal, sys
import ipcq
from ipcq_pyshm._channel import PyshmChannel
queue = ipcq.open(sys.argv[1], "pyshm", lock="shmlock", lifetime=sys.argv[2], serializer="raw")
PyshmChannel._put = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
queue.put(b"x")
"""


def kill_holder(name: str, lifetime: str) -> Path:
    """Kill a process that holds the lock, and return the block that it leaves."""
    child = subprocess.run([sys.executable, "-c", DIE_INSIDE, name, lifetime], check=False)
    assert child.returncode == -signal.SIGKILL
    block = Path("/dev/shm", f"ipcqlock-{Header.of(read_file(name)[:STATES_AT], 0).lock_name.hex()}")
    assert block.exists()
    return block


@with_shmlock
@linux
@pytest.mark.parametrize("lifetime", ["persistent", "last-close"])
@pytest.mark.parametrize("end", [lambda queue: ipcq.unlink(queue.name, "pyshm"), Handle.close], ids=["unlink", "close"])
def test_the_block_of_a_killed_holder_goes_with_its_queue(
    name: str, end: Callable[[Handle], None], lifetime: Any
) -> None:
    """C15, clause 5: also if no later step finds it."""
    with create(name, lock="shmlock", lifetime=lifetime) as queue:
        block = kill_holder(name, lifetime)
        end(queue)
        assert not block.exists()


@with_shmlock
@linux
def test_the_block_of_a_killed_last_holder_is_removed(name: str) -> None:
    """C15, clause 5: the process that finds no holder removes the block with the file."""
    block = kill_holder(name, "last-close")
    assert not ipcq.exists(name, "pyshm")
    assert not block.exists()


@with_shmlock
@linux
def test_the_block_of_a_living_process_stays_after_an_unlink(name: str) -> None:
    """C14: its step is under way, and it removes the block itself."""
    with create(name, lock="shmlock") as queue:
        lock = queue._channel._lock
        lock.acquire()
        assert Path("/dev/shm", lock._name).exists()
        ipcq.unlink(name, "pyshm")
        assert Path("/dev/shm", lock._name).exists()
        lock.release()
        assert not Path("/dev/shm", lock._name).exists()


@with_shmlock
def test_a_block_that_cannot_be_removed_does_not_prevent_an_unlink(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the name is free, so the call has worked."""

    def refuse(block: str) -> None:
        raise PermissionError(errno.EPERM, block)

    with create(name, lock="shmlock"):
        with monkeypatch.context() as context:
            context.setattr(_lock, "_unlink", refuse)
            ipcq.unlink(name, "pyshm")
        assert not ipcq.exists(name, "pyshm")
