"""What the tests of several faces ask for."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

import ipcq
from ipcq.testing.processes import Peers, fresh_name

#: Seconds after which what hangs has failed.
HANG = 20.0


@pytest.fixture(params=["mqueue", "shm"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return each backend that has all that POSIX's queues can do, and let a face of theirs use it."""
    monkeypatch.setenv("IPCQ_BACKEND", request.param)
    return str(request.param)


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name that nobody has, and free it in the end."""
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
