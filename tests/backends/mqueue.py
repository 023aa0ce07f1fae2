"""Fixtures and helpers for the tests of mqueue: queues that are cleaned up, and the modules that need posix_ipc.

pytest looks for fixtures in the module of a test, so each test file assigns the fixtures that it uses.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import ipcq
from ipcq_mqueue import _kernel

posix_ipc = pytest.importorskip("posix_ipc", reason="the backend mqueue cannot be used here without posix_ipc")
channels = pytest.importorskip("ipcq_mqueue._channel")

Handle = ipcq.Queue[Any]

SMALL = {"max_messages": 3, "max_message_size": 64}
HANG_SECONDS = 20.0

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can set this up: run the tests as root")


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name for a queue; unlink the queue after the test."""
    name = f"/kernel-{os.getpid()}-{secrets.token_hex(4)}"
    yield name
    with suppress(FileNotFoundError):
        _kernel.unlink_queue(name)


@pytest.fixture
def queue(name: str) -> Iterator[Handle]:
    """Return a handle to a new queue with serializer "raw" for 3 messages of 64 bytes."""
    with ipcq.open(name, "mqueue", exclusive=True, serializer="raw", **SMALL) as queue:
        yield queue


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/jobs")


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, "broken")
