"""Fixtures for the tests of several compatibility modules."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import ipcq
from ipcq.compat import _messages
from ipcq.testing.processes import Peers, fresh_name
from processes.needs import usable

#: Timeout of anything that may hang, in seconds.
HANG = 20.0

#: Bytes of a ring that has space for small messages only.
TINY = 8192


@pytest.fixture(params=["mqueue", "shm"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return each backend with all features of POSIX queues, and make the compatibility modules use it."""
    monkeypatch.setenv("IPCQ_BACKEND", request.param)
    return str(request.param)


@pytest.fixture
def name() -> Iterator[str]:
    """Return an unused name, and unlink its queues after the test."""
    name = fresh_name()
    yield name
    for each in ("mqueue", "shm"):
        with suppress(ipcq.QueueNotFound):
            ipcq.unlink(name, each)


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Return a group of unrelated processes."""
    with Peers(patience=HANG) as peers:
        yield peers


class Crew:
    """Processes that are killed at the end of the test."""

    def __init__(self) -> None:
        self._processes: list[Any] = []

    def start(self, context: Any, program: Callable[..., object], *arguments: Any) -> Any:
        process = context.Process(target=program, args=arguments)
        process.start()
        self._processes.append(process)
        return process

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
            process.close()


@pytest.fixture
def works() -> None:
    """Skip if the extension was not built."""
    usable("shm")


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.end()


@pytest.fixture(params=["ring", "tiny ring", "line"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give queues their normal ring, a tiny one, or none, so that messages are in the overflow file."""
    if request.param == "tiny ring":
        monkeypatch.setattr(_messages, "_RING_BYTES", TINY)
        monkeypatch.setattr(_messages, "_BOUNDED_RING_BYTES", TINY)
    if request.param == "line":
        monkeypatch.setattr(_messages, "create", no_ring)
    return str(request.param)


def no_ring(request: object) -> None:
    raise ipcq.BackendUnavailable("there is none", reasons={})
