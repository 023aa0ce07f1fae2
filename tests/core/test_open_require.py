"""What a program requires of a queue: capabilities and minima, for a new queue and for an existing one."""

import re
from dataclasses import replace
from typing import Any

import pytest

import ipcq
from core import openings
from core.conftest import Installed
from core.fakes import FakeBackend
from core.openings import ALL, Opening
from ipcq.backend import Persistence, Request, Scope
from ipcq.errors import InvalidArgument, QueueMismatch, Unsupported

one, opened = openings.one, openings.opened


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
