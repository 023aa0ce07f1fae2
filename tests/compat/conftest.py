"""Fixtures for the tests of several compatibility modules."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

import ipcq
from ipcq.testing.processes import Peers, fresh_name

#: Timeout of anything that may hang, in seconds.
HANG = 20.0


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
