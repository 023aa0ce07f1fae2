"""Opening with fresh=True: what has the name is removed, and a new queue created."""

import itertools
from contextlib import ExitStack
from typing import Any

import pytest

import ipcq
from core import openings
from core.conftest import Thread
from core.fakes import HOST, FakeBackend, raising
from core.openings import Opening
from ipcq._handle.interface import on_channel
from ipcq.backend import Availability
from ipcq.errors import BackendUnavailable, PermissionDenied, TimedOutError, Unsupported
from local_backends import local_backends

one, two, opened = openings.one, openings.two, openings.opened
poor = openings.standing("poor", 100, HOST)


@pytest.mark.parametrize(
    ("address", "options"),
    [("{}", {"fresh": True}), ("one://{}", {"fresh": True}), ("one://{}?fresh=yes", {})],
    ids=["auto", "named", "url"],
)
def test_a_fresh_queue_replaces_the_one_of_the_name(
    one: FakeBackend, name: str, address: str, options: dict[str, Any]
) -> None:
    """The old one is unlinked, so its handles raise QueueGone; the new one has the requested limits."""
    old = one.make(name, max_messages=3)
    with ipcq.open(address.format(name), max_messages=5, **options) as queue:
        assert (old.linked, queue.max_messages, one.queues[name].linked) == (False, 5, True)


def test_a_fresh_queue_needs_no_predecessor(one: FakeBackend, opened: Opening) -> None:
    """It is created as without fresh=True."""
    assert opened(fresh=True).backend == "one"


def test_a_fresh_queue_is_the_only_one_of_its_name(
    one: FakeBackend, two: FakeBackend, name: str, opened: Opening
) -> None:
    """With auto, queues on all backends are removed; the new one is where auto creates it."""
    one.make(name)
    two.make(name)
    assert (opened(fresh=True).backend, name in two.queues) == ("one", False)


def test_a_fresh_queue_on_a_named_backend_leaves_other_backends_alone(
    one: FakeBackend, two: FakeBackend, name: str, opened: Opening
) -> None:
    """They are not searched."""
    two.make(name)
    opened("one", fresh=True)
    assert name in two.queues


@pytest.mark.parametrize("backend", ["auto", "poor"])
def test_a_request_that_no_backend_can_fulfil_removes_nothing(
    poor: FakeBackend, name: str, opened: Opening, backend: str
) -> None:
    """The choice comes first."""
    poor.make(name)
    with pytest.raises((Unsupported, BackendUnavailable)):
        opened(backend, fresh=True, require=["peek"])
    assert name in poor.queues


def test_a_backend_that_becomes_unusable_under_the_lock_removes_nothing(
    poor: FakeBackend, name: str, opened: Opening
) -> None:
    """The choice is checked again before the removal."""
    poor.make(name)
    probes = itertools.count()

    def remove_disk(_: str) -> None:
        if next(probes):
            poor.availability = Availability.no("its disk was removed")

    poor.on_probe = remove_disk
    with pytest.raises(BackendUnavailable):
        opened("poor", fresh=True)
    assert name in poor.queues


def test_a_queue_that_must_not_be_removed_stays(
    one: FakeBackend, name: str, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the backend."""
    one.make(name)
    monkeypatch.setattr(one, "unlink", raising(PermissionDenied()))
    with pytest.raises(PermissionDenied, match=f"queue '{name}' on backend 'one'"):
        opened(fresh=True)
    assert name in one.queues


def test_a_queue_that_vanishes_before_it_is_removed_is_no_error(
    one: FakeBackend, name: str, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program unlinks it between search and removal."""
    one.make(name)
    unlink = one.unlink

    def unlink_twice(name: str) -> None:
        unlink(name)
        unlink(name)

    monkeypatch.setattr(one, "unlink", unlink_twice)
    assert opened(fresh=True).max_messages == 8


def test_a_queue_that_a_foreign_program_creates_after_the_removal_is_removed_too(
    one: FakeBackend, name: str, opened: Opening
) -> None:
    """The program does not take the name lock; the last one wins."""
    once = iter([None])

    def create(name: str) -> None:
        for _ in once:
            one.make(name, max_messages=3)

    one.on_create = create
    assert opened(fresh=True).max_messages == 8


def test_a_name_that_a_foreign_program_takes_again_and_again_ends_with_the_timeout(
    one: FakeBackend, opened: Opening
) -> None:
    """`open_timeout` limits the attempts."""
    one.on_create = one.make
    with pytest.raises(TimedOutError, match="again and again"):
        opened(fresh=True, open_timeout=0.01)


@pytest.mark.parametrize("backend", [info.name for info in local_backends() if info.usable])
def test_programs_that_want_a_fresh_queue_at_once_each_get_a_whole_one(name: str, backend: str) -> None:
    """Clauses 1 and 4: each handle has a queue of its own, and the name leads to exactly one of them."""

    def create() -> "ipcq.Queue[bytes]":
        return ipcq.open(name, backend, fresh=True, serializer="raw", max_messages=4, max_message_size=512)

    with ExitStack() as stack:
        threads = [Thread(create) for _ in range(4)]
        handles = [stack.enter_context(thread.outcome()) for thread in threads]
        (last,) = [each for each in handles if on_channel(each, lambda channel: channel.linked())]
        with ipcq.open(name, backend, create=False, serializer="raw") as other:
            other.put(b"whole")
        assert last.get(timeout=5) == b"whole"
        last.unlink()
