"""What the tests of socketpair stand on: queues, and their ends as a hostile holder has them.

pytest looks for fixtures beside a test, so each file makes those its own that it asks for.
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
LARGE = 100_000


@pytest.fixture
def name() -> str:
    """Return a name that no queue has."""
    return f"/kernel-{os.getpid()}-{secrets.token_hex(4)}"


@pytest.fixture
def queue(name: str) -> Iterator[Handle]:
    """Return a handle to a new queue without limits, of bytes alone."""
    with ipcq.open(name, "socketpair", exclusive=True, serializer="raw") as queue:
        yield queue


@pytest.fixture
def bounded(name: str) -> Iterator[Handle]:
    """Return a handle to a new queue of 4 messages of 64 bytes, of bytes alone."""
    with ipcq.open(name, "socketpair", exclusive=True, serializer="raw", max_messages=4, max_message_size=64) as queue:
        yield queue


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return where queues are during the test: nowhere yet."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a socket's path has 107 bytes at the most: unix(7)
        place = Path(short, "ipcq", "socketpair")
        monkeypatch.setattr(private_directory, "_roots", lambda: (str(place.parent),))
        yield place


def path_of(name: str) -> bytes:
    """Return the path of a queue's socket, where the first place can be used."""
    from ipcq_socketpair import _place  # past the skip above: Windows has no fcntl

    return _place.path_in(_place.make()[0], name)


def ends(queue: Handle) -> Any:
    """Return the sockets of a handle, as a hostile holder has them."""
    return queue._channel._ends  # type: ignore[attr-defined]  # what is attacked


def send(queue: Handle, packet: bytes, *descriptors: int) -> None:
    """Put a packet past ipcq."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
    ends(queue).write.sendmsg([packet], rights)


def count() -> int:
    """Count the descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))
