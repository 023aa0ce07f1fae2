import pytest
from ipcq_tcp_process import ServerProcess

from ipcq.testing import BackendContract
from ipcq.testing.machine import machine_for


@pytest.fixture(scope="module", autouse=True)
def running_server(tmp_path_factory):
    server = ServerProcess(tmp_path_factory.mktemp("server") / "state")
    yield server
    server.stop()


class TestTcp(BackendContract):
    backend = "tcp"

    @pytest.fixture
    def server(self, running_server):
        return running_server


TestTcpAgrees = machine_for("tcp")
