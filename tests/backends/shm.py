"""What the tests of shm stand on: queues that are cleaned up, and programs of their own.

pytest looks for fixtures beside a test, so each file makes those its own that it asks for.
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
    """Skip where the extension was not built."""
    usable("shm")


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name, whose queue or whatever else stands there is removed."""
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


def told(code: str, *arguments: str) -> str:
    """Return what a program of its own printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def stopped() -> Iterator[int]:
    """Return the process id of a program that is stopped."""
    with stopped_program("") as pid:
        yield pid


#: Offsets in a segment of the words of its two locks (csrc/layout.h asserts the layout).
LOCKS = {"put": 384, "get": 640}


@contextmanager
def held_by(queue: "ipcq.Queue[Any]", pid: int, *sides: str) -> Iterator[None]:
    """Make the locks of these sides look held by the main thread of a process, to every participant."""
    descriptor = queue._channel.descriptor
    for side in sides:
        os.pwrite(descriptor, struct.pack("=I", pid), LOCKS[side])
    try:
        yield
    finally:
        for side in sides:
            os.pwrite(descriptor, bytes(4), LOCKS[side])
