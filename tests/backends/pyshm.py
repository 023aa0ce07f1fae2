"""What the tests of pyshm stand on: queues that are cleaned up, and what is in their files.

pytest looks for fixtures beside a test, so each file makes those its own that it asks for.
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
from ipcq_pyshm._layout import STATE_ROOM, STATES_AT, State, newest, place

Handle = ipcq.Queue[Any]

SMALL: dict[str, Any] = {"max_messages": 4, "max_message_size": 64, "serializer": "raw"}
HANG = 20.0

linux = pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")
as_root = pytest.mark.skipif(
    getattr(os, "geteuid", int)() != 0 or sys.platform != "linux", reason="only root can mount: run the tests as root"
)
with_shmlock = pytest.mark.skipif(not _lock.installed(), reason="lock='shmlock' cannot be used here without shmlock")
both_orders = pytest.mark.parametrize("priorities", [False, True], ids=["plain", "priorities"])
both_locks = pytest.mark.parametrize("lock", ["file", pytest.param("shmlock", marks=with_shmlock)])


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name that no queue has after the test."""
    name = f"/pyshm-{os.getpid()}-{secrets.token_hex(4)}"
    yield name
    for leftover in Path(_place.directory()).glob(Path(_place.path_of(name)).name + "*"):
        with suppress(IsADirectoryError):
            leftover.unlink()


@pytest.fixture
def queue(name: str) -> Iterator[Handle]:
    """Return a handle to a new plain queue of 4 messages of 64 bytes."""
    with made(name) as queue:
        yield queue


def made(name: str, **options: Any) -> Handle:
    return ipcq.open(name, "pyshm", exclusive=True, **{**SMALL, **options})


def again(name: str, **options: Any) -> Handle:
    return ipcq.open(name, "pyshm", create=False, serializer="raw", **options)


def again_and_close(name: str) -> bytes:
    with again(name) as queue:
        return bytes(queue.get(timeout=HANG))


def drained(queue: Handle) -> list[bytes]:
    items = []
    with suppress(QueueEmpty):
        while True:
            items.append(queue.get_nowait())
    return items


def peek_file(name: str) -> bytes:
    return Path(_place.path_of(name)).read_bytes()


def poke(name: str, at: int, data: bytes) -> None:
    descriptor = os.open(_place.path_of(name), os.O_RDWR)
    os.pwrite(descriptor, data, at)
    os.close(descriptor)


def state_of(name: str) -> State:
    state = newest(peek_file(name)[STATES_AT : STATES_AT + 2 * STATE_ROOM])
    assert state is not None
    return state


def poke_state(name: str, **numbers: int) -> None:
    """Forge the next state, with a checksum that holds."""
    state = state_of(name)
    state.sequence += 1
    for number, value in numbers.items():
        setattr(state, number, value)
    poke(name, place(state.sequence), state.packed())


USES: dict[str, Callable[[Handle], object]] = {
    "get": lambda queue: queue.get_nowait(),
    "put": lambda queue: queue.put_nowait(b"x" * 60),
    "get_many": lambda queue: queue.get_many(block=False),
    "put_many": lambda queue: queue.put_many([b"x", b"y"], block=False),
    "peek": lambda queue: queue.peek(),
    "clear": lambda queue: queue.clear(),
    "qsize": lambda queue: queue.qsize(),
    "full": lambda queue: queue.full(),
    "stats": lambda queue: queue.stats(),
}
