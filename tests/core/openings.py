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


def standing(name: str, rank: int, capabilities: Capabilities = ALL, **more: Any) -> Any:
    """Return the fixture of an installed backend of this rank."""

    @pytest.fixture
    def fake(installed: Installed) -> FakeBackend:
        fake = FakeBackend(name, rank=rank, capabilities=capabilities, **more)
        installed.backend(fake)
        return fake

    return fake


# The ranks at which `auto` prefers the first to the second, and both to the third.
one = standing("one", 900, options={"depth": int, "lock": str, "fast": bool})
two = standing("two", 800)
# Its queues vanish with their last handle.
fleeting = standing("fleeting", 500, replace(ALL, persistence=Persistence.HOLDERS))

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
