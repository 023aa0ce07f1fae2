"""The backend on which a queue is opened: the named one, or the one that `auto` finds, with or without a preference."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from core import openings
from core.conftest import Installed
from core.fakes import HOST, FakeBackend, raising
from core.openings import ALL, Opening
from ipcq.backend import Availability, Capabilities
from ipcq.errors import (
    BackendUnavailable,
    BackendUnknown,
    LimitExceeded,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueMismatch,
    QueueNotFound,
    Unsupported,
)
from local_backends import local_backends

one, two, fleeting, opened = openings.one, openings.two, openings.fleeting, openings.opened

# Explicit and auto


def test_auto_creates_on_the_best(one: FakeBackend, two: FakeBackend, opened: Opening) -> None:
    """Rule 2: the best-ranked backend creates it."""
    assert opened().backend == "one"


def test_auto_attaches_where_the_queue_is(one: FakeBackend, two: FakeBackend, name: str, opened: Opening) -> None:
    """Rule 1: the queue exists there."""
    two.make(name)
    assert opened().backend == "two"


def test_auto_attaches_to_a_queue_that_was_created_with_a_named_backend(
    one: FakeBackend, two: FakeBackend, opened: Opening
) -> None:
    """Rule 1: it does not matter how the queue was created."""
    opened("two").put("hello")
    assert opened().get(timeout=5) == "hello"


def test_naming_a_backend_skips_the_search(one: FakeBackend, two: FakeBackend, name: str, opened: Opening) -> None:
    """With a named backend, a name may exist twice."""
    two.make(name)
    assert opened("one").backend == "one"


def test_a_name_on_two_backends_is_ambiguous(one: FakeBackend, two: FakeBackend, name: str, opened: Opening) -> None:
    """Rule 1: the error names the queue and lists both."""
    one.make(name)
    two.make(name)
    with pytest.raises(QueueMismatch, match=f"queue '{name}' .*: it exists on 'one' and 'two'"):
        opened()


def test_a_queue_that_moves_during_the_search_is_not_ambiguous(
    one: FakeBackend, two: FakeBackend, name: str, opened: Opening
) -> None:
    """Rule 1: it was on one backend, then on the other, and never on both."""
    one.make(name)

    def move(name: str) -> None:
        if name in one.queues:
            one.unlink(name)
            two.make(name)

    two.on_exists = move
    assert opened().backend == "two"


def test_a_queue_on_an_unusable_backend_is_an_error(
    one: FakeBackend, two: FakeBackend, name: str, opened: Opening
) -> None:
    """Rule 1: a second queue of the name is never created instead."""
    one.make(name)
    one.availability = Availability.no("no compiler")
    with pytest.raises(
        BackendUnavailable, match=f"queue '{name}' on backend 'one': the queue exists on this backend, .*no compil"
    ):
        opened()


def test_if_a_backend_cannot_honour_the_request_auto_tries_the_next(
    one: FakeBackend, two: FakeBackend, opened: Opening
) -> None:
    """Rule 2: this depends only on the request."""
    one.on_create = raising(Unsupported("not so"))
    assert opened().backend == "two"


SHORTAGES = [
    LimitExceeded(limit="queues_max", value=1, asked=2, remedy="remove some", errno=28),
    NoSpace("the disk is full: free some space"),
]


@pytest.mark.parametrize("error", SHORTAGES)
def test_if_there_is_no_space_no_other_backend_is_tried(
    one: FakeBackend, two: FakeBackend, opened: Opening, error: MessageQueueError
) -> None:
    """C31: the choice must not depend on free space, or two processes would choose differently."""
    one.on_create = raising(error)
    with pytest.raises(type(error)):
        opened()
    assert not two.channels


@pytest.mark.parametrize("error", SHORTAGES)
def test_if_there_is_no_space_the_next_backend_is_recommended(
    one: FakeBackend, two: FakeBackend, opened: Opening, error: MessageQueueError
) -> None:
    """C31: the user may name it."""
    one.on_create = raising(copy.copy(error))
    with pytest.raises(type(error), match=r"on backend 'one': .*, or try backend='two'$"):
        opened()


@pytest.mark.parametrize("shortage", [NoSpace(), MemoryError()])
def test_a_shortage_while_others_are_looked_for_does_not_replace_the_error(
    one: FakeBackend, opened: Opening, monkeypatch: pytest.MonkeyPatch, shortage: Exception
) -> None:
    """C24: what ran out may also keep other backends from being loaded."""
    one.on_create = raising(copy.copy(SHORTAGES[0]))
    monkeypatch.setattr("ipcq._opening.rendezvous._alternatives", lambda *_: raising(shortage)(""))
    with pytest.raises(LimitExceeded, match="queues_max"):
        opened()


def test_a_backend_that_cannot_honour_the_request_is_not_recommended(
    one: FakeBackend, two: FakeBackend, installed: Installed, opened: Opening
) -> None:
    """It refused the request a moment ago."""
    installed.backend(FakeBackend("three", rank=700, capabilities=ALL))
    one.on_create = raising(Unsupported("not so"))
    two.on_create = raising(NoSpace("the disk is full"))
    with pytest.raises(NoSpace, match=r"the disk is full, or try backend='three'$"):
        opened(require=["nameless"])


def test_if_only_a_weaker_backend_has_space_it_is_recommended_with_its_weakness(
    one: FakeBackend, fleeting: FakeBackend, opened: Opening
) -> None:
    """C31: the user has to accept that explicitly."""
    one.on_create = raising(NoSpace("the disk is full"))
    words = r"or try backend='fleeting' with lifetime='last-close', if the queue need not outlive its last handle$"
    with pytest.raises(NoSpace, match=words):
        opened(require=["nameless"])


def test_if_only_a_weaker_backend_can_honour_the_request_that_is_an_error(
    installed: Installed, fleeting: FakeBackend, opened: Opening
) -> None:
    """C31: a backend that keeps queues is usable here, only not for this request."""
    installed.backend(FakeBackend("plain", rank=900))
    with pytest.raises(BackendUnavailable, match=r"fleeting: .* pass lifetime='last-close' if that is enough"):
        opened(require=["nameless"])


def test_a_weaker_backend_is_used_if_the_lifetime_allows_it(fleeting: FakeBackend, opened: Opening) -> None:
    """There is no warning."""
    assert opened(lifetime="last-close", require=["nameless"]).backend == "fleeting"


def test_a_weaker_backend_is_used_if_it_is_named(fleeting: FakeBackend, opened: Opening) -> None:
    """There is no warning."""
    assert opened("fleeting").backend == "fleeting"


def test_if_creating_fails_in_another_way_no_other_backend_is_tried(
    one: FakeBackend, two: FakeBackend, opened: Opening
) -> None:
    """A missing permission is not a property of the request."""
    one.on_create = raising(PermissionDenied("not you"))
    with pytest.raises(PermissionDenied, match="on backend 'one': not you"):
        opened()


@pytest.mark.parametrize("told", ["one: not so", "two: not today", "memory: its queues are private"])
@pytest.mark.needs("memory")
def test_if_all_backends_fail_the_error_has_each_reason(
    one: FakeBackend, two: FakeBackend, opened: Opening, told: str
) -> None:
    """Rule 2: one error lists the reasons."""
    one.on_create = raising(Unsupported("not so"))
    two.on_create = raising(Unsupported("not today"))
    with pytest.raises(BackendUnavailable, match=told):
        opened(require=["nameless"])


def test_if_all_backends_fail_the_last_failure_is_the_cause(one: FakeBackend, opened: Opening) -> None:
    """The chain helps with debugging."""
    one.on_create = raising(Unsupported())
    with pytest.raises(BackendUnavailable) as caught:
        opened(require=["nameless"])
    assert isinstance(caught.value.__cause__, Unsupported)


def test_if_all_backends_fail_the_reasons_are_an_attribute(one: FakeBackend, opened: Opening) -> None:
    """It has one reason for each backend of this machine."""
    one.on_create = raising(Unsupported())
    with pytest.raises(BackendUnavailable) as caught:
        opened(require=["nameless"])
    assert set(caught.value.reasons) == {info.name for info in local_backends()}


@pytest.mark.parametrize("number", [LimitExceeded, NoSpace, Unsupported])
def test_if_a_named_backend_fails_another_is_recommended(
    one: FakeBackend, two: FakeBackend, opened: Opening, number: type[MessageQueueError]
) -> None:
    """The way out names a backend that can honour the request."""
    facts = {"limit": "x", "value": 1, "asked": 2, "remedy": "y", "errno": 1} if number is LimitExceeded else {}
    one.on_create = raising(number(**facts))
    with pytest.raises(number, match=r", or try backend='two'$"):
        opened("one")


def test_without_an_alternative_no_backend_is_recommended(one: FakeBackend, opened: Opening) -> None:
    """No other backend can honour the request."""
    one.on_create = raising(NoSpace())
    with pytest.raises(NoSpace, match=r"left for the queue$"):
        opened("one", require=["nameless"])


def test_a_more_persistent_backend_is_not_recommended_for_last_close(one: FakeBackend, opened: Opening) -> None:
    """The queue is to vanish with its last handle."""
    one.on_create = raising(NoSpace())
    with pytest.raises(NoSpace, match=r"left for the queue$"):
        opened("one", lifetime="last-close")


def test_another_backend_is_recommended_even_if_it_has_the_name(
    one: FakeBackend, two: FakeBackend, name: str, opened: Opening
) -> None:
    """Only capabilities count for the recommendation."""
    two.make(name)
    one.on_create = raising(NoSpace())
    with pytest.raises(NoSpace, match="backend='two'"):
        opened("one")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"priorities": True}, "it has no priorities"),
        ({"leases": True}, "it has no leases"),
        ({"max_deliveries": 3}, "it has no leases"),
        ({"lifetime": "last-close"}, "last handle"),
        ({"mode": 0o666}, "other users"),
        ({"require": "peek"}, "lacks the required capability 'peek'"),
        ({"max_message_size": 101}, "at most 100 bytes, but 101 were requested"),
    ],
)
def test_a_named_backend_that_cannot_honour_the_request_refuses(
    installed: Installed, opened: Opening, options: dict[str, Any], words: str
) -> None:
    """It raises Unsupported and creates nothing."""
    installed.backend(FakeBackend("plain", capabilities=replace(HOST, max_message_size=100)))
    with pytest.raises(Unsupported, match=words):
        opened("plain", **options)


def test_a_refusal_names_a_backend_that_can_honour_the_request(
    installed: Installed, one: FakeBackend, opened: Opening
) -> None:
    """It is in the text and in `alternatives`."""
    installed.backend(FakeBackend("plain"))
    with pytest.raises(Unsupported, match=r"use backend='one'$") as caught:
        opened("plain", require="nameless", priorities=True, lifetime="last-close")
    assert caught.value.alternatives == ("one",)


def test_a_refusal_names_a_private_backend_if_there_is_no_other(installed: Installed, opened: Opening) -> None:
    """With the condition that one process is enough."""
    installed.backend(FakeBackend("plain"))
    installed.backend(FakeBackend("private", capabilities=Capabilities(nameless=True)))
    with pytest.raises(Unsupported, match=r"'nameless': use backend='private' if one process is enough$") as caught:
        opened("plain", require="nameless")
    assert caught.value.alternatives == ("private",)


def test_a_refusal_names_no_backend_if_there_is_none(installed: Installed, opened: Opening) -> None:
    """The text ends with the reason."""
    installed.backend(FakeBackend("plain"))
    with pytest.raises(Unsupported, match=r"'nameless'$"):
        opened("plain", require="nameless")


def test_a_named_backend_that_cannot_honour_the_request_still_attaches(
    installed: Installed, name: str, opened: Opening
) -> None:
    """An existing queue only has to match what was requested explicitly."""
    plain = FakeBackend("plain")
    installed.backend(plain)
    plain.make(name, mode=0o666)
    assert opened("plain", mode=0o644).mode == 0o666


def test_an_existing_queue_must_have_the_required_capabilities(
    installed: Installed, name: str, opened: Opening
) -> None:
    """A queue without one is a mismatch."""
    plain = FakeBackend("plain")
    installed.backend(plain)
    plain.make(name)
    with pytest.raises(QueueMismatch, match="lacks the required capability 'peek'"):
        opened("plain", require="peek")


# IPCQ_BACKEND


def test_the_preference_decides_where_auto_creates(
    one: FakeBackend, two: FakeBackend, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IPCQ_BACKEND changes rule 2."""
    monkeypatch.setenv("IPCQ_BACKEND", "two")
    assert opened().backend == "two"


def test_the_preference_does_not_change_where_auto_attaches(
    one: FakeBackend, two: FakeBackend, name: str, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IPCQ_BACKEND changes only rule 2."""
    monkeypatch.setenv("IPCQ_BACKEND", "two")
    one.make(name)
    assert opened().backend == "one"


def test_the_preference_does_not_change_a_named_backend(
    one: FakeBackend, two: FakeBackend, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument takes precedence over the environment."""
    monkeypatch.setenv("IPCQ_BACKEND", "two")
    assert opened("one").backend == "one"


def test_an_empty_preference_is_ignored(one: FakeBackend, opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable counts as unset."""
    monkeypatch.setenv("IPCQ_BACKEND", "")
    assert opened().backend == "one"


def test_a_preference_that_is_not_installed_is_an_error(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable."""
    monkeypatch.setenv("IPCQ_BACKEND", "nonesuch")
    with pytest.raises(BackendUnknown, match=r"backend 'nonesuch'.* unset the environment variable IPCQ_BACKEND"):
        opened()


def test_a_preference_that_is_not_installed_does_not_prevent_attaching(
    one: FakeBackend, name: str, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IPCQ_BACKEND affects only rule 2, whatever its value."""
    monkeypatch.setenv("IPCQ_BACKEND", "nonesuch")
    with pytest.raises(QueueNotFound):
        opened(create=False)
    one.make(name)
    assert opened().backend == "one"


def test_a_preference_that_cannot_be_used_is_an_error(
    one: FakeBackend, two: FakeBackend, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an error even if another backend is usable."""
    monkeypatch.setenv("IPCQ_BACKEND", "two")
    two.availability = Availability.no("no compiler")
    with pytest.raises(BackendUnavailable, match="two: no compiler"):
        opened()


def test_a_preference_that_fails_is_an_error(
    one: FakeBackend, two: FakeBackend, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other backend is tried."""
    monkeypatch.setenv("IPCQ_BACKEND", "two")
    two.on_create = raising(NoSpace("the disk is full"))
    with pytest.raises(NoSpace, match="on backend 'two': the disk is full, or try backend='one'"):
        opened()


def test_a_preference_for_an_in_process_backend_is_an_error(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with that setting would never share a queue."""
    monkeypatch.setenv("IPCQ_BACKEND", "memory")
    with pytest.raises(BackendUnavailable, match="memory: its queues are private to one process"):
        opened()
