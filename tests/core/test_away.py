"""Nobody on this machine notices that a backend of other machines is installed and its server is away."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import ipcq
from core.conftest import Installed
from core.fakes import HOST, FakeBackend
from ipcq.backend import Persistence, Scope
from ipcq.errors import ConnectionLost, QueueNotFound
from local_backends import local_backends

#: Seconds for which the plugin waits for its server. Nobody may wait for it at all.
PATIENCE = 0.2


class Listener:
    """A server that accepts connections, as the kernel does for any listener, and never answers."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.address = self._socket.getsockname()

    def was_asked(self) -> bool:
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


class Away(FakeBackend):
    """A plugin whose server is away: each of its functions, `probe` and `findings` too, waits for an answer."""

    def __init__(self, listener: Listener) -> None:
        able = replace(HOST, scope=Scope.NETWORK, persistence=Persistence.SYNCED, priorities=True, peek=True)
        super().__init__("away", rank=999, capabilities=able)
        self._address = listener.address

    def _ask(self, *_: object) -> Any:
        with socket.create_connection(self._address) as connection:
            connection.settimeout(PATIENCE)
            try:
                connection.recv(1)
            except TimeoutError as error:
                raise ConnectionLost("no answer") from error

    probe = exists = create = attach = unlink = names = findings = _ask


@pytest.fixture
def away(installed: Installed, listener: Listener) -> Listener:
    """Install the plugin beside a local backend, and return its server."""
    installed.backend(FakeBackend("local", rank=800))
    installed.backend(Away(listener))
    return listener


def refused(kind: type[ipcq.MessageQueueError], call: Callable[[], object]) -> None:
    with pytest.raises(kind):
        call()


def cause_unsupported(name: str) -> None:
    with ipcq.open(name, "local") as queue, pytest.raises(ipcq.Unsupported) as refused:
        queue.peek()
    assert "away" not in refused.value.alternatives


CALLS: dict[str, Callable[[str], object]] = {
    "open": lambda name: ipcq.open(name).close(),
    "open_existing": lambda name: [ipcq.open(name).close() for _ in range(2)],
    "open_missing": lambda name: refused(QueueNotFound, lambda: ipcq.open(name, create=False)),
    "open_impossible": lambda name: refused(
        ipcq.BackendUnavailable, lambda: ipcq.open(name, require={"persistence": Persistence.SYNCED})
    ),
    "exists": ipcq.exists,
    "unlink": lambda name: (ipcq.open(name).close(), ipcq.unlink(name)),
    "unlink_missing": lambda name: refused(QueueNotFound, lambda: ipcq.unlink(name)),
    "queues": lambda _: ipcq.queues(),
    "unsupported": cause_unsupported,
    "open_named": lambda name: ipcq.open(name, "local").close(),
}


@pytest.mark.parametrize("call", CALLS)
def test_no_local_call_asks_the_server(away: Listener, name: str, call: str) -> None:
    """Clause 38: only who names the backend waits for it."""
    CALLS[call](name)
    assert not away.was_asked()


def test_no_other_test_asks_the_server(installed: Installed) -> None:
    """It is none of the backends of this machine, which the tests of them all take."""
    installed.backend(FakeBackend("remote", rank=999, capabilities=replace(HOST, scope=Scope.NETWORK)))
    assert [info.name for info in local_backends()] == [info.name for info in ipcq.backends() if info.name != "remote"]


def test_a_queue_is_not_split_by_a_server_that_comes_back(installed: Installed, name: str) -> None:
    """`auto` attaches to the local queue, whatever a server has under that name."""
    remote = FakeBackend("remote", rank=999, capabilities=replace(HOST, scope=Scope.NETWORK))
    installed.backend(FakeBackend("local", rank=800))
    installed.backend(remote)
    with ipcq.open(name) as first:
        remote.make(name)
        with ipcq.open(name) as second:
            assert first.backend == second.backend == "local"


@pytest.mark.parametrize("opening", ["argument", "variable"])
def test_a_backend_of_other_machines_is_used_by_its_name(
    installed: Installed, name: str, monkeypatch: pytest.MonkeyPatch, opening: str
) -> None:
    """A queue that a local backend has under that name does not matter then."""
    local = FakeBackend("local", rank=800)
    local.make(name)
    installed.backend(local)
    installed.backend(FakeBackend("remote", capabilities=replace(HOST, scope=Scope.NETWORK)))
    if opening == "variable":
        monkeypatch.setenv("IPCQ_BACKEND", "remote")
    with ipcq.open(name, *(["remote"] if opening == "argument" else [])) as queue:
        assert queue.backend == "remote"
        assert ipcq.exists(name, "remote")
        if opening == "variable":
            assert [info.backend for info in ipcq.queues()] == ["remote"]


def test_a_variable_that_names_no_backend_is_told_where_a_queue_is_created(
    installed: Installed, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As before: an existing queue is found."""
    installed.backend(FakeBackend("local", rank=800))
    monkeypatch.setenv("IPCQ_BACKEND", "remot")
    assert not ipcq.exists(name)
    with pytest.raises(ipcq.BackendUnknown):
        ipcq.open(name)


def test_a_variable_that_names_a_broken_plugin_changes_nothing(
    installed: Installed, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scope is unknown."""
    installed.plugin("broken", "raise ValueError('broken')")
    monkeypatch.setenv("IPCQ_BACKEND", "broken")
    assert not ipcq.exists(name)


# A durable backend


def test_auto_finds_a_queue_on_a_backend_without_a_rank(installed: Installed, name: str) -> None:
    """A database file that exists is the queue of that name."""
    durable = FakeBackend("durable", capabilities=replace(HOST, persistence=Persistence.SYNCED))
    durable.make(name)
    installed.backend(FakeBackend("local", rank=800))
    installed.backend(durable)
    with ipcq.open(name) as queue:
        assert queue.backend == "durable"


def test_auto_never_creates_on_a_backend_without_a_rank(installed: Installed, name: str) -> None:
    """Not even where nothing else has the persistence: who wants a file names it."""
    installed.backend(FakeBackend("local", rank=800))
    installed.backend(FakeBackend("durable", capabilities=replace(HOST, persistence=Persistence.SYNCED)))
    with ipcq.open(name) as queue:
        assert queue.backend == "local"
        queue.unlink()
    with pytest.raises(ipcq.BackendUnavailable, match="it has no rank"):
        ipcq.open(name, require={"persistence": Persistence.SYNCED})
