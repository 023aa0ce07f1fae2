"""Fixtures and helpers for the tests of socketpair: queues, and their sockets as a hostile holder has them.

pytest looks for fixtures in the module of a test, so each test file assigns the fixtures that it uses.
"""

import os
import secrets
import socket
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ipcq
from ipcq._process import private_directory
from ipcq_socketpair import SocketpairBackend

if not SocketpairBackend().probe().usable:
    pytest.skip(SocketpairBackend().probe().reason, allow_module_level=True)

fcntl = pytest.importorskip("fcntl")
resource = pytest.importorskip("resource")

Handle = ipcq.Queue[Any]
LARGE_BYTES = 100_000


@pytest.fixture
def name() -> str:
    """Return a name that no queue has."""
    return f"/kernel-{os.getpid()}-{secrets.token_hex(4)}"


@pytest.fixture
def queue(name: str) -> Iterator[Handle]:
    """Return a handle to a new queue with serializer "raw" and the default limits."""
    with ipcq.open(name, "socketpair", exclusive=True, serializer="raw") as queue:
        yield queue


@pytest.fixture
def bounded(name: str) -> Iterator[Handle]:
    """Return a handle to a new queue with serializer "raw" for 4 messages of 64 bytes."""
    with ipcq.open(name, "socketpair", exclusive=True, serializer="raw", max_messages=4, max_message_size=64) as queue:
        yield queue


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the directory of queues during the test; it does not exist yet."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a socket's path has at most 107 bytes: unix(7)
        directory = Path(short, "ipcq", "socketpair")
        monkeypatch.setattr(private_directory, "_roots", lambda: (str(directory.parent),))
        yield directory


def path_of(name: str) -> bytes:
    """Return the path of a queue's socket in the first directory."""
    from ipcq_socketpair import _place  # here, behind the skip above: Windows has no fcntl

    return _place.path_in(_place.make()[0], name)


def ends(queue: Handle) -> Any:
    """Return the sockets of a handle, as a hostile holder has them."""
    return queue._channel._ends  # type: ignore[attr-defined]  # private to the channel


def send_packet(queue: Handle, packet: bytes, *descriptors: int) -> None:
    """Send a packet on the queue's socket, bypassing ipcq."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
    ends(queue).write.sendmsg([packet], rights)


def count_descriptors() -> int:
    """Count the descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))
