"""What happens at a fork is registered in one place, in one order."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ipcq._process import forks
from ipcq._process.forks import Step, at_fork

#: Prints where each function comes from that is registered for children, in order.
TELL = """
import os
register = os.register_at_fork
def told(**functions):
    print(functions["after_in_child"].__module__)
    register(**functions)
os.register_at_fork = told
import ipcq
import ipcq_memory
import ipcq.compat._interruptions
"""


PACKAGES = ("ipcq", "ipcq_memory", "ipcq_mqueue", "ipcq_pyshm", "ipcq_shm", "ipcq_socketpair")


@pytest.mark.parametrize("package", PACKAGES)
def test_only_the_register_calls_the_system(package: str) -> None:
    """Clause 17: whoever else did would have a place in the order that nobody chose."""
    place = Path(importlib.import_module(package).__path__[0])
    named = {str(file.relative_to(place)) for file in place.rglob("*.py") if "register_at_fork" in file.read_text()}
    assert named == ({"_process/forks.py"} if package == "ipcq" else set())


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no forks here")
def test_the_core_is_registered_in_the_order_of_the_steps() -> None:
    """Imports, channels, handles, and then all others."""
    run = subprocess.run([sys.executable, "-c", TELL], capture_output=True, text=True, check=True, timeout=60)
    names = [name for name in run.stdout.split() if name.startswith("ipcq")]
    core = ["ipcq._process.imports", "ipcq._process.forks", "ipcq._handle.handle"]
    assert names == [*core, "ipcq._process.forks", "ipcq.compat._interruptions"]


def test_a_step_out_of_order_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is imported too late would run in the wrong place, so it says so."""
    monkeypatch.setattr(forks, "_reached", Step.OTHERS)
    with pytest.raises(RuntimeError, match="HANDLES must be registered before OTHERS"):
        at_fork(Step.HANDLES, after_in_child=print)
