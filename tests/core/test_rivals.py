"""C31: if two queues of one name are created at the same time on two backends, one is removed."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

import ipcq
from core import openings
from core.fakes import FakeBackend, raising
from core.openings import Opening
from ipcq._opening import rivals
from ipcq.backend import Capabilities, Persistence, Scope
from ipcq.errors import LimitExceeded, MessageQueueError, PermissionDenied, QueueExists, QueueMismatch

ABLE = Capabilities(scope=Scope.HOST, persistence=Persistence.KERNEL, exact_qsize=True, priorities=True, nameless=True)


# This process creates on the first, and its rival on the second.
mine, theirs = openings.standing("mine", 900, ABLE), openings.standing("theirs", 800, ABLE)
open_with = openings.opened


@pytest.fixture
def rival(mine: FakeBackend, theirs: FakeBackend) -> Callable[..., None]:
    """Return a function that makes a rival create once, between this process's search and its creation."""

    def appear(**request: Any) -> None:
        def make(name: str) -> None:
            mine.on_create = lambda _: None
            theirs.make(name, **request)

        mine.on_create = make

    return appear


@pytest.fixture
def opened(open_with: Opening) -> Opening:
    """Return a function that opens the test's name with `auto`; the handles are closed after the test."""
    return partial(open_with, require=["nameless"], open_timeout=5)


Rival = Callable[..., None]


def put_meanwhile(mine: FakeBackend, theirs: FakeBackend, *messages: tuple[bytes, int]) -> None:
    """Let a third process put messages into this process's queue before the second look."""
    left = list(messages)

    def put(name: str) -> None:
        while left and name in mine.queues:
            mine.queues[name].messages.append(left.pop(0))

    theirs.on_exists = put


def test_a_creator_that_finds_a_second_queue_attaches_to_it(rival: Rival, opened: Opening) -> None:
    """C31: all processes that open the name use the same queue."""
    rival()
    assert opened().backend == "theirs"


def test_a_creator_that_finds_a_second_queue_removes_its_own(rival: Rival, mine: FakeBackend, opened: Opening) -> None:
    """C31: it also closes its channels to that queue."""
    rival()
    opened()
    assert (mine.queues, [channel.closings for channel in mine.channels]) == ({}, [1, 1])


def test_an_exclusive_creator_that_finds_a_second_queue_raises(rival: Rival, opened: Opening) -> None:
    """It raises QueueExists."""
    rival()
    with pytest.raises(QueueExists):
        opened(exclusive=True)


def test_a_queue_stays_if_the_other_is_removed_first(
    rival: Rival, theirs: FakeBackend, opened: Opening, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C31: of two creators that see each other, the one that waits longer keeps its queue."""
    rival()
    monkeypatch.setattr(time, "sleep", lambda _: theirs.unlink(name))
    assert opened().backend == "mine"


@pytest.mark.parametrize(("byte", "seconds"), [(0, 0.0), (255, 0.005)])
def test_the_wait_is_random(
    rival: Rival, opened: Opening, monkeypatch: pytest.MonkeyPatch, byte: int, seconds: float
) -> None:
    """Two processes that wait for the same time would both remove their queues, again and again."""
    rival()
    waited: list[float] = []
    monkeypatch.setattr(rivals.os, "urandom", lambda count: bytes([byte] * count))
    monkeypatch.setattr(time, "sleep", waited.append)
    opened()
    assert waited[0] == seconds


def test_if_both_creators_removed_their_queue_it_is_created_again(
    rival: Rival, mine: FakeBackend, theirs: FakeBackend, opened: Opening
) -> None:
    """C31: the new queue has the messages of the first."""
    rival()
    put_meanwhile(mine, theirs, (b"\xc3", 0))

    def go(name: str) -> None:
        with suppress(MessageQueueError):
            theirs.unlink(name)

    mine.on_attach = go  # it attaches to its queue before it removes it
    queue = opened()
    assert (queue.backend, queue.get(timeout=0)) == ("mine", True)


def test_a_queue_that_was_unlinked_meanwhile_is_no_error(rival: Rival, mine: FakeBackend, opened: Opening) -> None:
    """C5: it was to be removed anyway."""
    rival()
    mine.on_attach = mine.unlink
    assert opened().backend == "theirs"


def test_messages_of_a_third_process_are_moved(
    rival: Rival, mine: FakeBackend, theirs: FakeBackend, opened: Opening, name: str
) -> None:
    """C31: their order and priorities are kept."""
    rival(priorities=True)
    put_meanwhile(mine, theirs, (b"one", 3), (b"two", 0))
    opened()
    assert list(theirs.queues[name].messages) == [(b"one", 3), (b"two", 0)]


def test_messages_moved_into_a_queue_without_priorities_lose_theirs(
    rival: Rival, mine: FakeBackend, theirs: FakeBackend, opened: Opening, name: str
) -> None:
    """Otherwise the queue would refuse them."""
    rival()
    put_meanwhile(mine, theirs, (b"one", 3))
    opened()
    assert list(theirs.queues[name].messages) == [(b"one", 0)]


@pytest.mark.parametrize("request_", [{"max_message_size": 2}, {"max_messages": 1}], ids=["too small", "full"])
def test_messages_that_do_not_fit_into_the_other_queue_are_reported(
    rival: Rival,
    mine: FakeBackend,
    theirs: FakeBackend,
    opened: Opening,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    request_: dict[str, int],
) -> None:
    """C37: no message is lost without a report."""
    monkeypatch.setattr(rivals, "_HAND_OVER_SECONDS", 0.01)
    rival(**request_)
    put_meanwhile(mine, theirs, (b"a", 0), (b"large", 0))
    with caplog.at_level(logging.WARNING, "ipcq"):
        opened()
    assert [message for message, _ in theirs.queues[name].messages] == [b"a"]
    assert f"queue {name!r}: 1 messages were lost" in caplog.text


def test_messages_are_reported_if_the_other_queue_cannot_be_opened(
    rival: Rival, mine: FakeBackend, theirs: FakeBackend, opened: Opening, caplog: pytest.LogCaptureFixture
) -> None:
    """C37: the error with the reason is raised too."""
    rival()
    put_meanwhile(mine, theirs, (b"one", 0))
    theirs.on_attach = raising(PermissionDenied("not you"))
    with caplog.at_level(logging.WARNING, "ipcq"), pytest.raises(PermissionDenied):
        opened()
    assert "1 messages were lost" in caplog.text


def test_a_queue_that_cannot_be_read_is_still_removed(rival: Rival, mine: FakeBackend, opened: Opening) -> None:
    """C31: the name must not stay on two backends."""
    rival()
    mine.on_attach = raising(PermissionDenied("not you"))
    assert (opened().backend, mine.queues) == ("theirs", {})


def limit(*_: object) -> None:
    raise LimitExceeded(limit="RLIMIT_NOFILE", value=1, asked=2, remedy="close some", errno=24)


def test_if_the_second_look_fails_nothing_is_left(mine: FakeBackend, theirs: FakeBackend, opened: Opening) -> None:
    """C31: the name might be on two backends."""

    def look(name: str) -> None:
        if name in mine.queues:
            limit()

    theirs.on_exists = look
    with pytest.raises(LimitExceeded):
        opened()
    assert mine.queues == {}


def test_a_backend_whose_search_fails_does_not_prevent_creation(
    mine: FakeBackend, theirs: FakeBackend, opened: Opening
) -> None:
    """The same holds for the first look."""
    theirs.on_exists = raising(ZeroDivisionError())
    assert opened().backend == "mine"


def both_for_a_while(mine: FakeBackend, theirs: FakeBackend, name: str, looks: int) -> None:
    """Create the name on both backends; one of the queues is removed after some searches."""
    mine.make(name)
    theirs.make(name)
    left = [name] * looks

    def look(_: str) -> None:
        left.pop()
        if not left:
            theirs.on_exists = lambda _: None
            theirs.unlink(name)

    theirs.on_exists = look


def test_opening_waits_until_a_race_is_decided(
    mine: FakeBackend, theirs: FakeBackend, opened: Opening, name: str
) -> None:
    """C31: a third process attaches to the queue that stays."""
    both_for_a_while(mine, theirs, name, looks=4)
    assert opened().backend == "mine"


def test_unlinking_waits_until_a_race_is_decided(mine: FakeBackend, theirs: FakeBackend, name: str) -> None:
    """C31: it removes the queue that stays."""
    both_for_a_while(mine, theirs, name, looks=2)
    ipcq.unlink(name)
    assert mine.queues == {}


def test_a_name_that_stays_on_two_backends_is_an_error(
    mine: FakeBackend, theirs: FakeBackend, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C31: a name may exist twice without a race, so the wait is limited."""
    monkeypatch.setattr(rivals, "_SETTLE_SECONDS", 0.01)
    mine.make(name)
    theirs.make(name)
    with pytest.raises(QueueMismatch, match="it exists on 'mine' and 'theirs'"):
        ipcq.open(name)
