"""The instructions of put, get, lease and ack on shm, as ratios to those of a bare ring in C; callgrind counts both."""

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

COMPARABLE = (
    platform.libc_ver()[0] == "glibc"
    and platform.machine() == "x86_64"
    and sys.version_info < (3, 14)
    and not sysconfig.get_config_var("Py_GIL_DISABLED")
)
pytestmark = [
    pytest.mark.needs("shm"),
    pytest.mark.skipif(
        not COMPARABLE, reason="the ratios were measured with glibc on x86-64, and CPython 3.11 to 3.13 with the GIL"
    ),
]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS, RAW, PLAIN = "ipcq shm", "ipcq shm, raw", "ring with METH_O and METH_NOARGS, C"

#: For each workload, the largest allowed ratio to the floor: the largest that was measured on CPython 3.11 to 3.13 and
#: on a 3.11 built with profile-guided optimisation, plus a tenth. Lower them whenever a call becomes cheaper.
MOST = {
    ("64B", "put"): 2.9 * 1.1,
    ("64B", "get"): 2.75 * 1.1,
    ("dict", "put"): 1.72 * 1.1,
    ("dict", "get"): 0.92 * 1.1,
    ("64B", "lease"): 6.41 * 1.1,
    ("64B", "ack"): 4.38 * 1.1,
    ("dict", "lease"): 1.09 * 1.1,
    ("dict", "ack"): 0.47 * 1.1,
}


@pytest.fixture(scope="module")
def counted() -> dict[str, Any]:
    """Return the figures of one run. A missing valgrind is an error, because then nothing would limit the ratios."""
    if shutil.which("valgrind") is None:
        pytest.fail("valgrind, which counts the instructions, is missing: sudo apt-get install valgrind")
    command = [sys.executable, BENCHMARKS / "instructions.py", "--json", OURS, RAW, PLAIN]
    environment = {**os.environ, "IPCQ_SHORTCUTS": "1"}
    environment.pop("PYTHONSAFEPATH", None)  # the script imports its neighbours
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures: dict[str, Any] = json.loads(done.stdout)["results"]
    return figures


@pytest.mark.parametrize(("workload", "verb"), MOST)
def test_a_call_takes_few_instructions(counted: dict[str, Any], workload: str, verb: str) -> None:
    """The ratio to the floor's call is limited."""
    assert counted[workload][OURS][f"{verb} to floor"] <= MOST[workload, verb]


@pytest.mark.parametrize("verb", ["put", "get"])
def test_the_codec_adds_little_to_bytes(counted: dict[str, Any], verb: str) -> None:
    """A default handle takes at most a quarter more instructions than a raw one."""
    assert counted["64B"][OURS][verb] <= 1.25 * counted["64B"][RAW][verb]


@pytest.mark.parametrize("verb", ["put", "get"])
def test_the_floors_are_floors(counted: dict[str, Any], verb: str) -> None:
    """With either kind of method, the bare ring takes far fewer instructions than ipcq."""
    assert 1.5 * max(counted["64B"][name][verb] for name in ("ring, C", PLAIN)) < counted["64B"][OURS][verb]


def test_what_was_not_counted_has_a_reason(counted: dict[str, Any]) -> None:
    """A raw handle moves no dicts."""
    assert "bytes" in counted["dict"][RAW]["declined"]
