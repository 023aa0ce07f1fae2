"""Opening while other programs create and unlink the name, and waiting for them."""

import itertools
from contextlib import ExitStack
from time import monotonic

import pytest

from core import openings
from core.fakes import FakeBackend
from core.openings import Opening
from ipcq._opening import name_lock, open_request
from ipcq._process.deadline import NEVER
from ipcq.backend import Availability
from ipcq.errors import QueueExists, QueueNotFound, TimedOutError

one, two, opened = openings.one, openings.two, openings.opened


def test_a_queue_that_a_foreign_program_creates_meanwhile_is_attached_to(
    one: FakeBackend, name: str, opened: Opening
) -> None:
    """The queue appears between search and creation."""
    one.on_create = lambda name: one.queues.get(name) or one.make(name, max_messages=3)
    assert opened().max_messages == 3


def test_an_exclusive_creation_that_a_foreign_program_beats_is_refused(one: FakeBackend, opened: Opening) -> None:
    """The queue appears between search and creation, which raises QueueExists."""
    one.on_create = one.make
    with pytest.raises(QueueExists, match="on backend 'one'"):
        opened(exclusive=True)


def test_a_queue_that_a_foreign_program_unlinks_meanwhile_is_created_again(
    one: FakeBackend, name: str, opened: Opening
) -> None:
    """The queue vanishes between search and attaching; `open` searches again and creates."""
    one.make(name, max_messages=3)
    once = iter([None])

    def unlink(name: str) -> None:
        for _ in once:
            one.unlink(name)

    one.on_attach = unlink
    assert opened().max_messages == 8


def test_a_queue_that_is_unlinked_meanwhile_is_not_found_without_create(
    one: FakeBackend, name: str, opened: Opening
) -> None:
    """The queue vanishes between search and attaching."""
    one.make(name)
    one.on_attach = one.unlink
    with pytest.raises(QueueNotFound):
        opened(create=False)


def test_opening_gives_up_if_the_queue_keeps_appearing_and_vanishing(
    one: FakeBackend, name: str, opened: Opening
) -> None:
    """`open_timeout` limits the retries."""
    one.on_create = one.make
    one.on_attach = one.unlink
    with pytest.raises(TimedOutError, match="other processes created and unlinked it"):
        opened(open_timeout=0.02)


def test_a_queue_that_appears_before_the_second_look_is_attached_to(
    one: FakeBackend, name: str, opened: Opening
) -> None:
    """Rule 3: under the name lock, `open` searches again."""
    looks = itertools.count()

    def create_before_the_second_look(name: str) -> None:
        if next(looks) == 1:
            one.make(name, max_messages=3)

    one.on_exists = create_before_the_second_look
    assert opened().max_messages == 3


def test_under_the_lock_only_the_chosen_backend_is_probed_again(
    one: FakeBackend, two: FakeBackend, opened: Opening
) -> None:
    """C31: the choice is made before, and stands while the name is free and that backend usable."""
    probes: list[str] = []
    one.on_probe = lambda _: probes.append("one")
    two.on_probe = lambda _: probes.append("two")
    assert opened().backend == "one"
    assert sorted(probes) == ["one", "one", "two"]


def test_a_chosen_backend_that_is_unusable_under_the_lock_is_passed_over(
    one: FakeBackend, two: FakeBackend, opened: Opening
) -> None:
    """C31: all backends are probed again."""
    probes = itertools.count()

    def remove_disk(_: str) -> None:
        if next(probes):
            one.availability = Availability.no("its disk was removed")

    one.on_probe = remove_disk
    assert opened().backend == "two"


def test_waiting_for_the_name_lock_may_be_unlimited(one: FakeBackend, opened: Opening) -> None:
    """open_timeout=None waits without a limit."""
    assert opened(open_timeout=None).backend == "one"


def test_opening_without_waiting_creates_if_the_name_lock_is_free(one: FakeBackend, opened: Opening) -> None:
    """open_timeout=0 tries once."""
    assert opened(open_timeout=0).backend == "one"


def test_the_work_of_opening_does_not_count_as_waiting(
    one: FakeBackend, name: str, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine, loading the backends takes seconds; a held lock would then end the call at once."""
    clock = [monotonic()]

    def look(_: str) -> None:
        clock[0] += 60

    one.on_exists = look
    held = ExitStack()
    for module in (open_request, name_lock):
        monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    monkeypatch.setattr(name_lock, "pause", lambda *_, **__: held.close())
    with held:
        held.enter_context(name_lock.name_lock(name, NEVER))
        assert opened(open_timeout=1).backend == "one"
