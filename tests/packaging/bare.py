"""ipcq where posix_ipc, msgspec and rich are not installed: run by `nox -s bare`, and by nothing else."""

import dataclasses
import subprocess
import sys
from importlib.util import find_spec

import pytest

import ipcq

NAME = "/ipcq-bare"


@dataclasses.dataclass
class Job:
    number: int


@pytest.mark.parametrize("module", ["posix_ipc", "msgspec", "rich"])
def test_nothing_optional_is_here(module: str) -> None:
    """Else these tests prove nothing."""
    assert find_spec(module) is None


def test_objects_go_through_a_queue() -> None:
    """The core needs none of them."""
    with ipcq.open(NAME, "memory") as queue:
        queue.put({"id": 1})
        assert queue.get() == {"id": 1}
        queue.unlink()


def test_a_type_names_what_to_install() -> None:
    """type= says which extra it needs."""
    with pytest.raises(ipcq.Unsupported, match=r"pip install 'ipcq\[msgspec\]'"):
        ipcq.open(NAME, "memory", type=Job)


def test_a_backend_without_its_library_says_so() -> None:
    """mqueue is listed with the reason, and refused with it."""
    (mqueue,) = (info for info in ipcq.backends() if info.name == "mqueue")
    assert not mqueue.usable
    assert "pip install 'ipcq[mqueue]'" in mqueue.reason
    with pytest.raises(ipcq.BackendUnavailable, match=r"pip install 'ipcq\[mqueue\]'"):
        ipcq.open(NAME, "mqueue")


def test_names_are_seen_without_the_library() -> None:
    """A name on mqueue is taken also for who cannot use it."""
    assert not ipcq.exists(NAME)
    assert not ipcq.exists(NAME, "mqueue")


def test_auto_says_for_each_backend_why_not() -> None:
    """Nothing is left that crosses processes and has priorities, and the error gives each reason."""
    with pytest.raises(ipcq.BackendUnavailable) as caught:
        ipcq.open(NAME, priorities=True)
    assert set(caught.value.reasons) == {"memory", "mqueue", "socketpair"}


def test_auto_creates_on_what_needs_no_library() -> None:
    """The standard library alone is enough for processes to meet."""
    with ipcq.open(NAME) as queue:
        assert queue.backend == "socketpair"


@pytest.mark.parametrize("arguments", [["--help"], ["backends"], ["ls"], ["demo", "--help"]], ids=" ".join)
def test_the_command_line_works(arguments: list[str]) -> None:
    """Without rich it prints plain lines."""
    run = subprocess.run([sys.executable, "-m", "ipcq", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout or run.stderr
