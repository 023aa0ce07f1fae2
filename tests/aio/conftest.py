"""Fixtures that run each test on each bundled backend, under asyncio and under trio."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest

import ipcq
from ipcq.testing.processes import fresh_name
from processes.needs import usable
from processes.sizes import size

BACKENDS = ("memory", "mqueue", "pyshm", "shm", "socketpair")
LOOPS = ("asyncio", "trio")

#: Timeout of a test that hangs, in seconds.
PATIENCE = size(60, 4000)

Run = Callable[..., Any]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Return the name of each bundled backend that can be used here."""
    return usable(str(request.param))


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """Return the name of each event loop."""
    return str(request.param)


@pytest.fixture
def run(loop: str) -> Run:
    """Return a function that runs a coroutine function in a new event loop."""

    async def within(call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        with anyio.fail_after(PATIENCE):
            return await call(*arguments)

    return lambda call, *arguments: anyio.run(partial(within, call, arguments), backend=loop)


@pytest.fixture
def name(backend: str) -> Iterator[str]:
    """Return a queue name, and unlink the queue after the test."""
    name = fresh_name()
    yield name
    with suppress(ipcq.QueueNotFound):
        ipcq.unlink(name, backend)


@pytest.fixture
def handle(name: str, backend: str) -> Iterator["ipcq.Queue[Any]"]:
    """Return a handle to a new queue of 4 messages of 512 bytes."""
    with ipcq.open(name, backend, exclusive=True, max_messages=4, max_message_size=512) as handle:
        yield handle
