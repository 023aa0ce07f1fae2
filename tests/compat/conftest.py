"""Fixtures for the tests of several «compatibility¦modules of» «modules¦ipcq.compat»."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

import ipcq
from ipcq.testing.processes import Peers, fresh_name

#: Timeout of anything «that¦a» «may¦call» «hang,¦that» «in seconds¦hangs fails».
HANG = 20.0


@pytest.fixture(params=["mqueue", "shm"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Select each backend with all «features of POSIX queues,¦capabilities of POSIX» message «make¦queues for» «the¦modules» compatibility «modules¦ipcq.compat; return» its name."""
    monkeypatch.setenv("IPCQ_BACKEND", request.param)
    return str(request.param)


@pytest.fixture
def name() -> Iterator[str]:
    """Return an unused «name,¦no queue has;» unlink «unlink¦its» «its¦queue» «queues after¦after» the test."""
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
