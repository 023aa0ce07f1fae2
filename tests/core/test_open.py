"""From a name to a handle: arguments, URLs, existing queues that differ, and pickled handles."""

import math
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

import ipcq
from core import openings
from core.conftest import Thread
from core.fakes import FakeBackend
from core.openings import Opening
from ipcq._opening import rendezvous
from ipcq.backend import Request
from ipcq.errors import InvalidArgument, InvalidName, PermissionDenied, QueueExists, QueueMismatch, QueueNotFound

one, two, opened = openings.one, openings.two, openings.opened

# Arguments

BAD_ARGUMENTS = [
    *[(option, value) for option in ("create", "exclusive", "read", "write") for value in (None, 1, 0, "yes", [])],
    ("fresh", "yes"),
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
        ({"fresh": True, "create": False}, "create=False forbids it"),
        ({"fresh": True, "exclusive": True}, "exclusive=True keeps it"),
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


@pytest.mark.parametrize("address", ["jobs", "", None, 5, "memory:///", "/" + "a" * 255])
def test_a_bad_name_is_refused(address: Any) -> None:
    """`open` applies the rule for names."""
    with pytest.raises(InvalidName):
        ipcq.open(address)


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
