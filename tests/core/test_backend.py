"""What authors get from ipcq.backend: defaults that are correct, the check of owners, and the table of exceptions."""

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
    """Return a channel of 3 messages that only does what a channel must."""
    return FakeChannel(FakeQueue(Request(max_messages=3)), HOST)


def test_a_batch_is_stored_one_by_one(channel: FakeChannel) -> None:
    """What fits is counted."""
    assert channel.try_put_many([b"1", b"2", b"3", b"4"]) == 3


def test_a_batch_that_meets_the_end_at_once_raises(channel: FakeChannel) -> None:
    """Nothing was stored, so there is nothing else to tell."""
    channel.queue.down = True
    with pytest.raises(QueueShutDown):
        channel.try_put_many([b"1"])


def end_after(channel: FakeChannel, verb: str, calls: int) -> None:
    """Unlink the channel's queue after so many calls."""
    call = getattr(channel, verb)
    left = iter(range(calls))

    def counted(*arguments: Any) -> Any:
        if next(left, None) is None:
            channel.queue.linked = False
        return call(*arguments)

    setattr(channel, verb, counted)


def test_a_batch_that_meets_the_end_later_counts_what_is_in(channel: FakeChannel) -> None:
    """What is stored already has to be reported."""
    end_after(channel, "try_put", 2)
    assert channel.try_put_many([b"1", b"2", b"3"]) == 2


def test_a_batch_is_taken_one_by_one(channel: FakeChannel) -> None:
    """Oldest first, up to the limit."""
    channel.try_put_many([b"1", b"2", b"3"])
    assert channel.try_get_many(2) == [(b"1", 0), (b"2", 0)]


def test_a_batch_takes_what_is_there(channel: FakeChannel) -> None:
    """And does not wait for more."""
    channel.try_put_many([b"1"])
    assert channel.try_get_many(5) == [(b"1", 0)]


def test_a_batch_that_meets_the_end_keeps_what_it_took(channel: FakeChannel) -> None:
    """C5: what was taken is returned."""
    channel.try_put_many([b"1", b"2"])
    end_after(channel, "try_get", 1)
    assert channel.try_get_many(5) == [(b"1", 0)]


def test_a_batch_that_takes_nothing_before_the_end_raises(channel: FakeChannel) -> None:
    """Nothing was taken, so there is nothing else to tell."""
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
def test_a_wait_is_a_pause(
    channel: FakeChannel, monkeypatch: pytest.MonkeyPatch, wait: Callable[[FakeChannel, float, float], None]
) -> None:
    """Clause 13: it may end earlier for no reason."""
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
    ],
)
def test_what_a_channel_does_not_define_is_unsupported(
    channel: FakeChannel, call: Callable[[FakeChannel], object]
) -> None:
    """Clause 20: what a capability denies raises Unsupported."""
    with pytest.raises(Unsupported):
        call(channel)


def test_a_channel_survives_a_fork_unless_it_says_so(channel: FakeChannel) -> None:
    """Clause 17: the default is yes."""
    assert super(FakeChannel, channel).after_fork()


def test_a_channel_is_linked_unless_it_says_so(channel: FakeChannel) -> None:
    """Clause 4: the default is yes."""
    assert super(FakeChannel, channel).linked()


def test_a_backend_can_be_used_unless_it_says_so() -> None:
    """Clause 19: the default is yes."""
    assert super(FakeBackend, FakeBackend("fake")).probe() == Availability.yes()


def test_a_wait_is_not_counted_unless_the_channel_counts(channel: FakeChannel) -> None:
    """The default keeps no figures."""
    channel.count_wait(True)
    assert channel.stats().waits is None


@pytest.mark.parametrize("uid", [lambda: 0, lambda: os.geteuid()], ids=["root", "this user"])
def test_what_this_user_or_root_owns_is_trusted(uid: Callable[[], int]) -> None:
    """Clause 7."""
    assert check_owner(uid(), Request()) is None


def test_what_somebody_else_owns_is_refused() -> None:
    """Clause 7: before it is read or written."""
    with pytest.raises(PermissionDenied, match="its owner is user 12345, not this user"):
        check_owner(12345, Request())


def test_what_somebody_else_owns_can_be_trusted() -> None:
    """Clause 7: unless request.other_users."""
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
def test_foreign_exceptions_cross_in_one_table(theirs: Exception, ours: type[Exception]) -> None:
    """STYLE 31: listed ones become ours, an unlisted OSError the root, and what is nobody's business stays."""
    with pytest.raises(Exception) as caught, translated(TABLE, "/jobs", "fake"):
        raise theirs
    assert type(caught.value) is ours


@pytest.mark.parametrize("theirs", [FileNotFoundError(2, "no"), OSError(5, "no")])
def test_an_exception_that_crossed_is_chained(theirs: Exception) -> None:
    """STYLE 31: always chained."""
    with pytest.raises(MessageQueueError) as caught, translated(TABLE, "/jobs", "fake"):
        raise theirs
    assert caught.value.__cause__ is theirs


@pytest.mark.parametrize("theirs", [FileNotFoundError(2, "no"), OSError(5, "no"), QueueGone()])
def test_an_exception_that_crossed_has_its_place(theirs: Exception) -> None:
    """STYLE 32: a message names the queue and the backend."""
    words = "^queue '/jobs' on backend 'fake': "
    with pytest.raises(MessageQueueError, match=words), translated(TABLE, "/jobs", "fake"):
        raise theirs


def test_an_unlisted_error_keeps_its_number() -> None:
    """STYLE 31: with errno kept."""
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
    """Clause 18: also where a backend's table lists nothing, and with the number."""
    error = explained(OSError(number, os.strerror(number)))
    assert (type(error), error.errno) == (kind, number)


def test_a_backend_can_say_more_of_a_number() -> None:
    """Clause 18: its table comes first, and a number before a class."""
    table = {errno.EACCES: lambda: QueueGone("by number"), OSError: QueueNotFound}
    assert explained(PermissionError(errno.EACCES, "no"), table).detail == "by number"


def test_a_listed_error_has_the_number_of_the_call() -> None:
    """Clause 18: and not the usual one of its class."""
    assert explained(OSError(errno.EIO, "no"), {errno.EIO: QueueNotFound}).errno == errno.EIO


def test_an_error_of_a_library_that_no_table_lists_is_the_root() -> None:
    """Clause 18: what has no number keeps its words."""
    assert str(explained(ValueError("odd"))) == "the system refused: odd"


def test_what_crosses_unharmed_is_not_changed() -> None:
    """Without an exception nothing happens."""
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


def test_clearing_counts_what_it_dropped_when_others_take_the_rest_of_a_queue_that_is_shut_down(
    channel: FakeChannel,
) -> None:
    """C37: it returns how many messages it dropped although the queue has ended."""
    channel.try_put_many([b"1", b"2", b"3"])
    channel.queue.down = True
    channel.qsize = lambda: 5  # type: ignore[method-assign]  # what others take meanwhile
    assert channel.clear() == 3


def test_a_channel_without_anything_of_the_system_has_nothing_to_abandon(channel: FakeChannel) -> None:
    """Clause 17: what a backend does not override leaves everything as it is."""
    channel.try_put(b"item", 0)
    channel.abandon()
    assert channel.try_get() == (b"item", 0)
