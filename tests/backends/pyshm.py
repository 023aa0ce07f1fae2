"""Fixtures and helpers for the tests of pyshm: queues that are cleaned up, and access to their files.

pytest looks for fixtures in the module of a test, so each test file assigns the fixtures that it uses.
"""

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import ipcq
from ipcq.errors import QueueEmpty
from ipcq_pyshm import _lock, _place
from ipcq_pyshm._layout import STATE_ROOM, STATES_AT, Header, State, newest, newest_of_leases, place

Handle = ipcq.Queue[Any]

SMALL: dict[str, Any] = {"max_messages": 4, "max_message_size": 64, "serializer": "raw"}
HANG_SECONDS = 20.0

linux = pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")
as_root = pytest.mark.skipif(
    getattr(os, "geteuid", int)() != 0 or sys.platform != "linux", reason="only root can mount: run the tests as root"
)
with_shmlock = pytest.mark.skipif(not _lock.installed(), reason="lock='shmlock' cannot be used here without shmlock")
both_orders = pytest.mark.parametrize("priorities", [False, True], ids=["plain", "priorities"])
both_locks = pytest.mark.parametrize("lock", ["file", pytest.param("shmlock", marks=with_shmlock)])


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name for a queue; remove the queue's files after the test."""
    name = f"/pyshm-{os.getpid()}-{secrets.token_hex(4)}"
    yield name
    for leftover in Path(_place.directory()).glob(Path(_place.path_of(name)).name + "*"):
        with suppress(IsADirectoryError):
            leftover.unlink()


@pytest.fixture
def queue(name: str) -> Iterator[Handle]:
    """Return a handle to a new queue without priorities for 4 messages of 64 bytes."""
    with create(name) as queue:
        yield queue


@pytest.fixture
def leasing(name: str) -> Iterator[Handle]:
    """Return a handle to a new queue with leases for 4 messages of 64 bytes."""
    with create(name, leases=True) as queue:
        yield queue


def create(name: str, **options: Any) -> Handle:
    return ipcq.open(name, "pyshm", exclusive=True, **{**SMALL, **options})


def attach(name: str, **options: Any) -> Handle:
    return ipcq.open(name, "pyshm", create=False, serializer="raw", **options)


def attach_and_get(name: str) -> bytes:
    with attach(name) as queue:
        return bytes(queue.get(timeout=HANG_SECONDS))


def drain(queue: Handle) -> list[bytes]:
    items = []
    with suppress(QueueEmpty):
        while True:
            items.append(queue.get_nowait())
    return items


def read_file(name: str) -> bytes:
    return Path(_place.path_of(name)).read_bytes()


def write_file(name: str, at: int, data: bytes) -> None:
    descriptor = os.open(_place.path_of(name), os.O_RDWR)
    os.pwrite(descriptor, data, at)
    os.close(descriptor)


def read_state(name: str) -> State:
    raw = read_file(name)
    read = newest_of_leases if Header.of(raw[:STATES_AT], 0).attributes.leases else newest
    state = read(raw[STATES_AT : STATES_AT + 2 * STATE_ROOM])
    assert state is not None
    return state


def forge_state(name: str, **numbers: int) -> None:
    """Forge the next state, with a valid checksum."""
    state = read_state(name)
    state.sequence += 1
    for number, value in numbers.items():
        setattr(state, number, value)
    write_file(name, place(state.sequence), state.packed())


USES: dict[str, Callable[[Handle], object]] = {
    "get": lambda queue: queue.get_nowait(),
    "put": lambda queue: queue.put_nowait(b"x" * 60),
    "get_many": lambda queue: queue.get_many(block=False),
    "put_many": lambda queue: queue.put_many([b"x", b"y"], block=False),
    "put_dropping": lambda queue: queue.put(b"x" * 60, drop_oldest=True),
    "get_latest": lambda queue: queue.get_latest(block=False),
    "peek": lambda queue: queue.peek(),
    "clear": lambda queue: queue.clear(),
    "qsize": lambda queue: queue.qsize(),
    "full": lambda queue: queue.full(),
    "stats": lambda queue: queue.stats(),
}
