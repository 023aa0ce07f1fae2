"""A test that needs an optional library is skipped without it, and fails in CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "core" / "test_ways.py"

#: Runs pytest as if a library were not installed.
WITHOUT_MSGSPEC = "import sys; sys.modules['msgspec'] = None; import pytest; sys.exit(pytest.main(sys.argv[1:]))"


def run(**environment: str) -> str:
    """Return pytest's output for a file of the core's tests that needs msgspec."""
    command = [sys.executable, "-c", WITHOUT_MSGSPEC, "-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(FILE)]
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "IPCQ_TESTS_WITHOUT"}}
    return subprocess.run(
        command, env={**kept, **environment}, capture_output=True, text=True, timeout=60, check=False
    ).stdout


def test_the_skip_without_the_library_names_it() -> None:
    """On a contributor's machine."""
    assert "this cannot be used here without msgspec" in run()


@pytest.mark.parametrize(
    ("environment", "told"),
    [({}, "1 skipped"), ({"CI": "true"}, "1 error"), ({"CI": "true", "IPCQ_TESTS_WITHOUT": "msgspec"}, "1 skipped")],
    ids=["a contributor's machine", "CI", "CI without extras"],
)
def test_only_ci_fails_without_the_library(environment: dict[str, str], told: str) -> None:
    """Except in the run that proves that ipcq works without it."""
    assert told in run(**environment).splitlines()[-1]
