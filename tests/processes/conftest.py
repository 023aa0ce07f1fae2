"""Fixtures for tests that run on each backend of this machine on which unrelated processes can meet."""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

import ipcq
from ipcq.backend import Scope
from ipcq.testing.processes import Peers, fresh_name
from processes.needs import required, usable
from processes.sizes import size


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int | None:
    """Return the number of kills in each storm, if the command line gives one."""
    kills: int | None = request.config.getoption("--kills")
    return kills


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        names = [
            info.name for info in ipcq.backends() if info.capabilities is None or info.capabilities.scope == Scope.HOST
        ]
        metafunc.parametrize("backend", names, indirect=True)


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """Return the name of each backend that can be used here."""
    return usable(str(request.param))


@pytest.fixture
def mqueue() -> str:
    """Return the name of the backend that is subject to the kernel's limits."""
    return usable("mqueue")


@pytest.fixture(params=["shm", "pyshm", "socketpair"])
def lockable(request: pytest.FixtureRequest) -> str:
    """Return the name of each backend whose calls hold a lock that other processes can see."""
    return usable(str(request.param))


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name; unlink its queue after the test."""
    name = fresh_name()
    yield name
    with suppress(ipcq.QueueNotFound):
        ipcq.unlink(name)


@pytest.fixture
def queue(name: str, backend: str) -> Iterator["ipcq.Queue[object]"]:
    """Return a handle to a new queue for 4 messages of 512 bytes."""
    with ipcq.open(name, backend, exclusive=True, max_messages=4, max_message_size=512) as queue:
        yield queue


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Return a group of processes that ends with the test and cannot hang."""
    with Peers(patience=size(60, 4000)) as peers:
        yield peers


@pytest.fixture
def as_root() -> None:
    """Skip the test unless root runs it."""
    if sys.platform == "win32":
        pytest.skip("Windows has no root")
    if os.geteuid() != 0:
        required("only root can become another user: run the tests as root")
