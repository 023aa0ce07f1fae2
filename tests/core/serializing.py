"""For the tests of serializers: each runs with the codec in C and without it, and its registrations are undone."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from ipcq import serializers
from ipcq.serializers import _in_c, register
from processes.needs import library

msgspec = library("msgspec")


@pytest.fixture(autouse=True, params=["in C", "in Python"] if _in_c.COMPILED else ["in Python"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with the codec in C and without it, here and in the programs that it starts."""
    monkeypatch.setenv("IPCQ_SHORTCUTS", "1" if request.param == "in C" else "0")


@pytest.fixture(autouse=True)
def own_registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a test registers."""
    monkeypatch.setattr(serializers, "_registered", {})


def reversing(number: int = 1001, name: str = "reverse") -> None:
    """Register a serializer that reverses bytes."""
    register(number, name, lambda item: item[::-1], lambda data: data[::-1])


class Point(NamedTuple):
    x: int
    y: int


class Hostile:
    """An object whose methods raise when it is encoded."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __iter__(self) -> Iterator[Any]:
        raise self.error

    def __reduce__(self) -> Any:
        raise self.error
