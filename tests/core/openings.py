"""For the tests of opening: installed backends that can do everything, and `ipcq.open` on the test's name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import ipcq
from core.conftest import Installed
from core.fakes import FakeBackend
from ipcq.backend import Capabilities, Persistence, Scope

# Of the backends in these tests, only these fakes can create nameless queues.
ALL = Capabilities(
    scope=Scope.HOST,
    persistence=Persistence.KERNEL,
    exact_qsize=True,
    priorities=True,
    peek=True,
    nameless=True,
    last_close=True,
    other_users=True,
    after_unlink=True,
)


@pytest.fixture
def one(installed: Installed) -> FakeBackend:
    """Return the backend that ``auto`` ranks first."""
    fake = FakeBackend("one", rank=900, capabilities=ALL, options={"depth": int, "lock": str, "fast": bool})
    installed.backend(fake)
    return fake


@pytest.fixture
def two(installed: Installed) -> FakeBackend:
    """Return the backend that ``auto`` ranks second."""
    fake = FakeBackend("two", rank=800, capabilities=ALL)
    installed.backend(fake)
    return fake


@pytest.fixture
def fleeting(installed: Installed) -> FakeBackend:
    """Return a backend whose queues vanish with their last handle, with all other capabilities."""
    fake = FakeBackend("fleeting", rank=500, capabilities=replace(ALL, persistence=Persistence.HOLDERS))
    installed.backend(fake)
    return fake


Opening = Callable[..., "ipcq.Queue[Any]"]


@pytest.fixture
def opened(name: str) -> Any:
    """Return `ipcq.open` on the test's name; the handles are closed after the test."""
    handles: list[ipcq.Queue[Any]] = []

    def open_it(backend: str = "auto", **options: Any) -> "ipcq.Queue[Any]":
        handles.append(ipcq.open(name, backend, **options))
        return handles[-1]

    yield open_it
    for handle in handles:
        handle.close()
