"""Frozen programs: a plain PyInstaller build has every backend, and its program shares queues with any other."""

import json
import os
import secrets
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import ipcq
from building import run

if sys.platform != "linux":
    pytest.skip("PyInstaller is installed on Linux alone", allow_module_level=True)

PROGRAM = """
import json, sys
import ipcq
from ipcq.compat import multiprocessing

def work(queue):
    queue.put({"from": multiprocessing.current_process().name})

if __name__ == "__main__":
    multiprocessing.freeze_support()
    verb, argument = sys.argv[1:]
    if verb == "backends":
        print(json.dumps([[each.name, each.usable, each.reason] for each in ipcq.backends()]))
    elif verb == "put":
        with ipcq.open(argument) as queue:
            queue.put({"id": 1})
    elif verb == "get":
        with ipcq.open(argument, create=False) as queue:
            print(json.dumps(queue.get(timeout=10)))
    else:
        context = multiprocessing.get_context(argument)
        queue = context.Queue()
        process = context.Process(target=work, args=(queue,), name="child")
        process.start()
        print(json.dumps(queue.get(timeout=30)))
        process.join()
"""

KINDS = ("--onedir", "--onefile")

# Two builds, which share the slowest part.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def programs(target: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Freeze the program in each way, without options for ipcq."""
    if not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        pytest.skip("PyInstaller needs a Python that was configured with --enable-shared")
    place = tmp_path_factory.mktemp("frozen")
    (place / "program.py").write_text(PROGRAM)
    # The installed wheel, because PyInstaller does not see an editable install.
    environment = {**os.environ, "PYTHONPATH": str(target), "PYINSTALLER_CONFIG_DIR": str(place / "config")}
    freeze = sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level=ERROR"
    for kind in KINDS:
        run(*freeze, kind, f"--distpath={kind}", "program.py", cwd=place, env=environment)
    return {"--onedir": place / "--onedir" / "program" / "program", "--onefile": place / "--onefile" / "program"}


@pytest.fixture(params=KINDS)
def frozen(programs: dict[str, Path], request: pytest.FixtureRequest) -> Callable[..., object]:
    """Return a function that runs the frozen program and returns what it prints."""

    def frozen(*arguments: str) -> object:
        # It cannot see any directory of this Python.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        printed = run(programs[request.param], *arguments, env=environment)
        return json.loads(printed) if printed else None

    return frozen


@pytest.fixture
def name() -> Iterator[str]:
    name = f"/frozen-{os.getpid()}-{secrets.token_hex(4)}"
    yield name
    with suppress(ipcq.QueueNotFound):
        ipcq.unlink(name)


def test_a_frozen_program_has_the_backends_that_are_installed(frozen: Callable[..., object]) -> None:
    """Each one is usable, or unusable for the same reason."""
    assert frozen("backends", "-") == [[each.name, each.usable, each.reason] for each in ipcq.backends()]


def test_another_program_gets_the_item_of_a_frozen_program(frozen: Callable[..., object], name: str) -> None:
    """`auto` chooses the same backend in both."""
    frozen("put", name)
    with ipcq.open(name, create=False) as queue:
        assert queue.get(timeout=10) == {"id": 1}


def test_two_frozen_programs_meet(frozen: Callable[..., object], name: str) -> None:
    """The second attaches to the queue that the first has created."""
    frozen("put", name)
    assert frozen("get", name) == {"id": 1}


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_a_frozen_program_starts_processes(frozen: Callable[..., object], method: str) -> None:
    """With `freeze_support`, as multiprocessing requires, and a queue of ipcq.compat passed to the child."""
    assert frozen("process", method) == {"from": "child"}
