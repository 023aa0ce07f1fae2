"""The example of a backend with a server keeps the contract, between real processes and a real server process."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

import ipcq._opening.open
from backends.examples import installed
from ipcq._handle.remote import RemoteQueue
from ipcq.testing import BackendContract
from ipcq.testing.machine import QueueMachine, end_helper, profile
from ipcq.testing.processes import own_seed
from leftovers import servers


@pytest.fixture(scope="module", autouse=True)
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Install the example, and return its server."""
    with installed("ipcq_tcp", tmp_path_factory.mktemp("installed")), pytest.MonkeyPatch.context() as patch:
        process: Any = importlib.import_module("ipcq_tcp_process")

        class Kept(process.ServerProcess):  # type: ignore[misc]  # imported by name
            def start(self) -> None:
                super().start()
                servers.add(str(self.process.pid))

        patch.setenv("IPCQ_TCP", "")  # the server sets it, and the patch restores it
        server = Kept(tmp_path_factory.mktemp("server") / "state")
        yield server
        server.stop()


class TestTcp(BackendContract):
    backend = "tcp"

    @pytest.fixture
    def server(self, running_server: Any) -> Any:
        return running_server


@pytest.mark.needs("memory")
class TestRemoteHandle(BackendContract):
    """The handle to a queue on a server, over a channel that always answers: nothing else about it is different."""

    backend = "memory"

    @pytest.fixture(autouse=True)
    def _remote(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ipcq._opening.open, "queue_over", RemoteQueue)


class TcpMachine(QueueMachine):
    backend = "tcp"


def test_it_agrees_with_the_model() -> None:
    """C25: a few sequences of calls here; the example's own tests run 150."""
    try:
        run_state_machine_as_test(seed(own_seed())(TcpMachine), settings=profile(5))
    finally:
        end_helper()
