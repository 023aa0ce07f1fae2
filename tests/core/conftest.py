"""Fixtures for the tests of the core: names that are cleaned up, plugins installed for one test, and scripts."""

import importlib
import importlib.metadata
import os
import secrets
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ipcq
import scripts
from core.fakes import HOST, FakeBackend, FakeChannel
from ipcq._opening import registry
from ipcq.backend import Backend
from ipcq.hooks import DISTRIBUTION, GROUP, hookimpl
from local_backends import local_backends

Handle = ipcq.Queue[Any]

#: The bundled backends that a test sees beside those it installs: one within a process, one between processes.
BUNDLED = ("memory", "mqueue")

#: Timeout of anything that may hang, in seconds.
HANG = 20.0


class Installed:
    """Distributions that are installed for one test, in a directory on `sys.path`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.modules: list[str] = []
        self._count = 0

    def distribution(self, name: str, offers: Mapping[str, str]) -> None:
        """Install a distribution that offers backends: entry points by name."""
        metadata = self.place / f"{name.replace('-', '_')}-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        lines = [f"{offer} = {value}\n" for offer, value in offers.items()]
        (metadata / "entry_points.txt").write_text("".join([f"[{GROUP}]\n", *lines]))
        self.forget()

    def plugin(self, name: str, source: str, distribution: str = "stranger") -> str:
        """Install a backend's module with this source and return the module's name."""
        module = self._new_module_name()
        (self.place / f"{module}.py").write_text(textwrap.dedent(source))
        self.distribution(distribution, {name: module})
        return module

    def backend(self, descriptor: Backend, distribution: str | None = None, name: str | None = None) -> None:
        """Install a plugin whose hook returns the descriptor, under the descriptor's name."""

        @hookimpl
        def ipcq_backend() -> Backend:
            return descriptor

        module = ModuleType(self._new_module_name())
        module.ipcq_backend = ipcq_backend
        sys.modules[module.__name__] = module
        name = name or descriptor.name
        self.distribution(distribution or f"stranger-{name}", {name: module.__name__})

    def _new_module_name(self) -> str:
        # Loaded plugins are cached by module name, so no two tests may use the same name.
        module = f"stranger_{secrets.token_hex(4)}"
        self.modules.append(module)
        return module

    @staticmethod
    def forget() -> None:
        """Clear the caches, so that the installed distributions are read again."""
        importlib.invalidate_caches()
        registry._offers.cache_clear()
        registry._plugins.cache_clear()


@pytest.fixture(scope="session")
def offered() -> list[importlib.metadata.EntryPoint]:
    """Return the environment's entry points for tests that install backends; read once, as it takes milliseconds."""
    found = importlib.metadata.entry_points(group=GROUP)
    return [entry for entry in found if entry.name in BUNDLED or entry.dist.name != DISTRIBUTION]


@pytest.fixture
def installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offered: list[importlib.metadata.EntryPoint]
) -> Iterator[Installed]:
    """Let a test install distributions; they are gone after the test."""
    place = tmp_path / "installed"
    place.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(place)])

    def entry_points(*, group: str) -> list[importlib.metadata.EntryPoint]:
        here = importlib.metadata.distributions(path=[str(place)])
        return [*offered, *(entry for each in here for entry in each.entry_points.select(group=group))]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    # A cache for this test, so that the one for the environment stays valid.
    monkeypatch.setattr(registry, "_offers", cache(registry._offers.__wrapped__))
    installed = Installed(place)
    importlib.invalidate_caches()
    yield installed
    importlib.invalidate_caches()
    for module in installed.modules:
        sys.modules.pop(module, None)


@pytest.fixture
def name() -> Iterator[str]:
    """Return a queue name, and unlink it on every backend after the test."""
    name = f"/core-{os.getpid()}-{secrets.token_hex(4)}"
    yield name
    for each in local_backends():
        with suppress(ipcq.MessageQueueError):
            ipcq.unlink(name, each.name)


@pytest.fixture
def queue(name: str, memory: str) -> Iterator[Handle]:
    """Return a handle to a new in-process queue of 4 messages of 512 bytes."""
    with ipcq.open(name, memory, exclusive=True, max_messages=4, max_message_size=512) as queue:
        yield queue


@pytest.fixture
def fake(installed: Installed) -> FakeBackend:
    """Return an installed backend whose channels the test controls."""
    fake = FakeBackend("fake", rank=900, capabilities=replace(HOST, notify=True, pollable=True))
    installed.backend(fake)
    return fake


@pytest.fixture
def handle(fake: FakeBackend, name: str) -> Iterator[Handle]:
    """Return a handle to a new queue of 3 messages of 64 bytes on the fake."""
    handle = ipcq.open(name, "fake", max_messages=3, max_message_size=64)
    yield handle
    handle.close()


@pytest.fixture
def channel(handle: Handle, fake: FakeBackend) -> FakeChannel:
    """Return the channel below the handle."""
    return fake.channels[0]


Run = Callable[..., str]


@pytest.fixture
def run() -> Run:
    """Return a function that runs a script in a fresh interpreter and returns its output."""
    return scripts.run


class Thread:
    """A thread that keeps its function's result or exception, and cannot hang a test."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # outcome() raises it in the test
            self._error = error

    def running(self) -> bool:
        return self._thread.is_alive()

    def outcome(self) -> Any:
        self._thread.join(HANG)
        assert not self._thread.is_alive(), f"a thread did not return within {HANG} s"
        if self._error is not None:
            raise self._error
        return self._result


@pytest.fixture
def start() -> Callable[..., Thread]:
    """Return a function that runs a call in a thread."""

    def start_thread(call: Callable[..., Any], *arguments: Any, **options: Any) -> Thread:
        return Thread(lambda: call(*arguments, **options))

    return start_thread
