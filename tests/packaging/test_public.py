"""The public names are those that the modules declare, and importing ipcq is cheap."""

import importlib
import os
import pkgutil
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, files, version
from pathlib import Path
from types import ModuleType

import pytest

import ipcq
from ipcq.backend import Backend

#: A module without a leading underscore is public.
PUBLIC = sorted(
    name
    for package in ("ipcq", "ipcq.compat")
    for _, name, _ in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}.")
    # ipcq.compat only contains the replacement modules.
    if "._" not in name and name != "ipcq.compat"
)

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
BUNDLED: dict[str, str] = PYPROJECT["project"]["entry-points"]["ipcq.backends"]

#: Modules that `import ipcq` must not load.
HEAVY = (
    "anyio",
    "asyncio",
    "click",
    "gevent",
    "importlib.metadata",
    *BUNDLED.values(),
    "msgpack",
    "multiprocessing",
    "pluggy",
)


@pytest.fixture(params=["ipcq", *PUBLIC])
def module(request: pytest.FixtureRequest) -> ModuleType:
    """Return each public module."""
    return importlib.import_module(request.param)


def test_public_modules_declare_their_names(module: ModuleType) -> None:
    """Each has a docstring and an __all__."""
    assert module.__doc__
    assert module.__all__


def test_declared_names_are_sorted(module: ModuleType) -> None:
    """__all__ is a tuple in the order of the linter: constants, classes, functions."""
    assert isinstance(module.__all__, tuple)
    assert len(set(module.__all__)) == len(module.__all__)

    def rank(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2), name

    assert list(module.__all__) == sorted(module.__all__, key=rank)


def test_declared_names_exist(module: ModuleType) -> None:
    """Each name in __all__ exists."""
    for name in module.__all__:
        assert getattr(module, name, None) is not None, name


def test_declared_names_are_in_dir(module: ModuleType) -> None:
    """dir() shows it, for completion."""
    assert set(module.__all__) <= set(dir(module))


def test_public_names_are_declared(module: ModuleType) -> None:
    """Every public name that a module defines is in its __all__."""
    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    # The hook specification marker comes from pluggy, and authors do not need it.
    assert defined <= set(module.__all__)


def test_errors_are_exported_at_the_top_too() -> None:
    """`ipcq` re-exports the whole exception tree."""
    assert set(ipcq.errors.__all__) <= set(ipcq.__all__)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_backends_are_found_through_entry_points(name: str) -> None:
    """Each entry point names a module whose hook returns a backend of that name."""
    (entry,) = entry_points(group="ipcq.backends", name=name)
    descriptor = entry.load().ipcq_backend()
    assert isinstance(descriptor, Backend)
    assert descriptor.name == name


def test_the_command_is_an_entry_point() -> None:
    """The command `ipcq` is the function main of the command line."""
    (entry,) = entry_points(group="console_scripts", name="ipcq")
    assert callable(entry.load())


def test_importing_ipcq_loads_no_backend_and_no_library() -> None:
    """A bare interpreter that imports ipcq loads no module that only some uses need."""
    script = f"import sys, ipcq; print([name for name in {HEAVY!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-S", "-c", with_path(script)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def with_path(script: str) -> str:
    # Without site, because .pth files of other distributions may load anything; the path is passed instead.
    finders = [finder for finder in sys.meta_path if getattr(finder, "__module__", "").startswith("__editable__")]
    path = [*sys.path, *{os.path.dirname(os.path.dirname(ipcq.__file__))}]
    return f"import sys; sys.path[:] = {path!r}\n{script}" if finders or path else script


def test_importing_ipcq_reads_no_environment() -> None:
    """Its variables are read when a queue is opened, not when the package is imported."""
    script = with_path(
        "import os, sys\n"
        "class Told(dict):\n"
        "    def __getitem__(self, key): raise SystemExit(key)\n"
        "    get = __getitem__\n"
        "os.environ = Told()\n"
        "import ipcq"
    )
    subprocess.run([sys.executable, "-S", "-c", script], check=True)


def test_the_distribution_holds_the_types_and_the_suite() -> None:
    """py.typed and ipcq.testing are installed, according to the distribution's list of files."""
    held = {str(file) for file in files("ipcq-queue") or ()}
    if "ipcq/__init__.py" not in held:
        held = {
            os.path.relpath(os.path.join(place, name), os.path.dirname(ipcq.__path__[0]))
            for place, _, names in os.walk(ipcq.__path__[0])
            for name in names
        }
    assert {"ipcq/py.typed", "ipcq/testing/__init__.py", "ipcq/testing/machine.py"} <= held


def test_the_version_agrees_with_the_metadata() -> None:
    """The command line and the metadata agree."""
    run = subprocess.run([sys.executable, "-m", "ipcq", "--version"], capture_output=True, text=True, check=True)
    assert version("ipcq-queue") in run.stdout
