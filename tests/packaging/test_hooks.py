"""The PyInstaller hooks of ipcq; test_built_frozen.py runs programs that were frozen with them."""

import sys
from functools import cache
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from ipcq import _pyinstaller
from ipcq._cli import VERBS
from ipcq._distribution import DISTRIBUTION
from ipcq.hooks import GROUP

if sys.platform != "linux":
    pytest.skip("PyInstaller is installed on Linux alone", allow_module_level=True)

HOOKS = Path(_pyinstaller.__file__).parent


@cache
def hook(module: str) -> dict[str, object]:
    """Run a hook from its file, as PyInstaller does; its name lets coverage measure it."""
    spec = spec_from_file_location(f"ipcq._pyinstaller.hook-{module}", HOOKS / f"hook-{module}.py")
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return vars(loaded)


def test_pyinstaller_finds_the_hooks() -> None:
    """Through the entry point that its manual documents."""
    (entry,) = (each for each in entry_points(group="pyinstaller40") if each.dist.name == DISTRIBUTION)
    assert entry.load()() == [str(HOOKS)]


def test_metadata_of_each_distribution_with_a_backend_is_packed() -> None:
    """Also of third-party distributions, because backends are found through it."""
    metadata = {place for _, place in hook("ipcq")["datas"]}
    for entry in entry_points(group=GROUP):
        assert any(place.startswith(entry.dist.name.replace("-", "_")) for place in metadata), entry


@pytest.mark.parametrize("module", [*(entry.module for entry in entry_points(group=GROUP)), "posix_ipc"])
def test_modules_of_backends_are_packed(module: str) -> None:
    """No import names them."""
    assert module in hook("ipcq")["hiddenimports"]


@pytest.mark.parametrize(
    "name",
    ["arrays", "arrow", "msgpack", "msgspec", "numpy", "pandas", "pandas_columns", "pickle", "polars", "raw"],
)
def test_serializers_are_packed(name: str) -> None:
    """An argument decides which one is imported."""
    assert f"ipcq.serializers._{name}" in hook("ipcq")["hiddenimports"]


def test_optional_libraries_are_not_packed_for_ipcq_alone() -> None:
    """Only if the program imports them."""
    assert hook("ipcq")["excludedimports"] == ["gevent", "numpy", "pandas", "polars", "pyarrow"]


def test_verbs_are_packed_with_the_command_line() -> None:
    """Each verb is imported when it is called."""
    assert {f"ipcq._cli.verbs.{verb}" for verb in VERBS} <= set(hook("ipcq._cli")["hiddenimports"])
