"""The suite catches each deliberately faulty backend with a server, by the clause that it breaks."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.examples import installed

_RUN = """
import pytest
from backends import wrong_servers
from ipcq_tcp_process import ServerProcess
from ipcq.testing import BackendContract
from ipcq.testing.contract import _servers

_servers.HANG = 4.0  # otherwise each event that never comes would take its twenty seconds

class Served(BackendContract):
    @pytest.fixture
    def server(self, running_server):
        return running_server

@pytest.fixture(scope="module", autouse=True)
def running_server(tmp_path_factory):
    server = ServerProcess(tmp_path_factory.mktemp("server") / "state")
    yield server
    server.stop()

class TestUnserved(BackendContract):
    backend = "tcp"

class TestRight(Served):
    backend = "tcp"

for fault in wrong_servers.FAULTS:
    kind = "Test" + fault.__name__
    globals()[kind] = type(kind, (Served,), {"backend": fault.name, "patience": 15.0})
"""

# The first test waits for all of them.
pytestmark = [pytest.mark.once, pytest.mark.timeout(450)]

#: The example without a fault, and in a class whose author forgot the server.
RIGHT, UNSERVED = "TestRight", "TestUnserved"


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the faulty backends, as classes; they need the example on the path."""
    place = tmp_path_factory.mktemp("installed")
    with installed("ipcq_tcp", place):
        wrong: Any = importlib.import_module("backends.wrong_servers")
        metadata = place / "wrong_servers-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong-servers\nVersion: 1\n")
        lines = [f"{fault.name} = backends.wrong_servers:{fault.__name__}\n" for fault in wrong.FAULTS]
        (metadata / "entry_points.txt").write_text("".join(["[ipcq.backends]\n", *lines]))
        yield wrong.FAULTS


def catching_tests(faults: Any) -> list[str]:
    """Return the tests that catch a fault."""
    return sorted({test for fault in faults for test in fault.caught_by})


def broken(faults: Any) -> list[str]:
    """Return the tests that have to fail, each with the class of its fault."""
    return [f"Test{fault.__name__}::{test}" for fault in faults for test in fault.caught_by]


@pytest.fixture(scope="module")
def outcomes(faults: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return how each test ended. One run serves all, because starting pytest and the server takes time."""
    place = tmp_path_factory.mktemp("run")
    script = place / "test_run.py"
    script.write_text(_RUN)
    nodes = [*broken(faults), *(f"{RIGHT}::{test}" for test in catching_tests(faults))]
    nodes.append(f"{UNSERVED}::{catching_tests(faults)[0]}")
    path = os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rA", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir=."]
        + [f"test_run.py::{node}" for node in nodes],
        cwd=place,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "500"},  # reasons are cut to the width of the terminal
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    found = re.findall(r"^(PASSED|FAILED|ERROR) test_run\.py::(\S+)(.*)", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return {node: outcome + rest for outcome, node, rest in found}


def test_each_fault_is_caught(faults: Any, outcomes: dict[str, str]) -> None:
    """By each of the tests that its class names."""
    assert [node for node in broken(faults) if "FAILED" not in outcomes[node]] == []


def test_the_example_passes_these_tests(faults: Any, outcomes: dict[str, str]) -> None:
    """So they fail because of the faults."""
    found = {test: outcomes[f"{RIGHT}::{test}"] for test in catching_tests(faults)}
    assert set(found.values()) == {"PASSED"}, found


def test_a_backend_with_a_server_has_to_supply_it(faults: Any, outcomes: dict[str, str]) -> None:
    """The suite cannot be taken in part."""
    assert "override the fixture `server` in TestUnserved" in outcomes[f"{UNSERVED}::{catching_tests(faults)[0]}"]
