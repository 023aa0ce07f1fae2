"""From a name to a handle: arguments, URLs, meeting others, and what is refused."""

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

# Of the backends that these tests meet, only these fakes can make nameless queues.
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
    """Return the backend that ``auto`` likes best."""
    fake = FakeBackend("one", rank=900, capabilities=ALL, options={"depth": int, "lock": str, "fast": bool})
    installed.backend(fake)
    return fake


@pytest.fixture
def two(installed: Installed) -> FakeBackend:
    """Return the backend that comes second."""
    fake = FakeBackend("two", rank=800, capabilities=ALL)
    installed.backend(fake)
    return fake


@pytest.fixture
def fleeting(installed: Installed) -> FakeBackend:
    """Return a backend whose queues go with their last handle, and which can do all else."""
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
    """Everything a user can pass wrongly gets an InvalidArgument."""
    with pytest.raises(InvalidArgument):
        opened("memory", **{option: value})


@pytest.mark.parametrize(("option", "value"), BAD_ARGUMENTS)
def test_a_refusal_names_the_queue_and_the_backend(opened: Opening, name: str, option: str, value: object) -> None:
    """Where it was to be stands in the text."""
    with pytest.raises(InvalidArgument, match=f"^queue '{name}' on backend 'memory': "):
        opened("memory", **{option: value})


@pytest.mark.parametrize(("option", "value"), BAD_ARGUMENTS)
def test_a_refusal_names_the_option(opened: Opening, option: str, value: object) -> None:
    """Which argument it was stands in the text."""
    words = {"require": "require|capability", "serializer": "serializer"}.get(option, option)
    with pytest.raises(InvalidArgument, match=words):
        opened("memory", **{option: value})


@pytest.mark.parametrize(("option", "value"), BAD_ARGUMENTS)
def test_a_refused_opening_creates_nothing(opened: Opening, name: str, option: str, value: object) -> None:
    """Arguments are checked before anything is touched."""
    with pytest.raises(InvalidArgument):
        opened("memory", **{option: value})
    assert not ipcq.exists(name, "memory")


@pytest.mark.parametrize("value", [-1, math.nan, "1", True, []])
def test_a_bad_wait_is_refused(opened: Opening, value: Any) -> None:
    """Seconds from 0 on, or None."""
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
    """Each of two may be right, and both together are not."""
    with pytest.raises(InvalidArgument, match=words):
        opened("memory", **options)


def test_an_option_that_nearly_is_one_is_guessed(opened: Opening) -> None:
    """Unknown ones are refused with a "did you mean"."""
    with pytest.raises(InvalidArgument, match="no option 'max_message': did you mean 'max_messages'"):
        opened("memory", max_message=4)


def test_a_backends_own_option_is_guessed(one: FakeBackend, opened: Opening) -> None:
    """The backend's own options are among those that may be meant."""
    with pytest.raises(InvalidArgument, match="did you mean 'depth'"):
        opened("one", dept=4)


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o700, 0o600])
def test_a_mode_is_any_permission_bits(one: FakeBackend, opened: Opening, mode: int) -> None:
    """From 0 to 0o777."""
    assert opened("one", mode=mode).mode == mode


@pytest.mark.parametrize("require", ["peek", ["peek"], ("peek",), {"peek"}, iter(["peek"])])
def test_abilities_are_required_by_name(one: FakeBackend, opened: Opening, require: Any) -> None:
    """One str or any iterable of them."""
    assert opened("one", require=require).capabilities.peek


# URLs


def test_a_url_names_the_backend(one: FakeBackend, two: FakeBackend, name: str) -> None:
    """two:///jobs opens on two though one is better."""
    with ipcq.open(f"two://{name}") as queue:
        assert queue.backend == "two"


def test_a_urls_options_count(one: FakeBackend, name: str) -> None:
    """Options may ride in its query."""
    with ipcq.open(f"one://{name}?max_messages=3&max_message_size=64&mode=640") as queue:
        assert (queue.max_messages, queue.max_message_size, queue.mode) == (3, 64, 0o640)


def test_a_urls_serializer_counts(one: FakeBackend, name: str) -> None:
    """Options that are not the backend's ride there, too."""
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
def test_a_backends_own_option_rides_in_a_url(one: FakeBackend, name: str, query: str, options: dict[str, Any]) -> None:
    """It gets the type that the backend declares."""
    ipcq.open(f"one://{name}?{query}").close()
    assert one.requests[0].options == options


def test_a_backends_own_option_is_an_argument(one: FakeBackend, opened: Opening) -> None:
    """**backend_options go to the backend."""
    opened("one", depth=9)
    assert one.requests[0].options == {"depth": 9}


@pytest.mark.parametrize("value", ["nine", 9.5, None, []])
def test_a_backends_own_option_has_its_type(one: FakeBackend, opened: Opening, value: object) -> None:
    """The backend gets what it declares or nothing."""
    with pytest.raises(InvalidArgument, match="option depth"):
        opened("one", depth=value)


@pytest.mark.parametrize("query", ["nonsense=1", "max_message=4"])
def test_an_unknown_option_in_a_url_is_refused(name: str, query: str) -> None:
    """As an argument would be."""
    with pytest.raises(InvalidArgument, match="no option"):
        ipcq.open(f"memory://{name}?{query}")


@pytest.mark.parametrize("option", ["allow_pickle=true", "type=int"])
def test_a_url_cannot_turn_on_what_runs_code(name: str, option: str) -> None:
    """C26: a string from a configuration allows nothing."""
    with pytest.raises(InvalidArgument, match=r"as an argument of ipcq.open"):
        ipcq.open(f"memory://{name}?{option}")


def test_url_and_argument_may_say_the_same(one: FakeBackend, name: str) -> None:
    """Twice the same is no contradiction."""
    said = {"max_messages": 3, "lock": "file", "depth": 9}
    with ipcq.open(f"one://{name}?max_messages=3&lock=file&depth=9", "one", **said) as queue:
        assert queue.max_messages == 3


@pytest.mark.parametrize(("query", "options"), [("max_messages=3", {"max_messages": 4}), ("depth=9", {"depth": 8})])
def test_url_and_argument_that_differ_are_refused(
    one: FakeBackend, name: str, query: str, options: dict[str, Any]
) -> None:
    """A contradiction is InvalidArgument that names both."""
    with pytest.raises(InvalidArgument, match=r"is '?\d'? in the URL, but \d as an argument"):
        ipcq.open(f"one://{name}?{query}", **options)


def test_url_and_argument_that_name_two_backends_are_refused(name: str) -> None:
    """A queue is on one."""
    with pytest.raises(InvalidArgument, match="names backend 'memory', but the argument names 'mqueue'"):
        ipcq.open(f"memory://{name}", "mqueue")


@pytest.mark.parametrize("address", ["jobs", "", None, 5, "memory:///a/b", "/" + "a" * 255])
def test_a_bad_name_is_refused(address: Any) -> None:
    """One rule everywhere."""
    with pytest.raises(InvalidName):
        ipcq.open(address)


# Explicit and auto


def test_auto_creates_on_the_best(one: FakeBackend, two: FakeBackend, opened: Opening) -> None:
    """Rule 2."""
    assert opened().backend == "one"


def test_auto_attaches_where_the_queue_is(one: FakeBackend, two: FakeBackend, name: str, opened: Opening) -> None:
    """Rule 1."""
    two.make(name)
    assert opened().backend == "two"


def test_who_opens_by_auto_meets_who_created_by_name(one: FakeBackend, two: FakeBackend, opened: Opening) -> None:
    """Rule 1: attached to by auto, however it was created."""
    opened("two").put("hello")
    assert opened().get(timeout=5) == "hello"


def test_naming_a_backend_skips_the_search(one: FakeBackend, two: FakeBackend, name: str, opened: Opening) -> None:
    """An explicit backend may shadow a name."""
    two.make(name)
    assert opened("one").backend == "one"


def test_a_name_on_two_backends_is_ambiguous(one: FakeBackend, two: FakeBackend, name: str, opened: Opening) -> None:
    """Rule 1: two found, an error that lists both and names the queue."""
    one.make(name)
    two.make(name)
    with pytest.raises(QueueMismatch, match=f"queue '{name}' .*: it exists on 'one' and 'two'"):
        opened()


def test_a_queue_that_moves_while_it_is_looked_for_is_not_taken_for_two(
    one: FakeBackend, two: FakeBackend, name: str, opened: Opening
) -> None:
    """Rule 1: it was here and is there, and never on both."""
    one.make(name)

    def move(name: str) -> None:
        if name in one.queues:
            one.unlink(name)
            two.make(name)

    two.on_exists = move
    assert opened().backend == "two"


def test_what_exists_where_it_cannot_be_used_is_an_error(
    one: FakeBackend, two: FakeBackend, name: str, opened: Opening
) -> None:
    """DESIGN 5: an error that says so, never a second queue."""
    one.make(name)
    one.availability = Availability.no("no compiler")
    with pytest.raises(
        BackendUnavailable, match=f"queue '{name}' on backend 'one': the queue exists on this backend, .*no compil"
    ):
        opened()


def test_where_a_backend_cannot_honour_the_request_auto_tries_the_next(
    one: FakeBackend, two: FakeBackend, opened: Opening
) -> None:
    """Rule 2: that depends on the request alone."""
    one.on_create = raising(Unsupported("not so"))
    assert opened().backend == "two"


SHORTAGES = [
    LimitExceeded(limit="queues_max", value=1, asked=2, remedy="remove some", errno=28),
    NoSpace("the disk is full: free some space"),
]


@pytest.mark.parametrize("error", SHORTAGES)
def test_where_there_is_no_room_no_other_backend_is_tried(
    one: FakeBackend, two: FakeBackend, opened: Opening, error: MessageQueueError
) -> None:
    """C31: how full the machine is never decides, or two processes would choose differently."""
    one.on_create = raising(error)
    with pytest.raises(type(error)):
        opened()
    assert not two.channels


@pytest.mark.parametrize("error", SHORTAGES)
def test_where_there_is_no_room_the_next_backend_is_recommended(
    one: FakeBackend, two: FakeBackend, opened: Opening, error: MessageQueueError
) -> None:
    """C31: it may be asked for by name."""
    one.on_create = raising(copy.copy(error))
    with pytest.raises(type(error), match=r"on backend 'one': .*, or try backend='two'$"):
        opened()


def test_a_backend_that_cannot_honour_the_request_is_not_recommended(
    one: FakeBackend, two: FakeBackend, installed: Installed, opened: Opening
) -> None:
    """It said so just now."""
    installed.backend(FakeBackend("three", rank=700, capabilities=ALL))
    one.on_create = raising(Unsupported("not so"))
    two.on_create = raising(NoSpace("the disk is full"))
    with pytest.raises(NoSpace, match=r"the disk is full, or try backend='three'$"):
        opened(require=["nameless"])


def test_where_only_a_weaker_backend_has_room_it_is_recommended_with_what_it_is(
    one: FakeBackend, fleeting: FakeBackend, opened: Opening
) -> None:
    """C31: to take it, somebody has to say so."""
    one.on_create = raising(NoSpace("the disk is full"))
    words = r"or try backend='fleeting' with lifetime='last-close', if the queue need not outlive its last handle$"
    with pytest.raises(NoSpace, match=words):
        opened(require=["nameless"])


def test_where_only_a_weaker_backend_can_do_it_that_is_an_error(
    installed: Installed, fleeting: FakeBackend, opened: Opening
) -> None:
    """C31: one that keeps queues can be used here, if not for this request."""
    installed.backend(FakeBackend("plain", rank=900))
    with pytest.raises(BackendUnavailable, match=r"fleeting: .* pass lifetime='last-close' if that is enough"):
        opened(require=["nameless"])


def test_a_weaker_backend_is_taken_where_that_was_asked_for(fleeting: FakeBackend, opened: Opening) -> None:
    """By lifetime, and without a word."""
    assert opened(lifetime="last-close", require=["nameless"]).backend == "fleeting"


def test_a_weaker_backend_is_taken_where_it_was_named(fleeting: FakeBackend, opened: Opening) -> None:
    """By name, and without a word."""
    assert opened("fleeting").backend == "fleeting"


def test_where_creating_fails_in_another_way_nothing_else_is_tried(
    one: FakeBackend, two: FakeBackend, opened: Opening
) -> None:
    """A refusal of the system is not a limit."""
    one.on_create = raising(PermissionDenied("not you"))
    with pytest.raises(PermissionDenied, match="on backend 'one': not you"):
        opened()


@pytest.mark.parametrize("told", ["one: not so", "two: not today", "memory: its queues are private"])
@pytest.mark.needs("memory")
def test_where_all_fail_each_reason_is_told(one: FakeBackend, two: FakeBackend, opened: Opening, told: str) -> None:
    """Rule 2: if all fail, one error tells each reason."""
    one.on_create = raising(Unsupported("not so"))
    two.on_create = raising(Unsupported("not today"))
    with pytest.raises(BackendUnavailable, match=told):
        opened(require=["nameless"])


def test_where_all_fail_the_last_failure_is_the_cause(one: FakeBackend, opened: Opening) -> None:
    """Chained, for who debugs it."""
    one.on_create = raising(Unsupported())
    with pytest.raises(BackendUnavailable) as caught:
        opened(require=["nameless"])
    assert isinstance(caught.value.__cause__, Unsupported)


def test_where_all_fail_the_reasons_are_there_for_programs(one: FakeBackend, opened: Opening) -> None:
    """One for each backend."""
    one.on_create = raising(Unsupported())
    with pytest.raises(BackendUnavailable) as caught:
        opened(require=["nameless"])
    assert set(caught.value.reasons) == {info.name for info in ipcq.backends()}


@pytest.mark.parametrize("number", [LimitExceeded, NoSpace, Unsupported])
def test_where_creating_fails_on_a_named_backend_another_is_recommended(
    one: FakeBackend, two: FakeBackend, opened: Opening, number: type[MessageQueueError]
) -> None:
    """The way out names a backend that could."""
    facts = {"limit": "x", "value": 1, "asked": 2, "remedy": "y", "errno": 1} if number is LimitExceeded else {}
    one.on_create = raising(number(**facts))
    with pytest.raises(number, match=r", or try backend='two'$"):
        opened("one")


def test_where_no_other_could_none_is_recommended(one: FakeBackend, opened: Opening) -> None:
    """No way out that is none."""
    one.on_create = raising(NoSpace())
    with pytest.raises(NoSpace, match=r"left for the queue$"):
        opened("one", require=["nameless"])


def test_where_no_other_could_give_as_little_none_is_recommended(one: FakeBackend, opened: Opening) -> None:
    """A queue that may go with its last handle is not to stay instead."""
    one.on_create = raising(NoSpace())
    with pytest.raises(NoSpace, match=r"left for the queue$"):
        opened("one", lifetime="last-close")


def test_where_the_name_is_ambiguous_elsewhere_a_failure_is_still_told(
    one: FakeBackend, two: FakeBackend, name: str, opened: Opening
) -> None:
    """Recommending looks at abilities, not at the name."""
    two.make(name)
    one.on_create = raising(NoSpace())
    with pytest.raises(NoSpace, match="backend='two'"):
        opened("one")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"priorities": True}, "it has no priorities"),
        ({"lifetime": "last-close"}, "last handle"),
        ({"mode": 0o666}, "other users"),
        ({"require": "peek"}, "lacks the required capability 'peek'"),
        ({"max_message_size": 101}, "at most 100 bytes, but 101 were requested"),
    ],
)
def test_a_named_backend_that_cannot_honour_the_request_refuses(
    installed: Installed, opened: Opening, options: dict[str, Any], words: str
) -> None:
    """Unsupported, before anything is created."""
    installed.backend(FakeBackend("plain", capabilities=replace(HOST, max_message_size=100)))
    with pytest.raises(Unsupported, match=words):
        opened("plain", **options)


def test_a_refusal_names_a_backend_that_can(installed: Installed, one: FakeBackend, opened: Opening) -> None:
    """The text and the alternatives do."""
    installed.backend(FakeBackend("plain"))
    with pytest.raises(Unsupported, match=r"use backend='one'$") as caught:
        opened("plain", require="nameless", priorities=True, lifetime="last-close")
    assert caught.value.alternatives == ("one",)


def test_a_refusal_names_nobody_where_nobody_can(installed: Installed, opened: Opening) -> None:
    """No alternatives that are none."""
    installed.backend(FakeBackend("plain"))
    with pytest.raises(Unsupported, match=r"'nameless'$"):
        opened("plain", require="nameless")


def test_a_named_backend_that_cannot_honour_the_request_still_attaches(
    installed: Installed, name: str, opened: Opening
) -> None:
    """What exists is compared with, not created."""
    plain = FakeBackend("plain")
    installed.backend(plain)
    plain.make(name, mode=0o666)
    assert opened("plain", mode=0o644).mode == 0o666


def test_a_required_ability_is_wanted_of_what_exists(installed: Installed, name: str, opened: Opening) -> None:
    """A queue without it is a mismatch."""
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
    """An argument is stronger than the environment."""
    monkeypatch.setenv("IPCQ_BACKEND", "two")
    assert opened("one").backend == "one"


def test_an_empty_preference_is_none(one: FakeBackend, opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set to nothing is not set."""
    monkeypatch.setenv("IPCQ_BACKEND", "")
    assert opened().backend == "one"


def test_a_preference_that_is_not_installed_is_an_error(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming one that cannot serve is an error."""
    monkeypatch.setenv("IPCQ_BACKEND", "nonesuch")
    with pytest.raises(BackendUnknown, match=r"backend 'nonesuch'.* unset the environment variable IPCQ_BACKEND"):
        opened()


def test_a_preference_that_is_not_installed_keeps_nobody_from_attaching(
    one: FakeBackend, name: str, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IPCQ_BACKEND changes only rule 2, whatever it says."""
    monkeypatch.setenv("IPCQ_BACKEND", "nonesuch")
    with pytest.raises(QueueNotFound):
        opened(create=False)
    one.make(name)
    assert opened().backend == "one"


def test_a_preference_that_cannot_serve_is_an_error(
    one: FakeBackend, two: FakeBackend, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Naming one that cannot serve is an error, though another could."""
    monkeypatch.setenv("IPCQ_BACKEND", "two")
    two.availability = Availability.no("no compiler")
    with pytest.raises(BackendUnavailable, match="two: no compiler"):
        opened()


def test_a_preference_that_fails_is_an_error(
    one: FakeBackend, two: FakeBackend, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where creating fails, no other is tried."""
    monkeypatch.setenv("IPCQ_BACKEND", "two")
    two.on_create = raising(NoSpace("the disk is full"))
    with pytest.raises(NoSpace, match="on backend 'two': the disk is full, or try backend='one'"):
        opened()


def test_a_preference_for_this_process_alone_is_an_error(opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with that setting would never meet."""
    monkeypatch.setenv("IPCQ_BACKEND", "memory")
    with pytest.raises(BackendUnavailable, match="memory: its queues are private to one process"):
        opened()


# Attaching


@pytest.mark.parametrize("backend", ["auto", "one"])
def test_a_missing_queue_is_not_found(one: FakeBackend, name: str, opened: Opening, backend: str) -> None:
    """create=False on a missing name is QueueNotFound."""
    with pytest.raises(QueueNotFound, match=f"queue '{name}' on backend '{backend}': no such queue: create it"):
        opened(backend, create=False)


def test_attaching_creates_nothing(one: FakeBackend, name: str, opened: Opening) -> None:
    """create=False creates nothing."""
    with pytest.raises(QueueNotFound):
        opened(create=False)
    assert not one.queues


def test_attaching_takes_no_lock(one: FakeBackend, name: str, opened: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    """An opener takes the name's lock only to create."""
    one.make(name)
    with monkeypatch.context() as without:
        without.delattr(rendezvous, "name_lock")
        assert opened().backend == "one"


def test_waiting_ends_when_the_queue_appears(
    one: FakeBackend, name: str, opened: Opening, start: Callable[..., Thread]
) -> None:
    """wait=: waits for the queue to appear."""
    looked = threading.Event()
    one.on_exists = lambda name: looked.set()
    waiter = start(opened, create=False, wait=60)
    looked.wait()
    one.make(name)
    assert waiter.outcome().backend == "one"


def test_waiting_for_a_queue_ends_in_time(one: FakeBackend, opened: Opening) -> None:
    """After `wait` seconds it is QueueNotFound."""
    with pytest.raises(QueueNotFound):
        opened(create=False, wait=0.02)


def test_waiting_no_time_looks_once(one: FakeBackend, opened: Opening) -> None:
    """wait=0 is as no wait."""
    looks: list[str] = []
    one.on_exists = looks.append
    with pytest.raises(QueueNotFound):
        opened(create=False, wait=0)
    assert len(looks) == 1


@pytest.mark.parametrize("backend", ["auto", "one"])
def test_an_exclusive_creation_of_what_exists_is_refused(
    one: FakeBackend, name: str, opened: Opening, backend: str
) -> None:
    """exclusive=True on an existing one is QueueExists, and the backend is named."""
    one.make(name)
    with pytest.raises(QueueExists, match=f"queue '{name}' on backend 'one'"):
        opened(backend, exclusive=True)


def test_an_exclusive_creation_fails_wherever_it_exists(
    one: FakeBackend, two: FakeBackend, name: str, opened: Opening
) -> None:
    """auto does not create beside what is there."""
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
    """Limits that differ from the ones explicitly requested are QueueMismatch naming both."""
    one.make(name, **there)
    with pytest.raises(QueueMismatch) as caught:
        opened(**asked)
    assert str(caught.value) == (
        f"queue '{name}' on backend 'one': {words}: leave that out to use the existing queue, or unlink it first"
    )


def test_a_mismatch_gives_the_channel_back(one: FakeBackend, name: str, opened: Opening) -> None:
    """C17: a refused opening leaves nothing open."""
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
def test_what_was_not_explicitly_asked_for_is_no_mismatch(
    one: FakeBackend, name: str, opened: Opening, asked: dict[str, Any]
) -> None:
    """The queue is taken as it is; raw and type are properties of a handle."""
    one.make(name, max_messages=4, max_message_size=64, priorities=True, lifetime="last-close")
    assert opened(**asked).max_messages == 4


# Pickle


@pytest.mark.parametrize("options", [{"other_users": True}, {"mode": 0o620}, {"mode": 0o602}, {"mode": 0o666}])
@pytest.mark.parametrize("serializer", ["pickle", "msgpack"])
def test_pickles_from_other_users_are_refused(
    one: FakeBackend, opened: Opening, options: dict[str, Any], serializer: str
) -> None:
    """C26: pickle on a queue that others can write to is PermissionDenied."""
    with pytest.raises(PermissionDenied, match="their pickles would run code"):
        opened("one", serializer=serializer, allow_pickle=True, **options)


@pytest.mark.parametrize("mode", [0o622, 0o620, 0o602])
def test_pickles_from_a_queue_that_others_can_write_to_are_refused(
    one: FakeBackend, name: str, opened: Opening, mode: int
) -> None:
    """C26: what counts is the mode that the queue has."""
    one.make(name, mode=mode)
    with pytest.raises(PermissionDenied, match=f"queue '{name}' on backend 'one'"):
        opened(allow_pickle=True)


def test_a_refused_pickle_gives_the_channel_back(one: FakeBackend, name: str, opened: Opening) -> None:
    """C17: as with a mismatch."""
    one.make(name, mode=0o622)
    with pytest.raises(PermissionDenied):
        opened(allow_pickle=True)
    assert [channel.closings for channel in one.channels] == [1]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o640])
def test_pickles_of_this_user_alone_are_allowed(one: FakeBackend, opened: Opening, mode: int) -> None:
    """Others may read: reading runs nothing of theirs here."""
    assert opened("one", serializer="pickle", allow_pickle=True, mode=mode).backend == "one"


# Meeting who does not take the lock


def test_a_queue_that_a_foreign_program_creates_meanwhile_is_attached_to(
    one: FakeBackend, name: str, opened: Opening
) -> None:
    """Created between look and create: whoever comes second attaches."""
    one.on_create = lambda name: one.queues.get(name) or one.make(name, max_messages=3)
    assert opened().max_messages == 3


def test_an_exclusive_creation_that_a_foreign_program_beats_is_refused(one: FakeBackend, opened: Opening) -> None:
    """Created between look and create by another: QueueExists."""
    one.on_create = one.make
    with pytest.raises(QueueExists, match="on backend 'one'"):
        opened(exclusive=True)


def test_a_queue_that_a_foreign_program_unlinks_meanwhile_is_created_anew(
    one: FakeBackend, name: str, opened: Opening
) -> None:
    """Unlinked between look and attach: look again, and create."""
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
    """Unlinked between look and attach, and not to be created."""
    one.make(name)
    one.on_attach = one.unlink
    with pytest.raises(QueueNotFound):
        opened(create=False)


def test_a_queue_that_comes_and_goes_all_the_while_is_given_up(one: FakeBackend, name: str, opened: Opening) -> None:
    """open_timeout bounds that, too."""
    one.on_create = one.make
    one.on_attach = one.unlink
    with pytest.raises(TimedOutError, match="other processes created and unlinked it"):
        opened(open_timeout=0.02)


def test_a_queue_that_somebody_creates_under_the_lock_is_attached_to(
    one: FakeBackend, name: str, opened: Opening
) -> None:
    """Rule 3: under the lock it looks again."""
    looks = itertools.count()

    def create_before_the_second_look(name: str) -> None:
        if next(looks) == 1:
            one.make(name, max_messages=3)

    one.on_exists = create_before_the_second_look
    assert opened().max_messages == 3


def test_who_waits_for_the_lock_for_ever_says_none(one: FakeBackend, opened: Opening) -> None:
    """open_timeout=None waits for ever."""
    assert opened(open_timeout=None).backend == "one"


def test_who_has_no_time_still_creates_what_nobody_holds(one: FakeBackend, opened: Opening) -> None:
    """open_timeout=0 tries once."""
    assert opened(open_timeout=0).backend == "one"


def test_what_an_opener_does_itself_does_not_count_as_waiting(
    one: FakeBackend, name: str, opened: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine loading the backends takes seconds, after which a lock held just then ended the call."""
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


# What a queue is created with


def test_the_backend_gets_the_whole_request(one: FakeBackend, opened: Opening) -> None:
    """Everything that a mechanism has to know."""
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
def test_minima_that_a_queue_has_are_fine(one: FakeBackend, opened: Opening, require: Any) -> None:
    """As a mapping, or as text with a colon."""
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
def test_a_queue_that_exists_is_compared_with_the_minima(
    one: FakeBackend, name: str, opened: Opening, require: Any, words: str
) -> None:
    """Its own capabilities and limits count, and both figures are told."""
    one.make(name)
    with pytest.raises(QueueMismatch, match=re.escape(words)):
        opened(require=require)


def test_a_queue_that_exists_may_be_larger_than_the_minimum(one: FakeBackend, name: str, opened: Opening) -> None:
    """A minimum is no limit that has to be equal."""
    one.make(name, max_message_size=1 << 20)
    assert opened(require={"max_message_size": 100_000}).max_message_size == 1 << 20


def test_a_last_close_queue_is_not_taken_for_one_that_stays(one: FakeBackend, name: str, opened: Opening) -> None:
    """Its own lifetime counts, not what its backend can do."""
    one.make(name, lifetime="last-close")
    with pytest.raises(QueueMismatch, match="its persistence is 'holders', but at least 'kernel' is required"):
        opened(require="persistence:kernel")


def test_a_queue_is_created_as_large_as_the_minimum(one: FakeBackend, opened: Opening) -> None:
    """It would be of no use else."""
    assert opened(require={"max_message_size": 100_000}).max_message_size == 100_000


def test_a_small_minimum_makes_no_queue_smaller(one: FakeBackend, opened: Opening) -> None:
    """8 KiB fit into every queue for which nothing else was asked."""
    opened(require={"max_message_size": 100})
    assert one.requests[0].max_message_size is None


def test_a_size_that_was_asked_for_counts_beside_the_minimum(one: FakeBackend, opened: Opening) -> None:
    """The queue is made as asked."""
    assert opened(max_message_size=200_000, require={"max_message_size": 100_000}).max_message_size == 200_000


def test_minima_ride_in_a_url(one: FakeBackend, name: str) -> None:
    """``require=persistence:disk,peek``."""
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
        "require: no capability 'colour': choose from after_unlink, atomic_batch, ends_on_fileno",
    ),
    ({5: True}, "require: no capability 5: choose from"),
]


@pytest.mark.parametrize(("require", "words"), BAD_MINIMA)
def test_a_bad_minimum_is_refused_with_what_there_is(
    one: FakeBackend, opened: Opening, require: Any, words: str
) -> None:
    """InvalidArgument lists the names and the values."""
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
def test_a_minimum_that_no_such_queue_can_have_is_refused(
    one: FakeBackend, opened: Opening, options: dict[str, Any], words: str
) -> None:
    """Each of the two may be right alone."""
    with pytest.raises(InvalidArgument, match=words):
        opened("one", **options)


def test_requiring_priorities_is_asking_for_them(one: FakeBackend, opened: Opening) -> None:
    """A queue that lacks what was required is of no use."""
    assert opened(require="priorities").priorities


class Lesser(FakeBackend):
    """A backend whose queues can do less than it says at best."""

    def create(self, name: str, request: Request) -> Any:
        channel = super().create(name, request)
        channel.capabilities = replace(channel.capabilities, peek=False)
        return channel


@pytest.fixture
def lesser(installed: Installed) -> Lesser:
    """Return an installed backend that promises more than its queues keep."""
    fake = Lesser("lesser", rank=950, capabilities=ALL)
    installed.backend(fake)
    return fake


def test_a_created_queue_that_lacks_what_is_required_is_refused(lesser: Lesser, opened: Opening) -> None:
    """The backend can in general, but not for this request."""
    with pytest.raises(Unsupported, match="for this request it lacks the required capability 'peek': require less"):
        opened("lesser", require="peek")


def test_a_created_queue_that_lacks_what_is_required_goes_again(lesser: Lesser, opened: Opening) -> None:
    """A failed creation leaves no queue behind."""
    with pytest.raises(Unsupported):
        opened("lesser", require="peek")
    assert not lesser.queues


def test_a_created_queue_that_lacks_what_is_required_is_closed(lesser: Lesser, opened: Opening) -> None:
    """A failed creation leaves no channel open."""
    with pytest.raises(Unsupported):
        opened("lesser", require="peek")
    assert [channel.closings for channel in lesser.channels] == [1]


def test_a_created_queue_that_lacks_what_is_required_sends_auto_on(
    lesser: Lesser, one: FakeBackend, opened: Opening
) -> None:
    """Rule 2: the next one is tried."""
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
    """What the handle could do, its copy can."""
    queue = opened(**options)
    with pickle.loads(pickle.dumps(queue)):
        assert one.requests[1] == one.requests[0] != Request()


def test_a_pickled_handle_keeps_its_serializer(one: FakeBackend, opened: Opening) -> None:
    """name, backend, serializer, type, allow_pickle."""
    queue = opened(serializer="pickle", allow_pickle=True)
    with pickle.loads(pickle.dumps(queue)) as copy:
        copy.put({1, 2})
    assert queue.get(timeout=5) == {1, 2}


def test_a_pickled_handle_attaches_to_the_backend_it_was_on(
    one: FakeBackend, two: FakeBackend, opened: Opening
) -> None:
    """Not to where auto would go now."""
    queue = opened("two")
    with pickle.loads(pickle.dumps(queue)) as copy:
        assert copy.backend == "two"


def test_a_pickled_handle_creates_nothing(one: FakeBackend, opened: Opening) -> None:
    """Unpickling attaches with create=False."""
    queue = opened()
    data = pickle.dumps(queue)
    queue.unlink()
    with pytest.raises(QueueNotFound):
        pickle.loads(data)
