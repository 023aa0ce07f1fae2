"""Tests of ipcq without its extras; only `nox -s bare` runs them."""

import array
import dataclasses
import re
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, files, requires, version

import pytest

import ipcq
from local_backends import is_local, local_backends

NAME = "/ipcq-bare"


VERBS = [
    ["--help"],
    ["backends"],
    ["ls"],
    ["top", "--once", "--interval", "0.1"],
    ["config"],
    ["version", "--verbose"],
    ["completion", "bash"],
    *([verb, "--help"] for verb in ("demo", "peek", "tail", "work", "dead", "create", "shutdown", "drain", "load")),
    *([verb, "--help"] for verb in ("doctor", "bench")),
]


@dataclasses.dataclass
class Job:
    number: int


EXTRAS = [need for need in requires("ipcq-queue") or () if "extra ==" in need and "testing" not in need]


@pytest.mark.parametrize("need", EXTRAS)
def test_no_optional_library_is_installed(need: str) -> None:
    """Otherwise these tests prove nothing."""
    with pytest.raises(PackageNotFoundError):
        version(re.split(r"[^\w.-]", need)[0])


def test_objects_go_through_a_queue() -> None:
    """The core needs no extra."""
    with ipcq.open(NAME, "memory") as queue:
        queue.put({"id": 1})
        assert queue.get() == {"id": 1}
        queue.unlink()


def test_a_type_names_the_extra() -> None:
    """The error of type= names the extra."""
    with pytest.raises(ipcq.Unsupported, match=r"pip install 'ipcq-queue\[msgspec\]'"):
        ipcq.open(NAME, "memory", type=Job)


def test_a_queue_of_arrays_takes_other_items() -> None:
    """Only NumPy's arrays need the extra."""
    with ipcq.open(NAME, "memory", serializer="arrays") as queue:
        queue.put([array.array("i", [1, 2])])
        assert queue.get() == [array.array("i", [1, 2])]
        queue.unlink()


# Not their names: tests with the name of a hidden backend as a parameter are left out.
UNUSABLE = [info for info in ipcq.backends() if not info.usable]


def test_a_backend_lacks_its_library() -> None:
    """Otherwise the next tests have nothing to run on."""
    assert UNUSABLE


@pytest.mark.parametrize("info", UNUSABLE, ids=lambda info: info.name)
def test_a_backend_without_its_library_gives_the_reason(info: ipcq.BackendInfo) -> None:
    """It is listed with the reason, and the error has it."""
    words = f"pip install 'ipcq-queue[{info.name}]'"
    assert words in info.reason
    with pytest.raises(ipcq.BackendUnavailable, match=re.escape(words)):
        ipcq.open(NAME, info.name)


@pytest.mark.parametrize("info", UNUSABLE, ids=lambda info: info.name)
def test_names_can_be_looked_up_without_the_library(info: ipcq.BackendInfo) -> None:
    """A name is also taken for a process that cannot use its backend; but a server cannot be asked."""
    if is_local(info):
        assert not ipcq.exists(NAME, info.name)
    else:
        with pytest.raises(ipcq.BackendUnavailable, match=re.escape(f"pip install 'ipcq-queue[{info.name}]'")):
            ipcq.exists(NAME, info.name)


def test_names_can_be_looked_up_by_auto() -> None:
    """Also if one of its backends lacks a library."""
    assert not ipcq.exists(NAME)


def test_auto_creates_on_a_backend_without_prerequisites() -> None:
    """On the best backend that needs no library."""
    with ipcq.open(NAME) as queue:
        queue.put("item")
        assert queue.get(timeout=1) == "item"
        assert queue.backend == next(info.name for info in ipcq.backends() if info.usable)
        queue.unlink()


def test_the_extension_is_installed() -> None:
    """A build does not fail without an optional extension, so the test looks for it."""
    extensions = {file.parts[0] for file in files("ipcq-queue") or () if file.name.endswith(tuple(EXTENSION_SUFFIXES))}
    assert extensions == ({"ipcq", "ipcq_shm"} if sys.platform == "linux" else set())


def test_a_lock_without_its_library_gives_the_reason() -> None:
    """The error of lock="shmlock" names the extra, and no queue is created."""
    with pytest.raises(ipcq.Unsupported, match=r"pip install 'ipcq-queue\[shmlock\]'"):
        ipcq.open(NAME, "pyshm", lock="shmlock")
    assert not ipcq.exists(NAME)


def test_auto_gives_the_reason_for_each_backend() -> None:
    """If no backend can honour the request, the error has the reason for each of this machine."""
    with pytest.raises(ipcq.BackendUnavailable) as caught:
        ipcq.open(NAME, require={"persistence": ipcq.Persistence.SYNCED})
    assert set(caught.value.reasons) == {info.name for info in local_backends()}


@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
def test_the_command_line_works(arguments: list[str]) -> None:
    """Without rich it prints plain lines."""
    run = subprocess.run([sys.executable, "-m", "ipcq", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout or run.stderr


def test_doctor_names_the_missing_library() -> None:
    """With the command that installs it. Backends that reach other processes are left, so the exit code is 0."""
    run = subprocess.run([sys.executable, "-m", "ipcq", "doctor"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "posix_ipc is not installed\tpip install 'ipcq-queue[mqueue]'" in run.stdout
