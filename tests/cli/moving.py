"""For the tests of ``ipcq move`` and ``ipcq copy``: queues at both ends, and what is in queues and rescue files."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import ipcq
from local_backends import local_backends

pytest.importorskip("fcntl", reason="could not import 'fcntl', which only POSIX has")

Run = Callable[..., Result]
Queue = ipcq.Queue[Any]
VERBS = ("move", "copy")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create rescue files in the test's directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make(name: str, memory: str) -> Iterator[Callable[..., Queue]]:
    """Return a function that creates a queue in this process; its name is that of the test and a suffix."""
    with ExitStack() as stack:

        def make(suffix: str, items: Any = (), backend: str = memory, **limits: Any) -> Queue:
            limits = {"max_messages": 8, "max_message_size": 512, **limits}
            queue: Queue = stack.enter_context(ipcq.open(name + suffix, backend, exclusive=True, **limits))
            stack.callback(queue.unlink)
            queue.put_many(items)
            return queue

        yield make


@pytest.fixture
def source(make: Callable[..., Queue]) -> Queue:
    """Return a queue with three messages."""
    return make("-source", "abc")


@pytest.fixture
def target(make: Callable[..., Queue]) -> Queue:
    """Return an empty queue."""
    return make("-target")


@pytest.fixture
def free(name: str) -> Iterator[str]:
    """Return the name of a queue that a verb may create."""
    yield name + "-free"
    for backend in local_backends():
        if ipcq.exists(name + "-free", backend.name):
            ipcq.unlink(name + "-free", backend.name)


@pytest.fixture
def without_peek(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a backend without peek."""
    real = ipcq.Queue.capabilities.fget
    monkeypatch.setattr(ipcq.Queue, "capabilities", property(lambda self: replace(real(self), peek=False)))


def take_all(queue: Queue) -> list[Any]:
    items = []
    while not queue.empty():
        items.append(queue.get(timeout=0))
    return items


def list_files(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


def messages_in(file: Path) -> list[str]:
    """Return the messages that are still to be loaded from a file."""
    return [json.loads(line)["base64"] for line in file.read_text().splitlines()[1:] if not line.startswith("#")]


def on_put(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[Any], object]) -> None:
    """Call a function before each item that this process puts into the queue."""
    put = ipcq.Queue.put

    def acting(self: Queue, item: Any, *arguments: Any, **options: Any) -> None:
        if self.name == name:
            act(item)
        put(self, item, *arguments, **options)

    monkeypatch.setattr(ipcq.Queue, "put", acting)


def raising(error: BaseException) -> Callable[[Any], None]:
    def act(_: Any) -> None:
        raise error

    return act
