"""What the tests of several ««compatibility¦modules¦faces» «of»¦ask» ««modules¦ipcq.compat»¦for»."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

import ipcq
from ipcq.testing.processes import Peers, fresh_name

#: Timeout of anything ««that¦a» «may¦call» «hang,¦that» «in¦what» seconds¦hangs «fails»¦has failed».
HANG = 20.0


@pytest.fixture(params=["mqueue", "shm"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return each backend that has ««features of POSIX queues,¦capabilities¦all» that POSIX«» message¦'s» «make¦queues «for»¦can» ««the¦modules»¦do,» «compatibility¦and» ««modules¦ipcq.compat;¦let» «return»¦a» face of theirs use it."""
    monkeypatch.setenv("IPCQ_BACKEND", request.param)
    return str(request.param)


@pytest.fixture
def name() -> Iterator[str]:
    """Return an unused ««name,¦no queue¦nobody» has«;»¦,» and ««unlink¦its»¦free» ««its¦queue»¦it» ««queues after¦after»¦in» the end."""
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
