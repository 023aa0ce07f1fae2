"""Fork handlers are registered in one place, in one order."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ipcq._process import forks
from ipcq._process.forks import Step, at_fork

#: Prints the module of each function that is registered for children, in order.
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


PACKAGES = ("ipcq", "ipcq_memory", "ipcq_mqueue", "ipcq_pyshm", "ipcq_shm", "ipcq_socketpair", "ipcq_sqlite")


@pytest.mark.parametrize("package", PACKAGES)
def test_only_one_file_registers_fork_handlers(package: str) -> None:
    """Clause 17: any other registration would run at an arbitrary point of the order."""
    place = Path(importlib.import_module(package).__path__[0])
    named = {str(file.relative_to(place)) for file in place.rglob("*.py") if "register_at_fork" in file.read_text()}
    assert named == ({"_process/forks.py"} if package == "ipcq" else set())


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="no forks here")
def test_the_core_registers_its_steps_in_order() -> None:
    """The order is imports, channels, handles, all others."""
    run = subprocess.run([sys.executable, "-c", TELL], capture_output=True, text=True, check=True, timeout=60)
    names = [name for name in run.stdout.split() if name.startswith("ipcq")]
    core = ["ipcq._process.imports", "ipcq._process.forks", "ipcq._process.operation", "ipcq._handle.lifecycle"]
    assert names == [*core, "ipcq._process.forks", "ipcq.compat._interruptions"]


def test_a_step_out_of_order_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler of a module that is imported too late would run in the wrong place."""
    monkeypatch.setattr(forks, "_reached", Step.OTHERS)
    with pytest.raises(RuntimeError, match="HANDLES must be registered before OTHERS"):
        at_fork(Step.HANDLES, after_in_child=print)
