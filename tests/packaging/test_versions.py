"""C18: two versions of ipcq on one machine: each refuses the queues of the other, and the new one empties the old."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ipcq
from building import ROOT, pip
from ipcq.testing.processes import fresh_name

#: The last commit whose queues on shm have version 1 of the layout.
BEFORE = "f5adb48c5e81789a64a2d0c303800f2e7f643690"

pytestmark = pytest.mark.needs("shm")

#: Runs a program with the version before, and returns its result.
Old = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Old:
    """Install the version before into a directory of its own."""
    git = "git", "-C", str(ROOT), "-c", "safe.directory=*", "archive", BEFORE
    try:
        archive = subprocess.run(git, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs a checkout with the history of ipcq")
    place = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(place / "sources", filter="data")
    pip("install", "--no-deps", "--target", place / "installed", place / "sources")
    environment = {**os.environ, "PYTHONPATH": str(place / "installed")}

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
            cwd=place,
        )

    return run


@pytest.fixture
def name() -> Iterator[str]:
    """Return a name, and remove its queue afterwards."""
    name = fresh_name()
    yield name
    if ipcq.exists(name, "shm"):
        ipcq.unlink(name, "shm")


PUT = """
import sys, ipcq
with ipcq.open(sys.argv[1], "shm", max_messages=8, max_message_size=64, priorities=True) as queue:
    for number in range(5):
        queue.put(number, priority=number)
"""


def test_a_queue_of_the_version_before_is_moved_by_drain_and_load(name: str, old: Old, tmp_path: Path) -> None:
    """C18: as the error says."""
    made = old("-c", PUT, name)
    assert made.returncode == 0, made.stderr
    with pytest.raises(ipcq.VersionMismatch, match="ipcq drain and ipcq load"):
        ipcq.open(name)
    for command in (
        ["drain", name, str(tmp_path / "all")],
        ["rm", "--yes", name],
        ["load", name, str(tmp_path / "all")],
    ):
        subprocess.run([sys.executable, "-m", "ipcq", *command], check=True, timeout=60, capture_output=True)
    with ipcq.open(name, create=False) as queue:
        assert queue.get_many() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("leases", [False, True])
def test_the_version_before_refuses_our_queues(name: str, old: Old, leases: bool) -> None:
    """C18: and changes nothing."""
    with ipcq.open(name, "shm", max_messages=8, max_message_size=64, leases=leases) as queue:
        queue.put("item")
        refused = old("-c", "import sys, ipcq; ipcq.open(sys.argv[1])", name)
        assert "VersionMismatch" in refused.stderr
        assert queue.get(timeout=0) == "item"
