"""From a name to a handle: arguments, URLs, races with other processes, and refusals."""

import copy
import itertools
import math
import pickle
import re
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

import ipcq
from core.conftest import Installed, Thread
from core.fakes import HOST, FakeBackend, raising
from ipcq._opening import name_lock, open_request, rendezvous
from ipcq._process.deadline import NEVER
from ipcq.backend import Availability, Capabilities, Persistence, Request, Scope
from ipcq.errors import (
    BackendUnavailable,
    BackendUnknown,
    InvalidArgument,
    InvalidName,
    LimitExceeded,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueExists,
    QueueMismatch,
    QueueNotFound,
    TimedOutError,
    Unsupported,
)

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


# Arguments

BAD_ARGUMENTS = [
    *[(option, value) for option in ("create", "exclusive", "read", "write") for value in (None, 1, 0, "yes", [])],
    *[(option, value) for option in ("priorities", "other_users", "allow_pickle") for value in (None, 1, "yes", [])],
    *[
        (option, value)
        for option in ("max_messages", "max_message_size", "buffer_size")
        for value in (0, -1, True, 1.0, "4", math.nan, [])
    ],
    *[("mode", value) for value in (None, -1, 0o1000, 0o1600, True, "600", 384.0)],
    *[("lifetime", value) for value in (None, "", "for ever", 5, [])],
    *[("after_unlink", value) for value in (None, "", "ignore", 5, [])],
    *[("open_timeout", value) for value in (-1, math.nan, "1", True, [])],
    *[("serializer", value) for value in (None, "", "json", 5, [])],
    *[("require", value) for value in (None, 5, "nonsense", ["nonsense"], [5], [[]], "scope", "max_message_size")],
    ("type", 5),
    ("nonsense", 1),
    ("max_message", 4),
]


@pytest.mark.parametrize(("option", "value"), BAD_ARGUMENTS)
def test_a_bad_argument_is_refused(opened: Opening, option: str, value: object) -> None:
    """Every invalid argument raises InvalidArgument."""
    with pytest.raises(InvalidArgument):
        opened("memory", **{option: value})


@pytest.mark.parametrize(("option", "value"), BAD_ARGUMENTS)
def test_a_refusal_names_the_queue_and_the_backend(opened: Opening, name: str, option: str, value: object) -> None:
    """The text begins with both."""
    with pytest.raises(InvalidArgument, match=f"^queue '{name}' on backend 'memory': "):
        opened("memory", **{option: value})


@pytest.mark.parametrize(("option", "value"), BAD_ARGUMENTS)
def test_a_refusal_names_the_option(opened: Opening, option: str, value: object) -> None:
    """The text names the invalid argument."""
    words = {"require": "require|capability", "serializer": "serializer"}.get(option, option)
    with pytest.raises(InvalidArgument, match=words):
        opened("memory", **{option: value})


@pytest.mark.parametrize(("option", "value"), BAD_ARGUMENTS)
def test_a_refused_opening_creates_nothing(opened: Opening, name: str, option: str, value: object) -> None:
    """Arguments are checked before the backend is called."""
    with pytest.raises(InvalidArgument):
        opened("memory", **{option: value})
    assert not ipcq.exists(name, "memory")


@pytest.mark.parametrize("value", [-1, math.nan, "1", True, []])
def test_a_bad_wait_is_refused(opened: Opening, value: Any) -> None:
    """It is a number of seconds of at least 0, or None."""
    with pytest.raises(InvalidArgument, match="wait must be"):
        opened("memory", create=False, wait=value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"read": False, "write": False}, "leave nothing that the handle could do"),
        ({"exclusive": True, "create": False}, "create=False forbids it"),
        ({"wait": 1}, "wait= needs create=False"),
        ({"wait": 0}, "wait= needs create=False"),
        ({"serializer": "pickle"}, "allow_pickle=True on both ends"),
        ({"serializer": "raw", "type": int}, "type= needs serializer='msgspec'"),
        ({"max_messages": 100, "max_message_size": 100, "buffer_size": 100}, "leave one of them out"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(opened: Opening, options: dict[str, Any], words: str) -> None:
    """Each is valid alone, but not together."""
    with pytest.raises(InvalidArgument, match=words):
        opened("memory", **options)


def test_a_mistyped_option_gets_a_suggestion(opened: Opening) -> None:
    """The error has a "did you mean"."""
    with pytest.raises(InvalidArgument, match="no option 'max_message': did you mean 'max_messages'"):
        opened("memory", max_message=4)


def test_a_mistyped_option_of_a_backend_gets_a_suggestion(one: FakeBackend, opened: Opening) -> None:
    """The options of the backend are among the candidates."""
    with pytest.raises(InvalidArgument, match="did you mean 'depth'"):
        opened("one", dept=4)


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o700, 0o600])
def test_a_mode_may_have_any_permission_bits(one: FakeBackend, opened: Opening, mode: int) -> None:
    """It is a number from 0 to 0o777."""
    assert opened("one", mode=mode).mode == mode


@pytest.mark.parametrize("require", ["peek", ["peek"], ("peek",), {"peek"}, iter(["peek"])])
def test_capabilities_are_required_by_name(one: FakeBackend, opened: Opening, require: Any) -> None:
    """`require` takes a str or an iterable of them."""
    assert opened("one", require=require).capabilities.peek


# URLs


def test_a_url_names_the_backend(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """two:///jobs opens on two, although one ranks higher."""
    with ipcq.open(f"two://{name}") as queue:
        assert queue.backend == "two"


def test_the_options_of_a_url_count(one: FakeBackend, name: str) -> None:
    """They are in its query."""
    with ipcq.open(f"one://{name}?max_messages=3&max_message_size=64&mode=640") as queue:
        assert (queue.max_messages, queue.max_message_size, queue.mode) == (3, 64, 0o640)


def test_the_serializer_of_a_url_counts(one: FakeBackend, name: str) -> None:
    """The query also has options that do not concern the backend."""
    with ipcq.open(f"one://{name}?serializer=raw") as queue, pytest.raises(ipcq.EncodeError, match="'raw'"):
        queue.put("text")


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("depth=9", {"depth": 9}),
        ("lock=file", {"lock": "file"}),
        ("fast=no", {"fast": False}),
        ("depth=9&lock=file", {"depth": 9, "lock": "file"}),
    ],
)
def test_a_url_may_have_options_of_a_backend(one: FakeBackend, name: str, query: str, options: dict[str, Any]) -> None:
    """Each gets the type that the backend declares."""
    ipcq.open(f"one://{name}?{query}").close()
    assert one.requests[0].options == options


def test_an_argument_may_be_an_option_of_a_backend(one: FakeBackend, opened: Opening) -> None:
    """`**backend_options` reach the backend."""
    opened("one", depth=9)
    assert one.requests[0].options == {"depth": 9}


@pytest.mark.parametrize("value", ["nine", 9.5, None, []])
def test_an_option_of_a_backend_must_have_its_type(one: FakeBackend, opened: Opening, value: object) -> None:
    """The backend only gets values of the type that it declares."""
    with pytest.raises(InvalidArgument, match="option depth"):
        opened("one", depth=value)


@pytest.mark.parametrize("query", ["nonsense=1", "max_message=4"])
def test_an_unknown_option_in_a_url_is_refused(name: str, query: str) -> None:
    """The same holds for an argument."""
    with pytest.raises(InvalidArgument, match="no option"):
        ipcq.open(f"memory://{name}?{query}")


@pytest.mark.parametrize("option", ["allow_pickle=true", "type=int"])
def test_a_url_cannot_enable_options_that_run_code(name: str, option: str) -> None:
    """C26: a string from a configuration must not allow that."""
    with pytest.raises(InvalidArgument, match=r"as an argument of ipcq.open"):
        ipcq.open(f"memory://{name}?{option}")


def test_url_and_argument_may_have_the_same_value(one: FakeBackend, name: str) -> None:
    """Equal values do not contradict each other."""
    said = {"max_messages": 3, "lock": "file", "depth": 9}
    with ipcq.open(f"one://{name}?max_messages=3&lock=file&depth=9", "one", **said) as queue:
        assert queue.max_messages == 3


@pytest.mark.parametrize(("query", "options"), [("max_messages=3", {"max_messages": 4}), ("depth=9", {"depth": 8})])
def test_url_and_argument_that_differ_are_refused(
    one: FakeBackend, name: str, query: str, options: dict[str, Any]
) -> None:
    """The error shows both values."""
    with pytest.raises(InvalidArgument, match=r"is '?\d'? in the URL, but \d as an argument"):
        ipcq.open(f"one://{name}?{query}", **options)


def test_url_and_argument_that_name_two_backends_are_refused(name: str) -> None:
    """A queue is on one backend."""
    with pytest.raises(InvalidArgument, match="names backend 'memory', but the argument names 'mqueue'"):
        ipcq.open(f"memory://{name}", "mqueue")


@pytest.mark.parametrize("address", ["jobs", "", None, 5, "memory:///a/b", "/" + "a" * 255])
def test_a_bad_name_is_refused(address: Any) -> None:
    """`open` applies the rule for names."""
    with pytest.raises(InvalidName):
        ipcq.open(address)


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
    """It has one reason for each backend."""
    one.on_create = raising(Unsupported())
    with pytest.raises(BackendUnavailable) as caught:
        opened(require=["nameless"])
    assert set(caught.value.reasons) == {info.name for info in ipcq.backends()}


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


# Attaching


@pytest.mark.parametrize("backend", ["auto", "one"])
def test_a_missing_queue_is_not_found(one: FakeBackend, name: str, opened: Opening, backend: str) -> None:
    """With create=False, a missing name raises QueueNotFound."""
    with pytest.raises(QueueNotFound, match=f"queue '{name}' on backend '{backend}': no such queue: create it"):
        opened(backend, create=False)


def test_attaching_creates_nothing(one: FakeBackend, name: str, opened: Opening) -> None:
    """This holds for a failed attempt with create=False."""
    with pytest.raises(QueueNotFound):
        opened(create=False)
    assert not one.queues


def test_attaching_takes_no_lock(one: FakeBackend, name: str, opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name lock is only needed to create."""
    one.make(name)
    with monkeypatch.context() as without:
        without.delattr(rendezvous, "name_lock")
        assert opened().backend == "one"


def test_waiting_ends_when_the_queue_appears(
    one: FakeBackend, name: str, opened: Opening, start: Callable[..., Thread]
) -> None:
    """`wait=` waits until the queue exists."""
    looked = threading.Event()
    one.on_exists = lambda name: looked.set()
    waiter = start(opened, create=False, wait=60)
    looked.wait()
    one.make(name)
    assert waiter.outcome().backend == "one"


def test_waiting_for_a_queue_ends_at_its_timeout(one: FakeBackend, opened: Opening) -> None:
    """After `wait` seconds, it raises QueueNotFound."""
    with pytest.raises(QueueNotFound):
        opened(create=False, wait=0.02)


def test_waiting_zero_seconds_searches_once(one: FakeBackend, opened: Opening) -> None:
    """wait=0 does not wait."""
    looks: list[str] = []
    one.on_exists = looks.append
    with pytest.raises(QueueNotFound):
        opened(create=False, wait=0)
    assert len(looks) == 1


@pytest.mark.parametrize("backend", ["auto", "one"])
def test_an_exclusive_creation_of_an_existing_queue_is_refused(
    one: FakeBackend, name: str, opened: Opening, backend: str
) -> None:
    """It raises QueueExists, which names the backend."""
    one.make(name)
    with pytest.raises(QueueExists, match=f"queue '{name}' on backend 'one'"):
        opened(backend, exclusive=True)


def test_an_exclusive_creation_fails_on_whichever_backend_the_queue_exists(
    one: FakeBackend, two: FakeBackend, name: str, opened: Opening
) -> None:
    """`auto` does not create a second queue of a name."""
    two.make(name)
    with pytest.raises(QueueExists, match="on backend 'two'"):
        opened(exclusive=True)


# Mismatch

MISMATCHES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"max_messages": 4}, {"max_messages": 5}, "max_messages is 4, asked for 5"),
    ({"max_message_size": 64}, {"max_message_size": 65}, "max_message_size is 64, asked for 65"),
    ({"buffer_size": 999}, {"buffer_size": 998}, "buffer_size is 999, asked for 998"),
    ({}, {"buffer_size": 998}, "buffer_size is None, asked for 998"),
    ({"priorities": False}, {"priorities": True}, "priorities is False, asked for True"),
    ({"lifetime": "persistent"}, {"lifetime": "last-close"}, "lifetime is 'persistent', asked for 'last-close'"),
    (
        {"max_messages": 4, "max_message_size": 64},
        {"max_messages": 5, "max_message_size": 65},
        "max_messages is 4, asked for 5; max_message_size is 64, asked for 65",
    ),
]


@pytest.mark.parametrize(("there", "asked", "words"), MISMATCHES)
def test_a_queue_that_differs_is_a_mismatch_that_names_both(
    one: FakeBackend, name: str, opened: Opening, there: dict[str, Any], asked: dict[str, Any], words: str
) -> None:
    """The error shows the limit of the queue and the requested one."""
    one.make(name, **there)
    with pytest.raises(QueueMismatch) as caught:
        opened(**asked)
    assert str(caught.value) == (
        f"queue '{name}' on backend 'one': {words}: leave that out to use the existing queue, or unlink it first"
    )


def test_a_mismatch_closes_the_channel(one: FakeBackend, name: str, opened: Opening) -> None:
    """C17: a failed opening leaves nothing open."""
    one.make(name, max_messages=4)
    with pytest.raises(QueueMismatch):
        opened(max_messages=5)
    assert [channel.closings for channel in one.channels] == [1]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"max_messages": 4},
        {"max_messages": 4, "max_message_size": 64},
        {"priorities": False},
        {"mode": 0o640},
        {"serializer": "raw"},
        {"type": int},
        {"read": False},
        {"after_unlink": "continue"},
    ],
)
def test_options_that_were_not_requested_explicitly_are_not_compared(
    one: FakeBackend, name: str, opened: Opening, asked: dict[str, Any]
) -> None:
    """Serializer, type and rights are properties of a handle, not of the queue."""
    one.make(name, max_messages=4, max_message_size=64, priorities=True, lifetime="last-close")
    assert opened(**asked).max_messages == 4


# Pickle


@pytest.mark.parametrize("options", [{"other_users": True}, {"mode": 0o620}, {"mode": 0o602}, {"mode": 0o666}])
@pytest.mark.parametrize("serializer", ["pickle", "msgpack"])
def test_pickles_from_other_users_are_refused(
    one: FakeBackend, opened: Opening, options: dict[str, Any], serializer: str
) -> None:
    """C26: allowing pickles on a queue that others can write to raises PermissionDenied."""
    with pytest.raises(PermissionDenied, match="their pickles would run code"):
        opened("one", serializer=serializer, allow_pickle=True, **options)


@pytest.mark.parametrize("mode", [0o622, 0o620, 0o602])
def test_pickles_from_a_queue_that_others_can_write_to_are_refused(
    one: FakeBackend, name: str, opened: Opening, mode: int
) -> None:
    """C26: the mode of the existing queue counts."""
    one.make(name, mode=mode)
    with pytest.raises(PermissionDenied, match=f"queue '{name}' on backend 'one'"):
        opened(allow_pickle=True)


def test_refusing_pickles_closes_the_channel(one: FakeBackend, name: str, opened: Opening) -> None:
    """C17: a failed opening leaves nothing open."""
    one.make(name, mode=0o622)
    with pytest.raises(PermissionDenied):
        opened(allow_pickle=True)
    assert [channel.closings for channel in one.channels] == [1]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_pickles_are_allowed_if_only_this_user_can_write(one: FakeBackend, opened: Opening, mode: int) -> None:
    """Other users who can only read cannot run code here."""
    assert opened("one", serializer="pickle", allow_pickle=True, mode=mode).backend == "one"


# Races with programs that do not take the name lock


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


# Requests


def test_the_backend_gets_the_whole_request(one: FakeBackend, opened: Opening) -> None:
    """All options of a queue are in it."""
    opened(
        mode=0o640,
        max_messages=3,
        max_message_size=64,
        buffer_size=999,
        priorities=True,
        lifetime="last-close",
        read=False,
        other_users=True,
        after_unlink="continue",
        depth=9,
    )
    assert one.requests[0] == Request(
        mode=0o640,
        max_messages=3,
        max_message_size=64,
        buffer_size=999,
        priorities=True,
        lifetime="last-close",
        read=False,
        other_users=True,
        after_unlink="continue",
        options={"depth": 9},
    )


MINIMA: list[Any] = [
    {"persistence": Persistence.KERNEL},
    {"persistence": "kernel"},
    {"persistence": "Holders"},
    ["persistence:kernel", "peek"],
    "persistence:kernel",
    ["persistence:kernel", "persistence:holders"],
    {"scope": Scope.HOST, "peek": True, "nameless": False},
    "peek:yes",
    {"max_message_size": 8192},
    "max_message_size:8192",
]


@pytest.mark.parametrize("require", MINIMA)
def test_a_queue_that_meets_the_minima_is_opened(one: FakeBackend, opened: Opening, require: Any) -> None:
    """Minima are a mapping, or texts with a colon."""
    assert opened("one", require=require).backend == "one"


LACKING: list[tuple[Any, str]] = [
    ({"persistence": Persistence.DISK}, "its persistence is 'kernel', but at least 'disk' is required"),
    ("persistence:synced", "its persistence is 'kernel', but at least 'synced' is required"),
    (["persistence:disk", "persistence:kernel"], "its persistence is 'kernel', but at least 'disk' is required"),
    ({"scope": "network"}, "its scope is 'host', but at least 'network' is required"),
    ({"notify": True}, "it lacks the required capability 'notify'"),
    ({"max_message_size": 8193}, "its max_message_size is 8192, but at least 8193 is required"),
]


@pytest.mark.parametrize(("require", "words"), LACKING)
def test_an_existing_queue_is_compared_with_the_minima(
    one: FakeBackend, name: str, opened: Opening, require: Any, words: str
) -> None:
    """The capabilities and limits of the queue count, and the error shows both values."""
    one.make(name)
    with pytest.raises(QueueMismatch, match=re.escape(words)):
        opened(require=require)


def test_an_existing_queue_may_be_larger_than_the_minimum(one: FakeBackend, name: str, opened: Opening) -> None:
    """Unlike a requested limit, a minimum need not be equal."""
    one.make(name, max_message_size=1 << 20)
    assert opened(require={"max_message_size": 100_000}).max_message_size == 1 << 20


def test_a_last_close_queue_is_not_persistent(one: FakeBackend, name: str, opened: Opening) -> None:
    """The lifetime of the queue counts, not the persistence of its backend."""
    one.make(name, lifetime="last-close")
    with pytest.raises(QueueMismatch, match="its persistence is 'holders', but at least 'kernel' is required"):
        opened(require="persistence:kernel")


def test_a_queue_is_created_as_large_as_the_minimum(one: FakeBackend, opened: Opening) -> None:
    """A smaller queue would be useless."""
    assert opened(require={"max_message_size": 100_000}).max_message_size == 100_000


def test_a_small_minimum_does_not_make_a_queue_smaller(one: FakeBackend, opened: Opening) -> None:
    """By default, messages of 8 KiB fit into every queue."""
    opened(require={"max_message_size": 100})
    assert one.requests[0].max_message_size is None


def test_a_requested_size_may_exceed_the_minimum(one: FakeBackend, opened: Opening) -> None:
    """The queue is created as requested."""
    assert opened(max_message_size=200_000, require={"max_message_size": 100_000}).max_message_size == 200_000


def test_a_url_may_have_minima(one: FakeBackend, name: str) -> None:
    """Minima in a URL are separated by commas."""
    with pytest.raises(Unsupported, match="its persistence is 'kernel', but at least 'disk' is required"):
        ipcq.open(f"one://{name}?require=persistence:disk,peek")


BAD_MINIMA: list[tuple[Any, str]] = [
    ({"persistence": "paper"}, "persistence takes one of process, holders, kernel, disk, synced, not 'paper'"),
    ({"persistence": 3}, "persistence takes one of process, holders, kernel, disk, synced, not 3"),
    ({"persistence": Scope.HOST}, "persistence takes one of process, holders, kernel, disk, synced, not "),
    (
        "persistence",
        "persistence needs a minimum, one of process, holders, kernel, disk, synced, as in persistence:pro",
    ),
    ("persistence:", "persistence takes one of process, holders, kernel, disk, synced, not ''"),
    ({"max_message_size": True}, "max_message_size needs a minimum, an int of 1 or more, not True"),
    ({"max_message_size": None}, "max_message_size needs a minimum, an int of 1 or more, not None"),
    ({"max_message_size": 0}, "max_message_size needs a minimum, an int of 1 or more, not 0"),
    ("max_message_size:1.5", "max_message_size needs a minimum, an int of 1 or more, not '1.5'"),
    ({"peek": 1}, "require: peek must be True or False, not 1"),
    ("peek:maybe", "option require=peek='maybe': write true or false"),
    (
        {"colour": True},
        "require: no capability 'colour': choose from after_unlink, atomic_batch, death_notice",
    ),
    ({5: True}, "require: no capability 5: choose from"),
]


@pytest.mark.parametrize(("require", "words"), BAD_MINIMA)
def test_a_bad_minimum_is_refused_with_the_valid_values(
    one: FakeBackend, opened: Opening, require: Any, words: str
) -> None:
    """The error lists the valid names or values."""
    with pytest.raises(InvalidArgument, match=re.escape(words)):
        opened("one", require=require)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"max_message_size": 99, "require": {"max_message_size": 100}},
            "max_message_size=99 is less than the minimum 100 in require=: raise it, or lower the minimum",
        ),
        ({"lifetime": "last-close", "require": "persistence:kernel"}, "lifetime='last-close' removes the queue"),
    ],
)
def test_a_minimum_that_contradicts_an_option_is_refused(
    one: FakeBackend, opened: Opening, options: dict[str, Any], words: str
) -> None:
    """Each is valid alone."""
    with pytest.raises(InvalidArgument, match=words):
        opened("one", **options)


def test_requiring_priorities_requests_them(one: FakeBackend, opened: Opening) -> None:
    """A queue without them would be useless."""
    assert opened(require="priorities").priorities


class Lesser(FakeBackend):
    """A backend whose queues lack one of its capabilities."""

    def create(self, name: str, request: Request) -> Any:
        channel = super().create(name, request)
        channel.capabilities = replace(channel.capabilities, peek=False)
        return channel


@pytest.fixture
def lesser(installed: Installed) -> Lesser:
    """Return an installed backend whose queues lack the capability `peek`."""
    fake = Lesser("lesser", rank=950, capabilities=ALL)
    installed.backend(fake)
    return fake


def test_a_created_queue_that_lacks_a_requirement_is_refused(lesser: Lesser, opened: Opening) -> None:
    """The backend has the capability in general, but not for this request."""
    with pytest.raises(Unsupported, match="for this request it lacks the required capability 'peek': require less"):
        opened("lesser", require="peek")


def test_a_created_queue_that_lacks_a_requirement_is_removed(lesser: Lesser, opened: Opening) -> None:
    """A failed creation leaves no queue behind."""
    with pytest.raises(Unsupported):
        opened("lesser", require="peek")
    assert not lesser.queues


def test_a_created_queue_that_lacks_a_requirement_is_closed(lesser: Lesser, opened: Opening) -> None:
    """A failed creation leaves no channel open."""
    with pytest.raises(Unsupported):
        opened("lesser", require="peek")
    assert [channel.closings for channel in lesser.channels] == [1]


def test_if_a_created_queue_lacks_a_requirement_auto_tries_the_next_backend(
    lesser: Lesser, one: FakeBackend, opened: Opening
) -> None:
    """Rule 2: that backend cannot honour the request."""
    assert opened(require="peek").backend == "one"


# Pickled handles


@pytest.mark.parametrize(
    "options",
    [
        {"read": False},
        {"write": False},
        {"after_unlink": "continue"},
        {"other_users": True},
    ],
)
def test_a_pickled_handle_attaches_with_the_same_rights(
    one: FakeBackend, opened: Opening, options: dict[str, Any]
) -> None:
    """The copy can do what the original can."""
    queue = opened(**options)
    with pickle.loads(pickle.dumps(queue)):
        assert one.requests[1] == one.requests[0] != Request()


def test_a_pickled_handle_keeps_its_serializer(one: FakeBackend, opened: Opening) -> None:
    """`allow_pickle` is kept too."""
    queue = opened(serializer="pickle", allow_pickle=True)
    with pickle.loads(pickle.dumps(queue)) as copy:
        copy.put({1, 2})
    assert queue.get(timeout=5) == {1, 2}


def test_a_pickled_handle_attaches_to_the_backend_it_was_on(
    one: FakeBackend, two: FakeBackend, opened: Opening
) -> None:
    """`auto` would choose another one now."""
    queue = opened("two")
    with pickle.loads(pickle.dumps(queue)) as copy:
        assert copy.backend == "two"


def test_a_pickled_handle_creates_nothing(one: FakeBackend, opened: Opening) -> None:
    """Unpickling opens with create=False."""
    queue = opened()
    data = pickle.dumps(queue)
    queue.unlink()
    with pytest.raises(QueueNotFound):
        pickle.loads(data)
