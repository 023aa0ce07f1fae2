"""The process that hands out the two ends of a pair of sockets: hostile peers, and the thread that answers."""

import errno
import os
import socket
import threading
import time
from array import array
from contextlib import suppress
from typing import Any

import pytest

import ipcq
from backends import socketpair
from backends.socketpair import Handle, count_descriptors, ends, path_of
from ipcq.backend import Request
from ipcq.errors import CorruptQueue, LimitExceeded, MessageQueueError, PermissionDenied, QueueNotFound, VersionMismatch
from ipcq_socketpair import SocketpairBackend, _channel, _host, _place

name, queue, bounded = socketpair.name, socketpair.queue, socketpair.bounded


# The rendezvous


def test_idle_connections_do_not_delay_an_attach(queue: Handle) -> None:
    """C27: a hundred idle connections, half of which send garbage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_host, "offered", lambda found: None)  # as if in another process
        idle = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(100)]
        for number, each in enumerate(idle):
            each.connect(path_of(queue.name))
            if number % 2:
                with suppress(OSError):
                    each.send(b"garbage")
        with ipcq.open(queue.name, "socketpair", create=False, serializer="raw") as other:
            other.put(b"through")
        for each in idle:
            each.close()
    assert queue.get(timeout=5) == b"through"


ANSWERS: dict[str, tuple[bytes, int, type[Exception]]] = {
    "nothing": (b"", 0, QueueNotFound),
    "garbage": (b"garbage", 0, CorruptQueue),
    "a list": (b"[]", 0, CorruptQueue),
    "no terms": (b'{"version": 1}', 0, CorruptQueue),
    "another version": (b'{"version": 2}', 0, VersionMismatch),
    "too few descriptors": (b"TERMS", 2, CorruptQueue),
    "no sockets": (b"TERMS", 3, CorruptQueue),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_invalid_answer_is_an_error(kind: str, name: str) -> None:
    """C18, C28: whatever answers, attaching raises an error that says what is wrong, and leaks no descriptor."""
    text, descriptors, expected = ANSWERS[kind]
    with ipcq.open(f"{name}-real", "socketpair") as real:
        terms = real._channel._terms.packed()  # type: ignore[attr-defined]  # a holder sends these
    _place.make()
    before = count_descriptors()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as impostor:
        impostor.bind(path_of(name))
        impostor.listen()
        over = threading.Event()

        def answer() -> None:
            impostor.settimeout(0.05)
            while not over.is_set():
                with suppress(OSError):
                    line, _ = impostor.accept()
                    with line:
                        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [1] * descriptors))]
                        line.sendmsg([terms if text == b"TERMS" else text], rights if descriptors else [])

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with pytest.raises(expected):
                SocketpairBackend().attach(name, Request())
        finally:
            over.set()
            thread.join()
    os.unlink(path_of(name))
    assert count_descriptors() == before


def test_one_thread_serves_all_queues_and_ends_with_the_last(name: str) -> None:
    """C17: one thread for any number of queues, and none afterwards."""
    before = set(threading.enumerate())
    queues = [ipcq.open(f"{name}-{number}", "socketpair") for number in range(3)]
    during = set(threading.enumerate()) - before
    for queue in queues:
        queue.close()
    assert len(during) == 1
    assert during.isdisjoint(threading.enumerate())


def test_without_a_thread_there_is_no_queue(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C16: a queue that no process could attach to is not created, and nothing stays open."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = count_descriptors()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(LimitExceeded, match="so that a thread can be started"):
        ipcq.open(name, "socketpair", max_messages=4)
    assert not ipcq.exists(name, "socketpair")
    assert count_descriptors() == before


def test_without_proc_a_bounded_queue_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C7: its producers could not exclude each other; the error has the way out."""
    real = os.open

    def refuse(path: Any, *arguments: Any, **keywords: Any) -> int:
        if str(path).startswith("/proc/self/fd"):
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return real(path, *arguments, **keywords)

    before = count_descriptors()
    monkeypatch.setattr(_channel.os, "open", refuse)
    with pytest.raises(MessageQueueError, match="mount /proc"):
        ipcq.open(name, "socketpair", max_messages=4)
    monkeypatch.undo()
    assert count_descriptors() == before
    assert not ipcq.exists(name, "socketpair")


def test_descriptors_are_neither_sent_to_nor_taken_from_another_user(
    queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C27: SO_PEERCRED decides on both sides."""
    from ipcq_socketpair import _ends

    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        monkeypatch.setattr(_ends, "_peer", lambda connection: 12345)
        channel = queue._channel  # type: ignore[attr-defined]  # the channel to hand out
        _ends.sent(one, channel._terms, channel._ends)
        with pytest.raises(BlockingIOError):
            other.recv(1, socket.MSG_DONTWAIT)
        with pytest.raises(PermissionDenied, match="12345"):
            _ends.received(other)


def test_connecting_to_a_full_backlog_is_retried(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C11: until the timeout."""
    monkeypatch.setattr(_host, "offered", lambda found: None)
    monkeypatch.setattr(_place, "_connects", lambda end, path: False)
    with pytest.raises(QueueNotFound, match="kill -CONT"):
        SocketpairBackend().attach(queue.name, Request())
    monkeypatch.undo()


def test_a_holder_that_closes_before_it_answers_gives_no_answer() -> None:
    """C16: the newcomer connects again."""
    from ipcq_socketpair import _ends

    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        other.send(b"unread")
        one.close()
        assert _ends.received(other) is None


def test_more_descriptors_than_fit_name_the_limit() -> None:
    """C24: it is reported as a full table, which is the usual reason, and nothing stays open."""
    from ipcq_socketpair import _ends

    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        before = count_descriptors()
        one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [1] * 5))])
        with pytest.raises(LimitExceeded):
            _ends.received(other)
        assert count_descriptors() == before


def test_received_descriptors_are_closed_if_a_call_on_them_fails(
    bounded: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C5: neither the sockets nor the file that producers lock."""
    from ipcq_socketpair import _ends

    def refuse(end: socket.socket) -> socket.socket:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        channel = bounded._channel  # type: ignore[attr-defined]  # the channel to hand out
        _ends.sent(one, channel._terms, channel._ends)
        before = count_descriptors()
        monkeypatch.setattr(_ends, "_blocking", refuse)
        with pytest.raises(OSError, match="Input/output"):
            _ends.received(other)
        assert count_descriptors() == before


def test_a_close_waits_until_its_descriptors_have_been_sent(queue: Handle) -> None:
    """C16: a newcomer never gets another descriptor that has the same number by then."""
    (host,) = _host._hosts
    host._answering = ends(queue).listener.fileno()
    began = time.monotonic()
    threading.Timer(0.1, setattr, (host, "_answering", _host._NO_DESCRIPTOR)).start()
    queue.close()
    assert time.monotonic() - began >= 0.1


# The thread


def test_the_thread_ends_with_the_interpreter(queue: Handle) -> None:
    """C17: handles that are still open can be used and closed."""
    assert "ipcq-socketpair" in {thread.name for thread in threading.enumerate()}
    _host._end()
    assert "ipcq-socketpair" not in {thread.name for thread in threading.enumerate()}
    queue.put(b"x")
    assert queue.get(timeout=5) == b"x"


def test_a_queue_opened_by_a_handler_while_the_last_is_closed_is_served(
    queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C12: the thread keeps running for it."""
    opened: list[Handle] = []

    class Interrupted(list[Any]):
        def remove(self, host: object) -> None:
            opened.append(ipcq.open(f"{queue.name}-handler", "socketpair"))
            super().remove(host)

    monkeypatch.setattr(_host, "_hosts", Interrupted(_host._hosts))
    queue.close()
    assert len(_host._hosts) == 1
    monkeypatch.setattr(_host, "_hosts", list(_host._hosts))
    opened[0].close()
    monkeypatch.undo()
    _host._hosts.clear()


def test_a_close_by_a_finaliser_in_the_thread_ends_the_thread(name: str) -> None:
    """C17: the thread cannot wait for itself."""
    before = count_descriptors()
    queue = ipcq.open(name, "socketpair")
    (host,) = _host._hosts
    thread = host._thread
    host._thread = threading.current_thread()  # as if this were it
    queue.close()
    thread.join(5)
    assert not thread.is_alive()
    assert count_descriptors() == before


class Refusing:
    """A proxy of a socket whose calls fail."""

    def __init__(self, real: socket.socket, number: int) -> None:
        self._real = real
        self._number = number

    def __getattr__(self, what: str) -> Any:
        return getattr(self._real, what)

    def _accept(self) -> None:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ECONNABORTED])
def test_the_thread_survives_an_accept_that_fails(number: int, queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: a full table is raised, so that the thread waits; any other error concerns only the newcomer."""
    offer = queue._channel._offer  # type: ignore[attr-defined]  # the thread serves it
    monkeypatch.setattr(offer.ends, "listener", Refusing(offer.ends.listener, number))
    if number == errno.EMFILE:
        with pytest.raises(OSError, match="Too many open files"):
            offer.answer()
    else:
        offer.answer()
    monkeypatch.undo()


def test_the_thread_stops_serving_a_queue_that_was_unlinked(queue: Handle) -> None:
    """C14: otherwise its socket, which stays readable, would keep the thread busy until the handle is closed."""
    ipcq.unlink(queue.name, "socketpair")
    assert not queue._channel._offer.answer()  # type: ignore[attr-defined]  # the thread serves it


def test_a_reserve_that_cannot_be_opened_is_retried(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: the next get needs it, not this one."""
    channel = queue._channel  # type: ignore[attr-defined]  # it keeps the reserve
    channel._drop_spare()

    def refuse(descriptor: int) -> int:
        raise OSError(errno.EMFILE, "full")

    monkeypatch.setattr(_channel.os, "dup", refuse)
    channel._refill()
    monkeypatch.undo()
    assert not channel._spare
    channel._refill()
    assert len(channel._spare) == 1


def test_the_thread_waits_while_it_cannot_accept(queue: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: and answers afterwards."""
    offer = queue._channel._offer  # type: ignore[attr-defined]  # the thread serves it
    waited = threading.Event()
    monkeypatch.setattr(_host, "sleep", lambda seconds: waited.set())
    monkeypatch.setattr(_host, "offered", lambda found: None)
    refusals = iter([OSError(errno.EMFILE, "full")])
    real = offer.answer

    def answer() -> bool:
        for refusal in refusals:
            raise refusal
        return real()

    monkeypatch.setattr(offer, "answer", answer)
    ipcq.open(queue.name, "socketpair", create=False).close()
    assert waited.is_set()


# Forks


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_leaves_the_parent_as_it_was(queue: Handle) -> None:
    """C20: newcomers are answered as before."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_host, "offered", lambda found: None)
        ipcq.open(queue.name, "socketpair", create=False).close()


def simulate_fork() -> None:
    """Put this process into the state of a forked child: with the queues, without the thread."""
    (host,) = _host._hosts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host, "release", lambda: None)
        os.eventfd_write(host._bell, 1)
        host._thread.join()
    _host._process = -1


@pytest.mark.parametrize("given", [True, False])
def test_a_child_answers_newcomers_if_it_can_start_a_thread(
    given: bool, queue: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C20: without one, its own handles still work."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    simulate_fork()
    with pytest.MonkeyPatch.context() as patch:
        if not given:
            patch.setattr(threading.Thread, "start", refuse)
        _host.inherit()
    assert len(_host._hosts) == given
    queue.put(b"x")
    assert queue.get(timeout=5) == b"x"


def test_a_child_without_queues_starts_no_thread() -> None:
    """C20: there is nothing to hand out."""
    before = set(threading.enumerate())
    _host._process = -1
    _host.inherit()
    assert before.issuperset(threading.enumerate())
