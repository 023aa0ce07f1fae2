"""A test that leaves something behind fails, once, and the leftovers are removed before the next test."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import leftovers

if sys.platform != "linux":
    pytest.skip(f"Windows has no /dev/shm, nor has {sys.platform}", allow_module_level=True)

LEAVES = """
import os, subprocess, sys

def leave():
    number = os.getpid()
    open(f"/dev/shm/ipcq-shm.left-{number}-x", "w").close()
    print("left", number, subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]).pid)

def test_leaves():
    leave()

def test_fails_and_leaves():
    leave()
    raise LookupError("its own fault")

def test_behind():
    pass
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return pytest's report on tests under the rules of this suite, and the output of the tests."""
    place = tmp_path_factory.mktemp("leaves")
    (place / "test_leaves.py").write_text(LEAVES)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-p", "no:xdist", "-s", place],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.path.dirname(leftovers.__file__), "CI": "", "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return run.stdout


def test_a_test_fails_once(ran: str) -> None:
    """A leftover neither hides an earlier failure nor fails the next test."""
    assert "1 failed, 2 passed, 1 error" in ran


def test_leftovers_are_named(ran: str) -> None:
    """If the test has no other failure."""
    assert re.search(r"the test left behind: /dev/shm/ipcq-shm.left-\d+-x, process \d+: ", ran)


def test_leftovers_are_removed(ran: str) -> None:
    """Files and processes."""
    left = re.findall(r"left (\d+) (\d+)", ran)
    there = [path for number, pid in left for path in (f"/dev/shm/ipcq-shm.left-{number}-x", f"/proc/{pid}")]
    assert (len(there), [path for path in there if Path(path).exists()]) == (4, [])
