"""The clauses on places, on a backend within this process that has some: with a listing of its queues, and without."""

from dataclasses import replace

import pytest

from backends.wrong_places import InPlaces
from core.conftest import Installed
from ipcq.backend import Capabilities, Channel, Request
from ipcq.testing.contract._places import Places
from ipcq_memory import MemoryBackend


class Listed(InPlaces):
    name = "listed"
    capabilities: Capabilities = replace(MemoryBackend.capabilities, places=True)

    def create(self, name: str, request: Request) -> Channel:
        return self.spoil(super().create(name, request))

    def attach(self, name: str, request: Request) -> Channel:
        return self.spoil(super().attach(name, request))


class Unlisted(Listed):
    name = "unlisted"
    capabilities = replace(Listed.capabilities, listing=False)


@pytest.fixture(autouse=True)
def _installed(installed: Installed) -> None:
    for backend in (Listed(), Unlisted()):
        installed.backend(backend)


class TestListed(Places):
    backend = "listed"
    places = ("listed://one/", "listed://two/")


class TestUnlisted(Places):
    backend = "unlisted"
    places = ("unlisted://one/", "unlisted://two/")
