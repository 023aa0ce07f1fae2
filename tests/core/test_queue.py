"""One handle: its calls, their refusals, and its description of the queue."""

import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import ipcq
from core.conftest import Handle, Installed
from core.fakes import FakeBackend, FakeChannel
from ipcq._handle import lifecycle as _lifecycle
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
    """It is an int from 0 to 32767."""
    with pytest.raises(InvalidArgument, match="priority must be an int from 0 to 32767, not"):
        queue.put(1, priority=priority)


def test_a_priority_of_zero_of_another_class_is_accepted(queue: Handle) -> None:
    """A queue without priorities accepts every 0."""

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
def test_bad_timeouts_are_refused_by_every_call(
    queue: Handle, call: Callable[..., object], given: dict[str, Any]
) -> None:
    """C10: get(0.5) and a negative timeout raise InvalidArgument."""
    with pytest.raises(InvalidArgument, match=f"queue '{queue.name}' on backend 'memory'"):
        call(queue, **given)


def test_the_error_for_a_message_that_is_too_large_shows_the_sizes(queue: Handle) -> None:
    """It has the size, the limit and the way out."""
    with pytest.raises(MessageTooLarge, match=r"has 603 bytes, the limit is 512: .*max_message_size=603") as caught:
        queue.put(b"x" * 600)
    assert (caught.value.size, caught.value.limit) == (603, 512)


@pytest.mark.parametrize("immediate", [None, 1, "yes", []])
def test_a_bad_argument_of_shutdown_is_refused(queue: Handle, immediate: Any) -> None:
    """`immediate` is a bool."""
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
    """It needs a valid callback or a valid signal, not both."""
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
    """The channel gets the function, the number, or None to cancel."""
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
def test_a_write_only_handle_refuses_every_kind_of_get(queue: Handle, call: Callable[[Handle], object]) -> None:
    """With read=False, they raise PermissionDenied."""
    with (
        ipcq.open(queue.name, "memory", read=False) as writer,
        pytest.raises(PermissionDenied, match=f"queue '{queue.name}' on backend 'memory': .*read=False"),
    ):
        call(writer)


@pytest.mark.parametrize(
    "call", [lambda queue: queue.put(1), lambda queue: queue.put_nowait(1), lambda queue: queue.put_many([1])]
)
def test_a_read_only_handle_refuses_every_kind_of_put(queue: Handle, call: Callable[[Handle], object]) -> None:
    """With write=False, they raise PermissionDenied."""
    with ipcq.open(queue.name, "memory", write=False) as reader, pytest.raises(PermissionDenied, match="write=False"):
        call(reader)


def test_a_read_only_handle_does_not_iterate_over_a_batch(queue: Handle) -> None:
    """The right is checked first."""
    with ipcq.open(queue.name, "memory", write=False) as reader, pytest.raises(PermissionDenied):
        reader.put_many(1 // 0 for _ in range(1))


# Missing capabilities


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
def test_a_refusal_names_a_backend_with_the_capability(
    installed: Installed, name: str, ability: str, call: Callable[[Handle], object], words: str
) -> None:
    """Backends that work between processes come first."""
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
def test_a_refusal_has_the_alternatives_as_an_attribute(installed: Installed, name: str) -> None:
    """They are the installed backends with the capability."""
    installed.backend(FakeBackend("plain", capabilities=Capabilities(scope=Scope.HOST)))
    with ipcq.open(name, "plain") as queue, pytest.raises(Unsupported) as caught:
        queue.peek()
    assert caught.value.alternatives == tuple(registry.able("peek")) != ()


def test_a_queue_without_priorities_names_the_option(queue: Handle) -> None:
    """The backend has them, so another one is not needed."""
    with pytest.raises(Unsupported, match=r"has no priorities: create it with priorities=True$"):
        queue.put(1, priority=1)


def test_a_queue_without_leases_names_the_option(queue: Handle) -> None:
    """As for priorities, also for a delay."""
    for call in (lambda: queue.lease(timeout=0), lambda: queue.put(1, delay=1)):
        with pytest.raises(Unsupported, match=r"has no (leases|delays): create it with leases=True$"):
            call()


# Inspecting


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
    """Limits, mode and lifetime are properties of the queue."""
    assert getattr(queue, fact) == value


@pytest.mark.parametrize("fact", ["name", "backend", "max_messages", "max_message_size", "mode", "capabilities"])
def test_a_closed_handle_still_knows_its_queue(queue: Handle, fact: str) -> None:
    """These properties need no channel."""
    queue.close()
    assert getattr(queue, fact) is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [({}, ", open>"), ({"read": False}, ", open, write only>"), ({"write": False}, ", open, read only>")],
)
def test_a_handle_shows_its_state(queue: Handle, options: dict[str, Any], words: str) -> None:
    """The repr has backend, name and state."""
    with ipcq.open(queue.name, "memory", **options) as other:
        assert repr(other) == f"<ipcq.Queue {queue.name!r} on 'memory'{words}"


def test_a_closed_handle_shows_its_state(queue: Handle) -> None:
    """The repr ends with the state."""
    queue.close()
    assert repr(queue) == f"<ipcq.Queue {queue.name!r} on 'memory', closed>"


def test_a_minimal_channel_has_correct_defaults(handle: Handle) -> None:
    """Methods that are not abstract work by means of those that are."""
    handle.put_many([1, 2, 3])
    assert (handle.full(), handle.empty(), handle.stats().depth, handle.clear()) == (True, False, 3, 3)


def test_clearing_stops_if_another_process_took_the_rest(handle: Handle, channel: FakeChannel) -> None:
    """Messages that others took were not dropped."""
    handle.put_many([1, 2])
    channel.qsize = lambda: 5
    assert handle.clear() == 2


# Iterating


def test_an_iteration_ends_at_the_shutdown(queue: Handle) -> None:
    """`for item in q` ends when the queue is shut down and empty."""
    queue.put_many([1, 2, 3])
    queue.shutdown()
    assert list(queue) == [1, 2, 3]


def test_an_iteration_over_a_handle_that_is_closed_meanwhile_raises(queue: Handle) -> None:
    """It raises QueueClosed."""
    queue.put(1)
    items = iter(queue)
    next(items)
    queue.close()
    with pytest.raises(QueueClosed):
        next(items)


# Pickling


def test_a_handle_to_an_in_process_queue_cannot_be_pickled(queue: Handle) -> None:
    """It raises Unsupported with the reason."""
    with pytest.raises(Unsupported, match=f"queue '{queue.name}' on backend 'memory': its queues live in one process"):
        pickle.dumps(queue)


def test_a_closed_handle_can_be_pickled(handle: Handle) -> None:
    """A pickle has the address, not the channel."""
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
    """The text begins with both."""
    with pytest.raises(kind, match=f"^queue '{handle.name}' on backend 'fake': "):
        call(handle)


def test_peeking_into_an_empty_queue_raises_queue_empty(queue: Handle) -> None:
    """There is no message to return."""
    with pytest.raises(QueueEmpty):
        queue.peek()


def test_peeking_can_return_the_priority(name: str) -> None:
    """`peek_message` returns what `get_message` would, and the message stays."""
    with ipcq.open(name, "memory", priorities=True) as queue:
        queue.put("high", priority=7)
        assert [queue.peek_message(), queue.get_message()] == [ipcq.Message("high", 7)] * 2


def test_a_wait_is_counted_with_its_outcome(handle: Handle, channel: FakeChannel) -> None:
    """The statistics count waits, and timeouts among them."""
    counts: list[bool] = []
    channel.count_wait = counts.append
    with pytest.raises(QueueEmpty):
        handle.get(timeout=0.01)
    channel.wait_readable = lambda *_: channel.queue.messages.append((b"\x05", 0))
    handle.get(timeout=5)
    handle.put_many([1, 2, 3])
    channel.wait_writable = lambda *_: channel.queue.messages.clear()
    handle.put(4, timeout=5)
    assert counts == [False, True, True]


# Standing in for queue.Queue


def test_exclusive_creation_of_a_taken_name_raises_queue_exists(queue: Handle) -> None:
    """This is how to detect that a name is taken."""
    with pytest.raises(QueueExists):
        ipcq.open(queue.name, "memory", exclusive=True)


def test_getting_from_an_unlinked_queue_raises_queue_gone(queue: Handle) -> None:
    """It raises even in another handle than the one that unlinked."""
    with ipcq.open(queue.name, "memory") as other:
        queue.unlink()
        with pytest.raises(QueueGone):
            other.get(timeout=5)


def test_a_handle_can_be_weakly_referenced(queue: Handle) -> None:
    """The queues of the standard library can be, too."""
    assert queue in _lifecycle._handles


def test_a_handle_takes_no_other_attributes(queue: Handle) -> None:
    """Setting a misspelt attribute is an error."""
    with pytest.raises(AttributeError):
        queue.maxsize = 5
