"""A process that is stopped while it holds the file lock of a queue: errors of pyshm and socketpair name it."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import ipcq
from ipcq.testing.processes import fresh_name
from processes.stopping import stopped_program

if sys.platform != "linux":
    pytest.skip("Linux alone tells who holds a lock", allow_module_level=True)

SMALL = {"max_messages": 4, "max_message_size": 64, "serializer": "raw"}

#: Locks the file of an inherited descriptor through another open file description.
HOLD = """
import fcntl, os, sys
file = os.open(f"/proc/self/fd/{sys.argv[1]}", os.O_RDWR)
fcntl.flock(file, fcntl.LOCK_EX)
"""


@pytest.fixture(params=["pyshm", "socketpair"])
def queue(request: pytest.FixtureRequest) -> Iterator["ipcq.Queue[Any]"]:
    """Return a handle to a new queue, on each backend with a file lock."""
    name = fresh_name()
    with ipcq.open(name, request.param, exclusive=True, **SMALL) as queue:
        yield queue
        with suppress(ipcq.QueueNotFound):
            queue.unlink()


@pytest.fixture
def holder(queue: "ipcq.Queue[Any]") -> Iterator[int]:
    """Return the process id of a process that is stopped while it holds the queue's lock."""
    channel: Any = queue._channel
    lock = channel._descriptor if queue.backend == "pyshm" else channel._ends.lock
    with stopped_program(HOLD, str(lock), descriptors=[lock]) as pid:
        yield pid


@pytest.mark.parametrize(
    "put",
    [
        lambda queue: queue.put(b"item", block=False),
        lambda queue: queue.put(b"item", timeout=0.1),
        lambda queue: queue.put_many([b"item"], timeout=0.1),
    ],
)
def test_a_put_blocked_by_a_stopped_process_names_it(
    queue: "ipcq.Queue[Any]", holder: int, put: Callable[["ipcq.Queue[Any]"], object]
) -> None:
    """C11: the queue has space, so the error does not claim that it is full."""
    with pytest.raises(ipcq.QueueFull, match=rf"it may have space, but process {holder} .*kill -CONT {holder}"):
        put(queue)


def test_statistics_name_a_stopped_holder(queue: "ipcq.Queue[Any]", holder: int) -> None:
    """After the process is killed, they name no holder."""
    with suppress(ipcq.QueueFull):
        queue.put(b"item", timeout=0.1)
    held = queue.stats().holder
    assert held is not None
    assert (held.pid, held.stopped) == (holder, True)
    os.kill(holder, signal.SIGKILL)
    os.waitid(os.P_PID, holder, os.WEXITED | os.WNOWAIT)
    queue.put(b"item", timeout=20)
    assert queue.stats().holder is None


@pytest.mark.parametrize("queue", ["pyshm"], indirect=True)
@pytest.mark.parametrize(
    "call",
    [
        lambda queue: queue.get(timeout=0.1),
        lambda queue: queue.get(block=False),
        lambda queue: queue.clear(),
        lambda queue: queue.peek(),
        lambda queue: queue.shutdown(),
    ],
)
def test_a_call_blocked_by_a_stopped_process_names_it(
    queue: "ipcq.Queue[Any]", holder: int, call: Callable[["ipcq.Queue[Any]"], object]
) -> None:
    """C37: the call claims neither that it did something nor that the queue is empty."""
    with pytest.raises(ipcq.TimedOutError, match=f"process {holder} .*kill -CONT {holder}"):
        call(queue)


@pytest.mark.parametrize("queue", ["pyshm"], indirect=True)
def test_doctor_finds_a_stopped_holder(queue: "ipcq.Queue[Any]", holder: int) -> None:
    """The finding has the command that resumes it."""
    backend = queue._origin.backend

    def found() -> list[str]:
        return [each.fix for each in backend.findings() if queue.name in each.text]

    assert found() == [f"kill -CONT {holder}"]
    os.kill(holder, signal.SIGKILL)
    os.waitid(os.P_PID, holder, os.WEXITED | os.WNOWAIT)
    assert found() == []
