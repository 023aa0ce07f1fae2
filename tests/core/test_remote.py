"""Clauses 38, 41 and 42: what a handle to a queue on a server does, and `open` on a server that is named."""

import itertools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

import ipcq
from core.conftest import Installed
from core.fakes import HOST, FakeBackend, FakeQueue
from ipcq._handle import waits
from ipcq._handle.interface import put_encoded
from ipcq.backend import Availability, Backend, Channel, Persistence, RemoteChannel, Request, Scope, ask
from ipcq.errors import ConnectionLost, QueueNotFound


class RemoteFake(FakeBackend):
    """A backend that asks a server with `ask`; a test sets what happens."""

    def __init__(self) -> None:
        able = replace(HOST, scope=Scope.NETWORK, persistence=Persistence.DISK)
        super().__init__("remote", capabilities=able)
        self.silent = False
        self.incarnations: dict[str, str] = {}
        self.numbers = itertools.count()
        self.untils: list[float] = []

    def answer(self, result: Any) -> Any:
        def attempt(operation: Any) -> Any:
            self.untils.append(operation.until)
            if self.silent:
                time.sleep(max(0.0, operation.until - time.monotonic()))
                raise ConnectionLost("no answer")
            return result

        return ask(attempt, harmless=True)

    def exists(self, name: str) -> bool:
        return bool(self.answer(name in self.queues))

    def probe(self) -> Availability:
        return Availability.yes()

    def _channel(self, name: str, request: Request) -> Any:
        self.answer(None)
        self.incarnations.setdefault(name, str(next(self.numbers)))
        return RemoteFakeChannel(self, self.queues[name], self.incarnations[name])

    def unlink(self, name: str) -> None:
        super().unlink(name)
        del self.incarnations[name]

    def unlink_incarnation(self, name: str, incarnation: str) -> None:
        if self.incarnations.get(name) != incarnation:
            raise QueueNotFound
        self.unlink(name)


class RemoteFakeChannel(RemoteChannel):
    """A channel whose operations ask with `ask`."""

    def __init__(self, backend: RemoteFake, queue: FakeQueue, incarnation: str) -> None:
        self.backend = backend
        self.queue = queue
        self.attributes = queue.attributes
        self.capabilities = backend.capabilities
        self.incarnation = incarnation
        self.waits: list[float] = []
        self.wakings = 0

    def try_put(self, data: bytes, priority: int, /) -> bool:
        self.backend.answer(None)
        self.queue.messages.append((data, priority))
        return True

    def try_get(self) -> Any:
        self.backend.answer(None)
        return self.queue.messages.popleft() if self.queue.messages else None

    def qsize(self) -> int:
        return len(self.backend.answer(self.queue.messages))

    def wait_readable(self, since: float, until: float, /) -> None:
        self.waits.append(until - time.monotonic())
        super().wait_readable(since, until)

    def wake(self) -> None:
        self.wakings += 1

    def close(self) -> None:
        pass


@pytest.fixture
def remote(installed: Installed) -> RemoteFake:
    remote = RemoteFake()
    installed.backend(remote)
    return remote


def of(queue: "ipcq.Queue[Any]") -> RemoteFakeChannel:
    return cast("RemoteFakeChannel", queue._channel)


def test_open_timeout_reaches_the_backend(remote: RemoteFake, name: str) -> None:
    """Clause 38: `create`, `attach` and `exists` end by it."""
    remote.silent = True
    now = time.monotonic()
    with pytest.raises(ConnectionLost):
        ipcq.open(name, "remote", open_timeout=0.2)
    assert now + 0.2 <= remote.untils[0] <= time.monotonic() + 0.2


def test_a_wait_for_the_queue_counts_too(remote: RemoteFake, name: str) -> None:
    """Clause 38: the later of the two ends `open`."""
    remote.silent = True
    now = time.monotonic()
    with pytest.raises(ConnectionLost):
        ipcq.open(name, "remote", create=False, wait=0.4, open_timeout=0.1)
    assert time.monotonic() >= now + 0.4


@pytest.mark.parametrize(
    "call",
    [
        lambda q: q.put(1, timeout=0.1),
        lambda q: q.put_many([1], timeout=0.1),
        lambda q: q.get(timeout=0.1),
        lambda q: q.get_many(timeout=0.1),
        lambda q: q.get_message(timeout=0.1),
        lambda q: put_encoded(q, b"", 0, time.monotonic() + 0.1),
    ],
)
def test_a_timeout_reaches_the_channel(remote: RemoteFake, name: str, call: Callable[[Any], object]) -> None:
    """Clause 38: its attempts end by the deadline."""
    with ipcq.open(name, "remote") as queue:
        remote.silent = True
        remote.untils.clear()
        now = time.monotonic()
        with pytest.raises(ConnectionLost):
            call(queue)
        assert remote.untils[0] <= now + 0.6


@pytest.mark.parametrize("call", [lambda q: q.put(1, timeout=-1), lambda q: q.get(timeout="1")])
def test_a_wrong_timeout_is_refused_as_elsewhere(remote: RemoteFake, name: str, call: Callable[[Any], object]) -> None:
    """With the names of queue and backend."""
    with ipcq.open(name, "remote") as queue, pytest.raises(ipcq.InvalidArgument, match="backend 'remote'"):
        call(queue)


def test_an_idle_wait_takes_a_slice_of_the_channel(remote: RemoteFake, name: str) -> None:
    """Clause 42: not one of a local channel, which would ask ten times a second."""
    with ipcq.open(name, "remote") as queue:
        with pytest.raises(ipcq.QueueEmpty):
            queue.get(timeout=0.5)
        assert 0.3 < of(queue).waits[0] <= 0.5


def test_close_wakes_the_channel(remote: RemoteFake, name: str) -> None:
    """Clause 42: once or more, also if it is called again."""
    queue = ipcq.open(name, "remote")
    channel = of(queue)
    queue.close()
    assert channel.wakings == 1
    queue.close()
    assert channel.wakings == 1


@pytest.mark.parametrize("closed", [False, True])
def test_unlink_removes_its_own_incarnation_alone(remote: RemoteFake, name: str, closed: bool) -> None:
    """Clause 41: another machine may have created the name anew."""
    old = ipcq.open(name, "remote")
    ipcq.unlink(name, "remote")
    with ipcq.open(name, "remote"):
        if closed:
            old.close()
        old.unlink()
        assert ipcq.exists(name, "remote")
    old.close()


def test_a_backend_without_incarnations_refuses_to_unlink_one(name: str) -> None:
    """Clause 41: the default."""
    backend: Backend = FakeBackend("fake")
    with pytest.raises(ipcq.Unsupported):
        backend.unlink_incarnation(name, "1")


def test_a_local_channel_is_not_remote() -> None:
    """Its defaults cost nothing."""
    assert (Channel.remote, Channel.may_block, Channel.incarnation) == (False, False, "")
    assert (RemoteChannel.remote, RemoteChannel.may_block) == (True, True)


def test_a_wait_on_a_server_does_not_poll_under_gevent(
    remote: RemoteFake, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 42: its sockets are gevent's."""
    with ipcq.open(name, "remote") as queue:
        monkeypatch.setattr(waits, "has_patched", lambda _: True)
        assert waits.waits_of(of(queue)) is of(queue)


def test_waits_for_space_poll_by_default(remote: RemoteFake, name: str) -> None:
    """Clause 42: in the end once a second."""
    with ipcq.open(name, "remote") as queue:
        now = time.monotonic()
        of(queue).wait_writable(1, now, now + 0.01)
        assert time.monotonic() > now


def test_the_requests_of_a_lingering_batch_end_after_its_time(remote: RemoteFake, name: str) -> None:
    """Clause 38: a request that begins late in the wait has as much time as the first."""
    with ipcq.open(name, "remote") as queue:
        queue.put(1)
        call = queue._asking(False, None, 100.0)
        assert call._call.deadline - time.monotonic() > 90
        with pytest.raises(ipcq.InvalidArgument, match="linger"):
            queue.get_many(2, linger=-1)
        assert queue.get_many(2, block=False, linger=0.01) == [1]
