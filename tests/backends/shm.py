"""Fixtures and helpers for the tests of shm: queues that are cleaned up, and scripts run in other processes.

pytest looks for fixtures in the module of a test, so each test file assigns the fixtures that it uses.
"""

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import ipcq
from ipcq.testing.processes import fresh_name
from processes.needs import usable
from processes.stopping import stopped_program

fcntl = pytest.importorskip("fcntl", reason="could not import 'fcntl', which only POSIX has")
_segment = pytest.importorskip("ipcq_shm._segment")
SMALL = {"max_messages": 4, "max_message_size": 512}


@pytest.fixture(autouse=True)
def works() -> None:
    """Skip the test if the extension was not built."""
    usable("shm")


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name for a queue; remove the queue, or whatever else has its path, after the test."""
    name = fresh_name()
    yield name
    path = _segment.path_of(name)
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    elif os.path.lexists(path):
        os.unlink(path)


def create(name: str, **options: Any) -> "ipcq.Queue[Any]":
    return ipcq.open(name, "shm", exclusive=True, **{"serializer": "raw", **SMALL, **options})


def attach(name: str, **options: Any) -> "ipcq.Queue[Any]":
    return ipcq.open(name, "shm", create=False, **{"serializer": "raw", **options})


def run_script(code: str, *arguments: str) -> str:
    """Run a script in a new process and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def stopped() -> Iterator[int]:
    """Return the process id of a stopped process."""
    with stopped_program("") as pid:
        yield pid


#: Offsets in a segment of the words of its two locks; csrc/layout.h asserts the layout.
LOCKS = {"put": 384, "get": 640}


@contextmanager
def held_by(queue: "ipcq.Queue[Any]", pid: int, *sides: str) -> Iterator[None]:
    """Make the locks of these sides appear to be held by the main thread of a process, for every participant."""
    descriptor = queue._channel.descriptor
    for side in sides:
        os.pwrite(descriptor, struct.pack("=I", pid), LOCKS[side])
    try:
        yield
    finally:
        for side in sides:
            os.pwrite(descriptor, bytes(4), LOCKS[side])
