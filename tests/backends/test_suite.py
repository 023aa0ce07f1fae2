"""The conformance suite itself: what it requires of an author, and its reasons where it cannot run."""

import subprocess
import sys
from pathlib import Path

import pytest

import ipcq.testing

_AUTHORS = """
from ipcq.testing import BackendContract

class TestNameless(BackendContract):
    pass

class TestUnknown(BackendContract):
    backend = "no-such-backend"

class TestUnusable(BackendContract):
    backend = "unusable"

class TestHanging(BackendContract):
    backend = "memory"
    patience = 0.2

    def test_it(self):
        self.create().get()
"""
_PLUGIN = """
from ipcq.backend import Availability
from ipcq.hooks import hookimpl
from ipcq_memory import MemoryBackend

class Unusable(MemoryBackend):
    name = "unusable"
    def probe(self):
        return Availability.no("it is Sunday: wait for Monday")

@hookimpl
def ipcq_backend():
    return Unusable()
"""
TEST = "test_a_handle_knows_its_name_and_backend"


def run(place: Path, *nodes: str) -> str:
    """Let pytest run some of an author's tests and return its output."""
    metadata = place / "unusable-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: unusable\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[ipcq.backends]\nunusable = unusable_plugin\n")
    (place / "unusable_plugin.py").write_text(_PLUGIN)
    (place / "test_authors.py").write_text(_AUTHORS)
    command = [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir=."]
    done = subprocess.run(
        [*command, *(f"test_authors.py::{node}" for node in nodes)],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_class_without_a_backend_fails_loudly(tmp_path: Path) -> None:
    """A forgotten attribute does not pass silently."""
    said = run(tmp_path, f"TestNameless::{TEST}")
    assert "TestNameless has no backend to test" in said
    assert "1 error" in said


def test_a_backend_that_is_not_installed_fails_loudly(tmp_path: Path) -> None:
    """A typing error in the name does not skip silently."""
    said = run(tmp_path, f"TestUnknown::{TEST}")
    assert "no-such-backend" in said
    assert "1 error" in said


def test_a_backend_that_cannot_be_used_is_a_visible_skip(tmp_path: Path) -> None:
    """The skip has the reason that the probe gave."""
    said = run(tmp_path, f"TestUnusable::{TEST}")
    assert "it is Sunday: wait for Monday" in said
    assert "1 skipped" in said


@pytest.mark.needs("memory")
def test_a_test_that_hangs_fails_with_stacks(tmp_path: Path) -> None:
    """The watchdog ends it and shows where it was."""
    said = run(tmp_path, "TestHanging::test_it")
    assert "the test did not end within 0.2 s" in said
    assert "in test_it" in said
    assert "1 failed" in said


def test_the_suite_is_not_collected_by_itself(tmp_path: Path) -> None:
    """Importing the class into a test module runs no tests."""
    (tmp_path / "test_import.py").write_text("from ipcq.testing import BackendContract\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir=.", "test_import.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "no tests ran" in done.stdout


def test_importing_the_package_imports_no_test_tool() -> None:
    """pytest and hypothesis are an extra, imported only by the modules that need them."""
    code = "import sys, ipcq.testing; assert not {'pytest', 'hypothesis', '_pytest'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


@pytest.mark.parametrize("name", ipcq.testing.__all__)
def test_each_public_name_exists(name: str) -> None:
    """Each name in __all__ can be imported."""
    assert getattr(ipcq.testing, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The error for a misspelt name is that of any other module."""
    with pytest.raises(AttributeError, match="no_such_name"):
        ipcq.testing.no_such_name  # noqa: B018


def test_each_test_names_the_clause_that_it_proves() -> None:
    """Every docstring of the suite begins with the promise or the clause."""
    tests = {name: getattr(ipcq.testing.BackendContract, name) for name in dir(ipcq.testing.BackendContract)}
    nameless = [
        name
        for name, test in tests.items()
        if name.startswith("test_") and not (test.__doc__ or "").startswith(("C", "Clause "))
    ]
    assert not nameless
