"""Which process holds a lock, for errors and `ipcq doctor`."""

import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import ipcq
from core.fakes import FakeChannel
from ipcq._process.lock_holders import Holder, holder_of_byte, holder_of_file, holder_of_thread
from processes.stopping import stopped_program

if sys.platform != "linux":
    pytest.skip("Linux alone tells who holds a lock", allow_module_level=True)

import fcntl

HOLD = """
import fcntl, os, struct, sys
file = os.open(sys.argv[1], os.O_RDWR)
if sys.argv[2] == "whole":
    fcntl.flock(file, fcntl.LOCK_EX)
else:
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, int(sys.argv[2]), int(sys.argv[3]), 0))
"""


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """Return a descriptor of a file."""
    (tmp_path / "file").touch()
    descriptor = os.open(tmp_path / "file", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Return a function that starts a stopped program with a lock on the file, or on some bytes; it returns the pid."""
    with ExitStack() as programs:
        yield lambda *what: programs.enter_context(stopped_program(HOLD, str(tmp_path / "file"), *what))


def test_the_holder_of_a_file_is_found(file: int, holding: Callable[..., int]) -> None:
    """The kernel lists the holder of flock(2)."""
    pid = holding("whole")
    holder = holder_of_file(file, 3.0)
    assert holder is not None
    assert (holder.pid, holder.stopped, holder.seconds) == (pid, True, 3.0)


def test_an_unlocked_file_has_no_holder(file: int) -> None:
    """None means that there is no holder."""
    assert holder_of_file(file, 0.0) is None


@pytest.mark.parametrize("length", ["1", "5", "0"])
def test_the_holder_of_a_byte_is_found(file: int, holding: Callable[..., int], length: str) -> None:
    """It may have locked several bytes, or all up to the end of the file."""
    pid = holding("70", length)
    holder = holder_of_byte(file, 70, 0.0)
    assert holder is not None
    assert holder.pid == pid


def test_a_byte_beside_a_locked_one_has_no_holder(file: int, holding: Callable[..., int]) -> None:
    """Neither has the same byte of another file."""
    holding("70", "1")
    other = os.memfd_create("other")
    try:
        assert holder_of_byte(file, 71, 0.0) is None
        assert holder_of_byte(other, 70, 0.0) is None
    finally:
        os.close(other)


def test_a_lock_of_this_process_is_not_reported(file: int) -> None:
    """Only another process can block this one."""
    fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 70, 1, 0))
    assert holder_of_byte(file, 70, 0.0) is None


def test_a_thread_that_has_ended_has_no_process() -> None:
    """This id is above the largest pid, 2**22."""
    assert holder_of_thread(1 << 23, 0.0) is None


def test_a_running_holder_is_described() -> None:
    """Here, it is this process."""
    holder = holder_of_thread(os.getpid(), 0.0)
    assert holder is not None
    assert not holder.stopped
    assert str(holder) == f"process {os.getpid()} ({holder.name}) holds its lock"
    assert "kill" not in holder.way_out


def test_a_stopped_holder_has_to_be_continued() -> None:
    """The text gives the duration, and the way out the command."""
    holder = Holder(4711, "python", True, 3.21)
    assert str(holder) == "process 4711 (python), which is stopped, holds its lock, for 3.2 s so far"
    assert holder.way_out == "continue it (kill -CONT 4711) or end it"


@pytest.mark.parametrize(
    ("call", "error", "what"),
    [
        (lambda queue: queue.put("item", block=False), ipcq.QueueFull, "space"),
        (lambda queue: queue.put("item", timeout=0.01), ipcq.QueueFull, "space"),
        (lambda queue: queue.put_many(["item"], block=False), ipcq.QueueFull, "space"),
        (lambda queue: queue.get(block=False), ipcq.QueueEmpty, "messages"),
        (lambda queue: queue.get(timeout=0.01), ipcq.QueueEmpty, "messages"),
    ],
)
def test_busy_is_not_full_and_not_empty(
    handle: "ipcq.Queue[Any]",
    channel: FakeChannel,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[["ipcq.Queue[Any]"], object],
    error: type[Exception],
    what: str,
) -> None:
    """If another process blocks a call, the error names it."""
    monkeypatch.setattr(channel, "holder", lambda getting: Holder(4711, "python", True, 3.2))
    if error is ipcq.QueueFull:
        handle.put_many(range(9), block=False)
    with pytest.raises(error, match=rf"it may have {what}, but process 4711 \(python\).*kill -CONT 4711"):
        call(handle)
