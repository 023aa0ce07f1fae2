"""Faults and oddities of a backend with places."""

import copy
from dataclasses import replace

from backends.wrong import Odd, Wrong
from ipcq.backend import Backend, Channel, Place, Request
from ipcq.errors import PermissionDenied
from ipcq.testing.contract._places import Places
from ipcq_memory import MemoryBackend


class TakesAnyPlace(Wrong):
    caught_by = "test_a_backend_without_places_refuses_them"

    def at(self, place: Place) -> Backend:
        return self


class InPlaces(MemoryBackend):
    """The reference backend with places: each has a prefix for the names of its queues."""

    prefix = ""

    def at(self, place: Place) -> Backend:
        bound = copy.copy(self)
        bound.name = self.text_of(place)
        bound.prefix = self.prefix_of(place)
        return bound

    def text_of(self, place: Place) -> str:
        return str(place)

    def prefix_of(self, place: Place) -> str:
        return str(place)

    def create(self, name: str, request: Request) -> Channel:
        return super().create(self.prefix + name, request)

    def attach(self, name: str, request: Request) -> Channel:
        return super().attach(self.prefix + name, request)

    def exists(self, name: str) -> bool:
        return super().exists(self.prefix + name)

    def unlink(self, name: str) -> None:
        super().unlink(self.prefix + name)

    def names(self) -> list[str]:
        parts = [name.rpartition("/") for name in super().names()]
        return [f"/{name}" for prefix, _, name in parts if prefix == self.prefix]

    def spoil(self, channel: Channel) -> Channel:
        channel.capabilities = self.capabilities
        return channel


class HasPlaces(InPlaces, Odd):
    passes = tuple(
        name
        for name in vars(Places)
        if name.startswith("test_") and name != "test_a_backend_without_places_refuses_them"
    )
    capabilities = replace(MemoryBackend.capabilities, places=True)


class MixesPlaces(InPlaces, Wrong):
    caught_by = "test_queues_in_two_places_do_not_meet"
    right = "HasPlaces"
    capabilities = HasPlaces.capabilities

    def prefix_of(self, place: Place) -> str:
        return ""

    def create(self, name: str, request: Request) -> Channel:
        return self.attach(name, request) if self.exists(name) else super().create(name, request)


class ListsAllPlaces(InPlaces, Wrong):
    caught_by = "test_a_queue_is_found_in_its_place_alone"
    right = "HasPlaces"
    capabilities = HasPlaces.capabilities

    def names(self) -> list[str]:
        return ["/" + name.rpartition("/")[2] for name in MemoryBackend.names(self)]


class TellsAnotherPlace(InPlaces, Wrong):
    caught_by = "test_the_text_of_a_place_leads_to_it"
    right = "HasPlaces"
    capabilities = HasPlaces.capabilities

    def text_of(self, place: Place) -> str:
        return f"{place}more/"


class TellsNoPlace(InPlaces, Wrong):
    caught_by = "test_a_url_of_a_queue_leads_to_its_place"
    right = "HasPlaces"
    capabilities = HasPlaces.capabilities

    def text_of(self, place: Place) -> str:
        return self.name


class ShowsPasswords(InPlaces, Wrong):
    caught_by = "test_no_password_is_shown"
    right = "HasPlaces"
    capabilities = HasPlaces.capabilities

    def text_of(self, place: Place) -> str:
        password = place.password.reveal() if place.password else ""
        return str(place).replace("://", f"://{place.user}:{password}@")


class QuotesPasswords(InPlaces, Wrong):
    caught_by = "test_no_password_is_shown"
    right = "HasPlaces"
    capabilities = HasPlaces.capabilities

    def at(self, place: Place) -> Backend:
        if place.password:
            try:
                raise ValueError(f"the server refused {place.password.reveal()}")
            except ValueError as error:
                raise PermissionDenied("wrong password") from error
        return super().at(place)
