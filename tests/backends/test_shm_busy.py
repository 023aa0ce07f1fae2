"""A process that is stopped inside a queue of shm: errors, statistics and doctor name it."""

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ipcq
from backends import shm
from backends.shm import create, held_by
from ipcq.testing.oracle import HELD_UP
from ipcq_shm import ShmBackend, _segment

works, name, stopped = shm.works, shm.name, shm.stopped


@pytest.mark.parametrize("priorities", [False, True])
@pytest.mark.parametrize(
    "put",
    [
        lambda queue: queue.put(b"item", block=False),
        lambda queue: queue.put(b"item", timeout=0.05),
        lambda queue: queue.put_many([b"item"], timeout=0.05),
    ],
)
def test_a_put_blocked_by_a_stopped_process_names_it(
    name: str, stopped: int, priorities: bool, put: Callable[["ipcq.Queue[Any]"], object]
) -> None:
    """C11: the queue has space, so the error does not claim that it is full."""
    full = pytest.raises(ipcq.QueueFull, match=rf"it may have space, but process {stopped} .*kill -CONT {stopped}")
    with create(name, priorities=priorities) as queue, held_by(queue, stopped, "put"), full:
        put(queue)


@pytest.mark.parametrize(("priorities", "side"), [(False, "get"), (True, "put")])
def test_a_peek_blocked_by_a_stopped_process_names_it(name: str, stopped: int, priorities: bool, side: str) -> None:
    """C11: as for a get."""
    with create(name, priorities=priorities) as queue:
        queue.put(b"item")
        with held_by(queue, stopped, side), pytest.raises(ipcq.QueueEmpty, match=f"messages, but process {stopped} "):
            queue.peek()


@pytest.mark.parametrize("timeout", [0, 0.05])
@pytest.mark.parametrize(("priorities", "side"), [(False, "get"), (True, "put")])
def test_a_get_blocked_by_a_stopped_process_names_it(
    name: str, stopped: int, priorities: bool, side: str, timeout: float
) -> None:
    """C11: the queue has a message, so the error does not claim that it is empty."""
    with create(name, priorities=priorities) as queue:
        queue.put(b"item")
        with held_by(queue, stopped, side), pytest.raises(ipcq.QueueEmpty, match=f"messages, but process {stopped} "):
            queue.get(timeout=timeout)
        assert queue.get(timeout=0) == b"item"


def test_statistics_name_a_stopped_holder(name: str, stopped: int) -> None:
    """They have the seconds since a call first waited for it."""
    with create(name) as queue:
        with held_by(queue, stopped, "put"):
            with pytest.raises(ipcq.QueueFull):
                queue.put(b"item", timeout=0.5)  # on a busy machine it begins to wait late
            holder = queue.stats().holder
        assert holder is not None
        assert (holder.pid, holder.stopped) == (stopped, True)
        assert holder.seconds >= 0.04
        assert queue.stats().holder is None


def test_a_get_blocked_by_a_stopped_process_takes_as_long_as_the_oracle_expects(name: str, stopped: int) -> None:
    """Otherwise a storm that stops processes would report a missed message."""
    took = []
    with create(name) as queue:
        queue.put(b"item")
        with held_by(queue, stopped, "get"):
            for _ in range(5):
                since = time.monotonic_ns()
                with pytest.raises(ipcq.QueueEmpty):
                    queue.get(block=False)
                took.append(time.monotonic_ns() - since)
    assert min(took) > HELD_UP


def findings(name: str) -> list[str]:
    return [finding.text + finding.fix for finding in ShmBackend().findings() if name in finding.text]


@pytest.mark.parametrize("field", ["capacity", "data_offset"])
def test_doctor_survives_a_file_with_hostile_numbers(name: str, field: str) -> None:
    """Any user can put a file there that looks like a queue."""
    with create(name) as queue:
        queue.put(b"item")
        queue.put(b"item")
        queue.get()
        at = struct.calcsize("=QIIQ") + 8 * ["segment_size", "data_offset", "capacity"].index(field)
        os.pwrite(queue._channel.descriptor, bytes(8) if field == "capacity" else b"\xff" * 8, at)
        assert findings(name) == []


@pytest.mark.parametrize("side", ["put", "get"])
def test_doctor_finds_a_stopped_holder(name: str, stopped: int, side: str) -> None:
    """doctor does not attach, and the finding has the command that resumes the process."""
    with create(name) as queue:
        with held_by(queue, stopped, side):
            (found,) = findings(name)
        assert f"process {stopped} " in found
        assert found.endswith(f"kill -CONT {stopped}")
        assert findings(name) == []


WRITER = """
import os, sys
import ipcq
queue = ipcq.open(sys.argv[1], "shm", create=False)
print(flush=True)
sys.stdin.readline()
"""


def test_a_message_that_a_stopped_producer_has_not_finished_is_reported(name: str) -> None:
    """C37: the message behind it waits; the error, the statistics and doctor name the producer."""
    large = bytes(40000)
    with create(name, max_message_size=50000, max_messages=4) as queue:
        program = subprocess.Popen(
            [sys.executable, "-c", WRITER, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with program:
            assert program.stdout is not None
            program.stdout.readline()
            queue.put(large)
            reserve(queue, find_slot(program.pid, queue))
            program.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
            with pytest.raises(ipcq.QueueEmpty, match=f"{program.pid} .*stopped, has not finished the next message"):
                queue.get(timeout=0)
            holder = queue.stats().holder
            found = findings(name)
            program.kill()
    assert holder is not None
    assert holder.pid == program.pid
    assert f"process {program.pid} " in found[0]


def find_slot(pid: int, queue: "ipcq.Queue[Any]") -> int:
    """Return the slot that a process has locked (csrc/participant.h)."""
    inode = str(os.fstat(queue._channel.descriptor).st_ino)
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        for line in info.read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[:1] == ["lock:"] and words[6].endswith(f":{inode}"):
                return int(words[7]) - _segment.LOCKS_AT
    raise AssertionError("it has no slot")


def reserve(queue: "ipcq.Queue[Any]", slot: int) -> None:
    """Make the first message look unfinished by the owner of a slot."""
    descriptor = queue._channel.descriptor
    generation = int.from_bytes(os.pread(descriptor, 4, 912 + 4 * slot), sys.byteorder)
    header = _segment.read_header(descriptor)
    word = generation << 32 | slot << 8 | 2
    os.pwrite(descriptor, word.to_bytes(8, sys.byteorder), header.data_offset)


def test_doctor_does_not_report_a_running_holder(name: str) -> None:
    """It releases the lock within microseconds; only a holder that blocks others for a second is a finding."""
    with create(name) as queue, held_by(queue, os.getpid(), "put"):
        assert findings(name) == []


def test_doctor_does_not_report_waiting_messages(name: str) -> None:
    """Nor about the record of a dead process: the next get skips it."""
    with create(name) as queue:
        queue.put(b"item")
        assert findings(name) == []
        reserve(queue, 4000)
        assert findings(name) == []
