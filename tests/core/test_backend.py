"""What ipcq.backend gives to authors: correct defaults, the check of owners, and the table of exceptions."""

import errno
import gc
import os
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic
from typing import Any

import pytest

from core.fakes import HOST, FakeBackend, FakeChannel, FakeQueue
from ipcq._process.signals import translating
from ipcq.backend import Availability, Request, _channel, check_owner, explained, translated
from ipcq.errors import (
    LimitExceeded,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueGone,
    QueueNotFound,
    QueueShutDown,
    Unsupported,
)


@pytest.fixture
def channel() -> FakeChannel:
    """Return a minimal channel of 3 messages."""
    return FakeChannel(FakeQueue(Request(max_messages=3)), HOST)


def test_a_batch_is_put_one_by_one(channel: FakeChannel) -> None:
    """The default puts as many messages as fit, and returns their number."""
    assert channel.try_put_many([b"1", b"2", b"3", b"4"]) == 3


def test_putting_a_batch_raises_if_the_queue_has_ended(channel: FakeChannel) -> None:
    """No message was put, so there is no number to return."""
    channel.queue.down = True
    with pytest.raises(QueueShutDown):
        channel.try_put_many([b"1"])


def end_after(channel: FakeChannel, verb: str, calls: int) -> None:
    """Unlink the channel's queue after that many calls."""
    call = getattr(channel, verb)
    left = iter(range(calls))

    def counted(*arguments: Any) -> Any:
        if next(left, None) is None:
            channel.queue.linked = False
        return call(*arguments)

    setattr(channel, verb, counted)


def test_putting_a_batch_returns_the_number_if_the_queue_ends_meanwhile(channel: FakeChannel) -> None:
    """The caller has to learn how many messages are in the queue."""
    end_after(channel, "try_put", 2)
    assert channel.try_put_many([b"1", b"2", b"3"]) == 2


def test_a_batch_is_taken_one_by_one(channel: FakeChannel) -> None:
    """The default takes the oldest first, up to the limit."""
    channel.try_put_many([b"1", b"2", b"3"])
    assert channel.try_get_many(2) == [(b"1", 0), (b"2", 0)]


def test_a_batch_takes_the_messages_that_are_there(channel: FakeChannel) -> None:
    """It does not wait for more."""
    channel.try_put_many([b"1"])
    assert channel.try_get_many(5) == [(b"1", 0)]


def test_taking_a_batch_returns_the_messages_if_the_queue_ends_meanwhile(channel: FakeChannel) -> None:
    """C5: messages that were taken are returned."""
    channel.try_put_many([b"1", b"2"])
    end_after(channel, "try_get", 1)
    assert channel.try_get_many(5) == [(b"1", 0)]


def test_taking_a_batch_raises_if_the_queue_has_ended(channel: FakeChannel) -> None:
    """No message was taken, so there is nothing to return."""
    channel.queue.linked = False
    with pytest.raises(QueueGone):
        channel.try_get_many(5)


@pytest.mark.parametrize(
    "wait",
    [
        lambda channel, since, until: channel.wait_readable(since, until),
        lambda channel, since, until: channel.wait_writable(5, since, until),
    ],
)
def test_a_wait_is_a_pause_by_default(
    channel: FakeChannel, monkeypatch: pytest.MonkeyPatch, wait: Callable[[FakeChannel, float, float], None]
) -> None:
    """Clause 13: a wait may end early without a reason."""
    paused: list[tuple[float, float]] = []
    monkeypatch.setattr(_channel, "pause", lambda since, until: paused.append((since, until)))
    now = monotonic()
    wait(channel, now, now + 1)
    assert paused == [(now, now + 1)]


@pytest.mark.parametrize(
    "call",
    [
        lambda channel: super(FakeChannel, channel).peek(),
        lambda channel: super(FakeChannel, channel).shutdown(False),
        lambda channel: super(FakeChannel, channel).fileno(),
        lambda channel: super(FakeChannel, channel).notify(None),
        lambda channel: super(FakeChannel, channel).try_put_dropping(b"", 0),
        lambda channel: super(FakeChannel, channel).try_get_latest(),
    ],
)
def test_a_method_that_a_channel_does_not_define_is_unsupported(
    channel: FakeChannel, call: Callable[[FakeChannel], object]
) -> None:
    """Clause 20: a call without its capability raises Unsupported."""
    with pytest.raises(Unsupported):
        call(channel)


def test_a_channel_survives_a_fork_by_default(channel: FakeChannel) -> None:
    """Clause 17: the default is yes."""
    assert super(FakeChannel, channel).after_fork()


def test_a_channel_is_linked_by_default(channel: FakeChannel) -> None:
    """Clause 4: the default is yes."""
    assert super(FakeChannel, channel).linked()


def test_a_backend_can_be_used_by_default() -> None:
    """Clause 19: the default is yes."""
    assert super(FakeBackend, FakeBackend("fake")).probe() == Availability.yes()


def test_a_channel_does_not_count_waits_by_default(channel: FakeChannel) -> None:
    """The default has no statistics."""
    channel.count_wait(True)
    assert channel.stats().waits is None


@pytest.mark.parametrize("uid", [lambda: 0, lambda: os.geteuid()], ids=["root", "this user"])
def test_a_queue_of_this_user_or_of_root_is_trusted(uid: Callable[[], int]) -> None:
    """Clause 7: these owners are accepted."""
    assert check_owner(uid(), Request()) is None


def test_a_queue_of_another_user_is_refused() -> None:
    """Clause 7: it is refused before it is read or written."""
    with pytest.raises(PermissionDenied, match="its owner is user 12345, not this user"):
        check_owner(12345, Request())


@pytest.mark.parametrize(
    ("shareable", "way_out"),
    [({"shareable": True}, "open it with other_users=True"), ({}, "use another name, or run as user 12345")],
)
def test_the_way_out_for_another_users_queue_is_one_that_the_backend_has(
    shareable: dict[str, bool], way_out: str
) -> None:
    """STYLE 32: `other_users=True` does not help where queues are for one user."""
    with pytest.raises(PermissionDenied) as caught:
        check_owner(12345, Request(), **shareable)
    assert way_out in str(caught.value)
    assert ("other_users=True" in str(caught.value)) == bool(shareable)


def test_a_queue_of_another_user_is_accepted_on_request() -> None:
    """Clause 7: `request.other_users` accepts every owner."""
    check_owner(12345, Request(other_users=True))
    assert True


TABLE: dict[type[BaseException], type[MessageQueueError]] = {FileNotFoundError: QueueNotFound, MemoryError: NoSpace}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (FileNotFoundError(2, "no"), QueueNotFound),
        (MemoryError(), NoSpace),
        (OSError(5, "no"), MessageQueueError),
        (QueueGone(), QueueGone),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
)
def test_foreign_exceptions_are_translated_by_a_table(theirs: Exception, ours: type[Exception]) -> None:
    """Clause 18: listed ones become ours, an unlisted OSError the root of the tree, and all others stay."""
    with pytest.raises(Exception) as caught, translated(TABLE, "/jobs", "fake"):
        raise theirs
    assert type(caught.value) is ours


@pytest.mark.parametrize("theirs", [FileNotFoundError(2, "no"), OSError(5, "no")])
def test_a_translated_exception_is_chained(theirs: Exception) -> None:
    """Clause 18: the original exception is its cause."""
    with pytest.raises(MessageQueueError) as caught, translated(TABLE, "/jobs", "fake"):
        raise theirs
    assert caught.value.__cause__ is theirs


@pytest.mark.parametrize("theirs", [FileNotFoundError(2, "no"), OSError(5, "no"), QueueGone()])
def test_a_translated_exception_names_queue_and_backend(theirs: Exception) -> None:
    """Clause 18: its text begins with both."""
    words = "^queue '/jobs' on backend 'fake': "
    with pytest.raises(MessageQueueError, match=words), translated(TABLE, "/jobs", "fake"):
        raise theirs


def test_an_unlisted_error_keeps_its_number() -> None:
    """Clause 18: `errno` is kept."""
    with pytest.raises(MessageQueueError) as caught, translated(TABLE, "/jobs", "fake"):
        raise OSError(5, "no")
    assert caught.value.errno == 5


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EMFILE, LimitExceeded),
        (errno.ENFILE, LimitExceeded),
        (errno.ENOMEM, NoSpace),
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.ENOBUFS, NoSpace),
        (errno.EACCES, PermissionDenied),
        (errno.EPERM, PermissionDenied),
        (errno.EIO, MessageQueueError),
    ],
)
def test_an_error_number_means_the_same_on_every_backend(number: int, kind: type[MessageQueueError]) -> None:
    """Clause 18: even if a backend's table is empty, and the number is kept."""
    error = explained(OSError(number, os.strerror(number)))
    assert (type(error), error.errno) == (kind, number)


def test_a_table_takes_precedence_over_the_common_meaning() -> None:
    """Clause 18: the backend's table comes first, and in it a number before a class."""
    table = {errno.EACCES: lambda: QueueGone("by number"), OSError: QueueNotFound}
    assert explained(PermissionError(errno.EACCES, "no"), table).detail == "by number"


def test_a_listed_error_has_the_number_of_the_call() -> None:
    """Clause 18: not the usual number of its class."""
    assert explained(OSError(errno.EIO, "no"), {errno.EIO: QueueNotFound}).errno == errno.EIO


def test_an_unlisted_error_of_a_library_becomes_the_root() -> None:
    """Clause 18: without a number, the library's text is kept."""
    assert str(explained(ValueError("odd"))) == "the system refused: odd"


def test_a_block_without_an_exception_is_left_alone() -> None:
    """There is nothing to translate."""
    with translated(TABLE, "/jobs", "fake"):
        done = True
    assert done


@pytest.mark.parametrize("context", [translated(), translating(OSError, lambda _: QueueGone())])
def test_a_converted_error_is_freed_at_once(context: AbstractContextManager[None]) -> None:
    """A reference cycle of the error and its traceback would keep the caller's objects, such as a handle, alive."""
    gc.disable()
    try:
        with pytest.raises(MessageQueueError) as caught, context:
            raise OSError(errno.EIO, "broken")
        error = weakref.ref(caught.value)
        del caught
        assert error() is None
    finally:
        gc.enable()


def test_clearing_a_queue_that_was_shut_down_counts_what_it_dropped_though_others_took_the_rest(
    channel: FakeChannel,
) -> None:
    """C37: it returns the number of messages that it dropped, although the queue has ended."""
    channel.try_put_many([b"1", b"2", b"3"])
    channel.queue.down = True
    channel.qsize = lambda: 5  # type: ignore[method-assign]  # others take some meanwhile
    assert channel.clear() == 3


def test_abandoning_a_channel_does_nothing_by_default(channel: FakeChannel) -> None:
    """Clause 17: a channel without resources of the system has nothing to give up."""
    channel.try_put(b"item", 0)
    channel.abandon()
    assert channel.try_get() == (b"item", 0)
