"""One handle: what its calls do around the channel, what they refuse, and what it says of its queue."""

import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import ipcq
from core.conftest import Handle, Installed
from core.fakes import FakeBackend, FakeChannel
from ipcq._handle import handle as _handle
from ipcq._opening import registry
from ipcq.backend import Capabilities, Scope
from ipcq.errors import (
    EncodeError,
    InvalidArgument,
    MessageQueueError,
    MessageTooLarge,
    PermissionDenied,
    QueueClosed,
    QueueEmpty,
    QueueExists,
    QueueFull,
    QueueGone,
    Unsupported,
)

# Arguments


@pytest.mark.parametrize("priority", [-1, 32768, True, False, 1.0, "1", None, []])
def test_a_bad_priority_is_refused(queue: Handle, priority: Any) -> None:
    """An int from 0 to 32767."""
    with pytest.raises(InvalidArgument, match="priority must be an int from 0 to 32767, not"):
        queue.put(1, priority=priority)


def test_a_priority_of_zero_that_is_another_object_is_none(queue: Handle) -> None:
    """A queue without priorities takes every 0."""

    class Number(int):
        pass

    queue.put(1, priority=Number(0))
    assert queue.get_message().priority == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda queue, **given: queue.put(1, **given),
        lambda queue, **given: queue.put_many([1], **given),
        lambda queue, **given: queue.get(**given),
        lambda queue, **given: queue.get_many(**given),
        lambda queue, **given: queue.get_message(**given),
    ],
)
@pytest.mark.parametrize("given", [{"block": 0.5}, {"timeout": -1}, {"block": False, "timeout": "1"}])
def test_bad_times_are_refused_by_every_call(queue: Handle, call: Callable[..., object], given: dict[str, Any]) -> None:
    """C10: get(0.5) is InvalidArgument, a negative timeout too."""
    with pytest.raises(InvalidArgument, match=f"queue '{queue.name}' on backend 'memory'"):
        call(queue, **given)


def test_a_message_that_is_too_large_says_its_figures(queue: Handle) -> None:
    """Limit, actual value and the way out."""
    with pytest.raises(MessageTooLarge, match=r"has 603 bytes, the limit is 512: .*max_message_size=603") as caught:
        queue.put(b"x" * 600)
    assert (caught.value.size, caught.value.limit) == (603, 512)


@pytest.mark.parametrize("immediate", [None, 1, "yes", []])
def test_a_bad_way_of_shutting_down_is_refused(queue: Handle, immediate: Any) -> None:
    """immediate is a bool."""
    with pytest.raises(InvalidArgument, match="immediate must be True or False"):
        queue.shutdown(immediate)


# Notices


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"callback": print, "signal": signal.SIGINT}, "not both"),
        ({"callback": 5}, "callback must be a function"),
        ({"callback": "print"}, "callback must be a function"),
        ({"signal": 0}, "the number of a signal, not 0"),
        ({"signal": -1}, "the number of a signal"),
        ({"signal": 10_000}, "the number of a signal"),
        ({"signal": True}, "the number of a signal"),
        ({"signal": 10.0}, "the number of a signal"),
        ({"signal": "SIGUSR1"}, "the number of a signal"),
        ({"signal": []}, "the number of a signal"),
    ],
)
def test_a_bad_notice_is_refused(queue: Handle, given: dict[str, Any], words: str) -> None:
    """A callback or a signal, and such that it can work."""
    with pytest.raises(InvalidArgument, match=words):
        queue.notify(**given)


@pytest.mark.parametrize(
    ("given", "noticed"),
    [
        ({}, None),
        ({"callback": print}, print),
        ({"signal": signal.SIGTERM}, signal.SIGTERM),
        ({"signal": 10}, 10),
    ],
)
def test_a_notice_reaches_the_channel(
    handle: Handle, channel: FakeChannel, given: dict[str, Any], noticed: object
) -> None:
    """A function, a number, or None to cancel."""
    handle.notify(**given)
    assert channel.noticed == [noticed]


# Rights


@pytest.mark.parametrize(
    "call",
    [
        lambda queue: queue.get(),
        lambda queue: queue.get_nowait(),
        lambda queue: queue.get_many(),
        lambda queue: queue.get_message(),
        lambda queue: queue.peek(),
        lambda queue: queue.clear(),
        lambda queue: queue.fileno(),
        lambda queue: next(iter(queue)),
    ],
)
def test_a_handle_that_does_not_read_refuses_every_way_of_getting(
    queue: Handle, call: Callable[[Handle], object]
) -> None:
    """read=False raises PermissionDenied on the other verb."""
    with (
        ipcq.open(queue.name, "memory", read=False) as writer,
        pytest.raises(PermissionDenied, match=f"queue '{queue.name}' on backend 'memory': .*read=False"),
    ):
        call(writer)


@pytest.mark.parametrize(
    "call", [lambda queue: queue.put(1), lambda queue: queue.put_nowait(1), lambda queue: queue.put_many([1])]
)
def test_a_handle_that_does_not_write_refuses_every_way_of_putting(
    queue: Handle, call: Callable[[Handle], object]
) -> None:
    """write=False raises PermissionDenied on the other verb."""
    with ipcq.open(queue.name, "memory", write=False) as reader, pytest.raises(PermissionDenied, match="write=False"):
        call(reader)


def test_an_item_is_encoded_before_rights_are_looked_at_or_not_at_all(queue: Handle) -> None:
    """A batch that may not be put is not even walked through."""
    with ipcq.open(queue.name, "memory", write=False) as reader, pytest.raises(PermissionDenied):
        reader.put_many(1 // 0 for _ in range(1))


# What a backend cannot do


@pytest.mark.parametrize(
    ("ability", "call", "words"),
    [
        ("peek", lambda queue: queue.peek(), "cannot look at a message without taking it"),
        ("pollable", lambda queue: queue.fileno(), "cannot give a descriptor to poll"),
        ("notify", lambda queue: queue.notify(), "cannot give notice of a message"),
        ("shutdown", lambda queue: queue.shutdown(), "cannot be shut down"),
        ("priorities", lambda queue: queue.put(1, priority=1), "has no priorities"),
    ],
)
def test_a_refusal_names_the_backends_that_can(
    installed: Installed, name: str, ability: str, call: Callable[[Handle], object], words: str
) -> None:
    """Unsupported names a backend that can, those that cross processes first."""
    installed.backend(FakeBackend("plain", capabilities=Capabilities(scope=Scope.HOST)))
    installed.backend(
        FakeBackend("able", rank=999, capabilities=replace(Capabilities(scope=Scope.HOST), **{ability: True}))
    )
    with (
        ipcq.open(name, "plain") as queue,
        pytest.raises(Unsupported, match=f"queue '{name}' on backend 'plain': this queue {words}: use backend='able'"),
    ):
        call(queue)


@pytest.mark.needs("memory")
def test_a_refusal_has_the_alternatives_for_programs(installed: Installed, name: str) -> None:
    """Names of installed backends that can."""
    installed.backend(FakeBackend("plain", capabilities=Capabilities(scope=Scope.HOST)))
    with ipcq.open(name, "plain") as queue, pytest.raises(Unsupported) as caught:
        queue.peek()
    assert caught.value.alternatives == tuple(registry.able("peek")) != ()


def test_a_queue_without_priorities_on_a_backend_that_has_them_says_how(queue: Handle) -> None:
    """The nearest way out comes first."""
    best = registry.able("priorities")[0]
    with pytest.raises(
        Unsupported, match=f"has no priorities: create it with priorities=True, or use backend={best!r}"
    ):
        queue.put(1, priority=1)


# Looking


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("backend", "memory"),
        ("max_messages", 4),
        ("max_message_size", 512),
        ("buffer_size", None),
        ("mode", 0o600),
        ("priorities", False),
        ("lifetime", "persistent"),
        ("closed", False),
    ],
)
def test_a_handle_knows_its_queue(queue: Handle, fact: str, value: object) -> None:
    """Limits, mode and lifetime live with the queue."""
    assert getattr(queue, fact) == value


@pytest.mark.parametrize("fact", ["name", "backend", "max_messages", "max_message_size", "mode", "capabilities"])
def test_a_closed_handle_still_knows_its_queue(queue: Handle, fact: str) -> None:
    """What is known needs no channel."""
    queue.close()
    assert getattr(queue, fact) is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [({}, ", open>"), ({"read": False}, ", open, write only>"), ({"write": False}, ", open, read only>")],
)
def test_a_handle_shows_its_state(queue: Handle, options: dict[str, Any], words: str) -> None:
    """STYLE 21: repr shows backend, name and state."""
    with ipcq.open(queue.name, "memory", **options) as other:
        assert repr(other) == f"<ipcq.Queue {queue.name!r} on 'memory'{words}"


def test_a_closed_handle_shows_it(queue: Handle) -> None:
    """STYLE 21: as above."""
    queue.close()
    assert repr(queue) == f"<ipcq.Queue {queue.name!r} on 'memory', closed>"


def test_a_channel_that_only_does_what_it_must_does_the_rest_by_it(handle: Handle) -> None:
    """backend: what is not abstract has a default that is correct."""
    handle.put_many([1, 2, 3])
    assert (handle.full(), handle.empty(), handle.stats().depth, handle.clear()) == (True, False, 3, 3)


def test_clearing_stops_where_another_took_the_rest(handle: Handle, channel: FakeChannel) -> None:
    """What somebody else took meanwhile was not dropped."""
    handle.put_many([1, 2])
    channel.qsize = lambda: 5  # type: ignore[method-assign]
    assert handle.clear() == 2


# Iterating


def test_an_iteration_takes_until_the_shutdown(queue: Handle) -> None:
    """`for item in q` ends where the queue is shut down and empty."""
    queue.put_many([1, 2, 3])
    queue.shutdown()
    assert list(queue) == [1, 2, 3]


def test_an_iteration_that_is_closed_meanwhile_says_so(queue: Handle) -> None:
    """Own close meanwhile: QueueClosed."""
    queue.put(1)
    items = iter(queue)
    next(items)
    queue.close()
    with pytest.raises(QueueClosed):
        next(items)


# Pickling


def test_a_handle_within_one_process_is_not_pickled(queue: Handle) -> None:
    """memory: Unsupported, and the text says why."""
    with pytest.raises(Unsupported, match=f"queue '{queue.name}' on backend 'memory': its queues live in one process"):
        pickle.dumps(queue)


def test_a_closed_handle_can_be_pickled(handle: Handle) -> None:
    """What is pickled is where to attach, and not the channel."""
    handle.close()
    with pickle.loads(pickle.dumps(handle)) as copy:
        assert copy.name == handle.name


# Errors


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda queue: queue.get_nowait(), QueueEmpty),
        (lambda queue: queue.get(timeout=0.01), QueueEmpty),
        (lambda queue: [queue.put_nowait(1) for _ in range(5)], QueueFull),
        (lambda queue: [queue.put(1, timeout=0.01) for _ in range(5)], QueueFull),
        (lambda queue: queue.put(object()), EncodeError),
        (lambda queue: queue.put_many([object()]), EncodeError),
        (lambda queue: queue.put_many([b"x" * 99]), MessageTooLarge),
    ],
)
def test_every_error_names_queue_and_backend(
    handle: Handle, call: Callable[[Handle], object], kind: type[MessageQueueError]
) -> None:
    """DESIGN 4: a message names the queue and the backend."""
    with pytest.raises(kind, match=f"^queue '{handle.name}' on backend 'fake': "):
        call(handle)


def test_peeking_into_an_empty_queue_is_queue_empty(queue: Handle) -> None:
    """There is none now."""
    with pytest.raises(QueueEmpty):
        queue.peek()


def test_peeking_can_tell_the_priority(name: str) -> None:
    """As get_message does, and the message stays."""
    with ipcq.open(name, "memory", priorities=True) as queue:
        queue.put("high", priority=7)
        assert [queue.peek_message(), queue.get_message()] == [ipcq.Message("high", 7)] * 2


def test_a_wait_is_counted_with_its_end(handle: Handle, channel: FakeChannel) -> None:
    """stats: waits, and among them timeouts."""
    counts: list[bool] = []
    channel.count_wait = counts.append  # type: ignore[method-assign]
    with pytest.raises(QueueEmpty):
        handle.get(timeout=0.01)
    channel.wait_readable = lambda *_: channel.queue.messages.append((b"\x05", 0))  # type: ignore[method-assign]
    handle.get(timeout=5)
    handle.put_many([1, 2, 3])
    channel.wait_writable = lambda *_: channel.queue.messages.clear()  # type: ignore[method-assign]
    handle.put(4, timeout=5)
    assert counts == [False, True, True]


# Standing in for queue.Queue


def test_a_taken_name_is_told_by_exclusive_creation(queue: Handle) -> None:
    """QueueExists is a FileExistsError."""
    with pytest.raises(QueueExists):
        ipcq.open(queue.name, "memory", exclusive=True)


def test_what_waits_in_a_queue_that_is_unlinked_is_told(queue: Handle) -> None:
    """After unlink, other handles raise QueueGone."""
    with ipcq.open(queue.name, "memory") as other:
        queue.unlink()
        with pytest.raises(QueueGone):
            other.get(timeout=5)


def test_a_handle_can_be_referred_to_weakly(queue: Handle) -> None:
    """As the standard library's queues."""
    assert queue in _handle._handles


def test_a_handle_takes_no_other_attributes(queue: Handle) -> None:
    """A misspelt attribute is an error."""
    with pytest.raises(AttributeError):
        queue.maxsize = 5  # type: ignore[attr-defined]
