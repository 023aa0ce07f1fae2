"""What only a pair of sockets has: its limits, the lock of its producers, and errors of the kernel."""

import errno
import math
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest

import ipcq
from backends import socketpair
from backends.overtaking import CAPACITY, INNER, VERBS, check_everywhere
from backends.socketpair import LARGE_BYTES, Handle, count_descriptors, ends, fcntl, path_of, resource
from ipcq.backend import Request
from ipcq.errors import (
    LimitExceeded,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueGone,
    QueueNotFound,
    Unsupported,
)
from ipcq_socketpair import SocketpairBackend, _buffer, _channel, _place

name, queue, bounded = socketpair.name, socketpair.queue, socketpair.bounded


# Limits


def test_more_messages_than_the_buffer_may_hold_names_the_setting(name: str) -> None:
    """C24: net.core.wmem_max, with the command that raises it."""
    with pytest.raises(LimitExceeded, match=r"sudo sysctl net.core.wmem_max=") as caught:
        ipcq.open(name, "socketpair", max_messages=100_000)
    assert caught.value.limit == "net.core.wmem_max"
    assert caught.value.errno == errno.ENOBUFS


def test_a_size_beyond_any_setting_has_no_command(name: str) -> None:
    """C24: no command would help."""
    with pytest.raises(LimitExceeded, match="ask for less"):
        ipcq.open(name, "socketpair", buffer_size=1 << 40)


def test_a_limit_that_cannot_be_read_still_applies(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: also if /proc/sys does not show it."""
    monkeypatch.setattr(_buffer, "_most", lambda: _buffer._MOST_BUFFER_BYTES)
    with pytest.raises(LimitExceeded):
        ipcq.open(name, "socketpair", max_messages=100_000)


def test_more_large_messages_than_descriptors_names_the_limit(name: str) -> None:
    """C24: RLIMIT_NOFILE, because each message would take a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        with pytest.raises(LimitExceeded, match="ulimit -n 400") as caught:
            ipcq.open(name, "socketpair", max_messages=400, max_message_size=LARGE_BYTES)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.limit == "RLIMIT_NOFILE"


def test_many_messages_get_smaller_packets(name: str) -> None:
    """C7: as many as asked for fit, whatever the default of the maximum size."""
    with ipcq.open(name, "socketpair", max_messages=2000, serializer="raw") as queue:
        assert queue.put_many([b""] * 2001, block=False) == 2000


@pytest.mark.parametrize(
    "request_",
    [Request(buffer_size=1), Request(max_messages=4, buffer_size=9000), Request(priorities=True), Request(mode=0o640)],
)
def test_limits_that_cannot_be_honoured_are_refused(request_: Request, name: str) -> None:
    """Clause 6: Unsupported, and nothing is created."""
    with pytest.raises(Unsupported):
        SocketpairBackend().create(name, request_)
    assert not ipcq.exists(name, "socketpair")


def test_the_buffer_is_the_size_that_was_asked_for(name: str) -> None:
    """Clause 6: every handle reports it."""
    with ipcq.open(name, "socketpair", buffer_size=10_000), ipcq.open(name, "socketpair", create=False) as other:
        assert other.buffer_size == 10_000


def test_a_wait_polls_before_it_sleeps(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that arrives at once is taken without the cost of a sleep."""
    asked: list[float] = []

    class Poll:
        def register(self, *_: object) -> None:
            pass

        def poll(self, timeout: float) -> list[object]:
            asked.append(timeout)
            return []

    monkeypatch.setattr(_channel, "_poll", Poll)
    monkeypatch.setattr(_channel, "_SPIN_SECONDS", 2)
    monkeypatch.setattr(_channel, "monotonic", count().__next__)  # a second passes at each look
    queue._channel.wait_readable(0, 100)
    assert asked == [0, 0, 97_000]


@pytest.fixture
def woken(queue: Handle) -> Callable[[], Any]:
    """Return a function that puts a message, lets a channel whose check is due wait for it, and returns the channel."""

    def wake() -> Any:
        channel: Any = queue._channel
        queue.put(b"x")
        channel._next_look = 0.0
        now = time.monotonic()
        channel.wait_readable(now, now + 20)
        return channel

    return wake


def test_a_get_that_was_woken_does_not_look_at_the_path(
    woken: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait has seen that the queue is linked; and after a sleep, each call takes many times as long as usual."""
    channel = woken()

    def look(*_: object) -> bool:
        raise AssertionError("the get looked")

    monkeypatch.setattr(_place, "leads_to", look)
    monkeypatch.setattr(_place, "BLIND_SECONDS", 20.0)
    channel._next_look = 0.0
    now = time.monotonic()
    channel.wait_readable(now, now + 20)
    assert channel.try_get() == (b"x", 0)


def test_a_channel_that_is_always_woken_looks_at_the_path_in_the_end(
    woken: Callable[[], Any], queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C14: `rm` is an unlink."""
    monkeypatch.setattr(_place, "PATH_SECONDS", 0.0)
    channel = woken()
    os.unlink(path_of(queue.name))
    with pytest.raises(QueueGone):
        channel.try_get()


def test_a_get_that_was_woken_by_an_unlink_sees_it(queue: Handle, name: str) -> None:
    """C14: even if there is a message too."""
    queue.put(b"x")
    channel: Any = queue._channel
    ipcq.unlink(name, "socketpair")
    channel._next_look = math.inf
    now = time.monotonic()
    channel.wait_readable(now, now + 20)
    with pytest.raises(QueueGone):
        channel.try_get()


def test_a_get_that_was_woken_knows_whether_messages_travel_as_descriptors(queue: Handle) -> None:
    """C7: otherwise the kernel might drop the descriptor of the message that woke it."""
    queue.put(b"x")
    channel: Any = queue._channel
    _buffer.say_large(ends(queue).read)
    now = time.monotonic()
    channel.wait_readable(now, now + 20)
    assert channel._large


def test_a_default_timeout_of_the_program_makes_no_call_wait(name: str) -> None:
    """C10: nor does it change the sockets of other holders."""
    socket.setdefaulttimeout(5)
    try:
        with ipcq.open(name, "socketpair") as queue:
            began = time.monotonic()
            with pytest.raises(ipcq.QueueEmpty):
                queue.get_nowait()
            assert time.monotonic() - began < 5
            assert os.get_blocking(queue.fileno())
    finally:
        socket.setdefaulttimeout(None)


def test_a_setting_that_cannot_be_read_counts_as_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: in containers that hide /proc/sys."""

    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", refuse)
    most = _buffer._most()
    monkeypatch.undo()
    assert most == _buffer._MOST_BUFFER_BYTES


# The lock of producers


def test_a_queue_with_a_stopped_producer_is_full_for_a_while(bounded: Handle) -> None:
    """C11: a producer that cannot get the lock times out on schedule, and continues once the lock is free."""
    lock = os.open(f"/proc/self/fd/{ends(bounded).lock}", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ipcq.QueueFull):
            bounded.put(b"x", timeout=0.1)
    finally:
        os.close(lock)
    bounded.put(b"x")


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("outer", VERBS)
def test_a_call_in_the_middle_of_another_exceeds_no_limit(outer: str, inner: str, name: str) -> None:
    """C12: at any point where a handler or a finaliser can interrupt, also between counting and sending."""
    with ipcq.open(name, "socketpair", max_messages=CAPACITY, max_message_size=64) as queue:
        check_everywhere(queue, outer, inner)


def test_a_put_inside_a_put_is_done_first(bounded: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: a signal handler that strikes between counting and sending cannot exceed the bound."""
    channel = bounded._channel  # type: ignore[attr-defined]  # which the handler interrupts

    def has_space() -> bool:
        monkeypatch.undo()
        bounded.put(b"handler")
        return True

    monkeypatch.setattr(channel, "_has_space", has_space)
    bounded.put(b"x")
    assert bounded.get_many() == [b"handler", b"x"]


def test_a_lock_that_the_system_refuses_is_our_error(bounded: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the error has the number, and nothing is put."""
    flock = fcntl.flock

    def refuse(descriptor: int, how: int) -> None:
        if how != fcntl.LOCK_UN:
            raise OSError(errno.ENOLCK, "no locks")
        flock(descriptor, how)

    with monkeypatch.context() as patch, pytest.raises(MessageQueueError) as caught:
        patch.setattr(fcntl, "flock", refuse)
        bounded.put(b"item")
    assert caught.value.errno == errno.ENOLCK
    assert bounded.empty()


def test_a_channel_opens_a_new_lock_after_a_fork(bounded: Handle) -> None:
    """C20: and works on."""
    assert bounded._channel.after_fork()  # type: ignore[attr-defined]  # as in the child
    bounded.put(b"x")
    assert bounded.get(timeout=5) == b"x"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES])
def test_a_channel_without_a_new_lock_is_not_used_after_a_fork(
    number: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C20, clause 17: and everything is closed."""
    before = count_descriptors()
    channel = SocketpairBackend().create(name, Request(max_messages=4))

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(_channel.os, "open", refuse)
    assert not channel.after_fork()
    monkeypatch.undo()
    assert count_descriptors() == before
    with suppress(FileNotFoundError):
        os.unlink(path_of(name))


def test_an_unbounded_channel_still_works_after_a_fork(queue: Handle) -> None:
    """C20: it has no lock to replace."""
    assert queue._channel.after_fork()  # type: ignore[attr-defined]  # as in the child


# Refusals


@pytest.mark.parametrize("verb", ["put", "get", "peek"])
def test_an_error_of_the_kernel_is_explained(verb: str, queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 18: the error has the errno."""
    channel = queue._channel  # type: ignore[attr-defined]  # it makes the system calls

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(channel, "_send", refuse)
    monkeypatch.setattr(channel, "_receive_all", refuse)
    with pytest.raises(MessageQueueError, match="the system refused") as caught:
        queue.put(b"x") if verb == "put" else getattr(queue, verb)()
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EMFILE, LimitExceeded),
        (errno.ENFILE, LimitExceeded),
        (errno.ENOMEM, NoSpace),
        (errno.EACCES, PermissionDenied),
        (errno.EIO, MessageQueueError),
    ],
)
def test_an_error_of_the_system_at_creation_is_explained(
    number: int, expected: type[Exception], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24, clause 18: each error number has its class, and nothing stays open."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    _place.make()
    before = count_descriptors()
    monkeypatch.setattr(_place.os, "chmod", refuse)
    with pytest.raises(expected):
        SocketpairBackend().create(name, Request())
    monkeypatch.undo()
    with suppress(FileNotFoundError):
        os.unlink(path_of(name))
    assert count_descriptors() == before


def test_a_backend_called_without_the_core_keeps_the_clauses(name: str) -> None:
    """Clauses 1 and 4: a taken name is QueueExists, a missing one QueueNotFound."""
    backend = SocketpairBackend()
    channel = backend.create(name, Request())
    with pytest.raises(ipcq.QueueExists):
        backend.create(name, Request())
    backend.unlink(name)
    with pytest.raises(QueueNotFound):
        backend.unlink(name)
    channel.close()


def test_on_other_systems_the_probe_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: and there are no queues."""
    monkeypatch.setattr("sys.platform", "darwin")
    backend = SocketpairBackend()
    assert not backend.probe().usable
    assert "this is darwin" in backend.probe().reason
    assert (backend.exists("/x"), backend.names(), backend.findings()) == (False, [], [])
