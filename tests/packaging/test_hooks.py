"""What ipcq tells PyInstaller; test_built_frozen.py runs programs that were frozen with it."""

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
    """Run a hook as PyInstaller does, from its file; by its name coverage knows that it is ours."""
    spec = spec_from_file_location(f"ipcq._pyinstaller.hook-{module}", HOOKS / f"hook-{module}.py")
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return vars(loaded)


def test_pyinstaller_finds_the_hooks() -> None:
    """By the entry point that its manual names."""
    (entry,) = (each for each in entry_points(group="pyinstaller40") if each.dist.name == DISTRIBUTION)
    assert entry.load()() == [str(HOOKS)]


def test_metadata_of_each_distribution_with_a_backend_is_packed() -> None:
    """Strangers' too, as the backends are found by it."""
    metadata = {place for _, place in hook("ipcq")["datas"]}
    for entry in entry_points(group=GROUP):
        assert any(place.startswith(entry.dist.name.replace("-", "_")) for place in metadata), entry


@pytest.mark.parametrize("module", [*(entry.module for entry in entry_points(group=GROUP)), "posix_ipc"])
def test_modules_of_backends_are_packed(module: str) -> None:
    """No import names them."""
    assert module in hook("ipcq")["hiddenimports"]


@pytest.mark.parametrize("name", ["msgpack", "msgspec", "pickle", "raw"])
def test_serializers_are_packed(name: str) -> None:
    """Which one is imported depends on an argument."""
    assert f"ipcq.serializers._{name}" in hook("ipcq")["hiddenimports"]


def test_gevent_is_not_packed_for_ipcq_alone() -> None:
    """It is if the program imports it."""
    assert hook("ipcq")["excludedimports"] == ["gevent"]


def test_verbs_are_packed_with_the_command_line() -> None:
    """They are imported when they are called."""
    assert {f"ipcq._cli.verbs.{verb}" for verb in VERBS} <= set(hook("ipcq._cli")["hiddenimports"])
