"""Builds distributions for the tests of packaging."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

#: Patterns of files that are not source, for a tree without git, such as an unpacked source distribution.
MADE = (".git", ".venv*", ".nox", ".*_cache", ".coverage*", ".hypothesis", "_build", "build", "dist", "htmlcov")
MADE += ("__pycache__", "*.egg-info", "*.so", "PKG-INFO", "setup.cfg")

#: Local version label of the built distributions: pip can tell them from releases on the index.
LOCAL = "built"

#: Timeout of pip or a build, in seconds.
PATIENCE = 300


class Built(NamedTuple):
    """The two distributions."""

    sdist: Path
    wheel: Path

    @property
    def directory(self) -> Path:
        return self.wheel.parent


def run(*command: str | Path, **options: object) -> str:
    """Run a program and return its output; if it fails, fail with the end of its output."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)
    assert run.returncode == 0, f"{command}\n{run.stdout[-4000:]}\n{run.stderr[-4000:]}"
    return run.stdout


def pip(*arguments: str | Path) -> str:
    """Run this environment's pip."""
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


def tracked() -> Sequence[str] | None:
    """Return the files that git tracks or would add, or None outside a checkout."""
    if shutil.which("git") is None:
        return None
    # In CI, root's tests read a checkout that another user owns.
    git = "git", "-C", str(ROOT), "-c", "safe.directory=*"
    prefix = subprocess.run([*git, "rev-parse", "--show-prefix"], capture_output=True, text=True, check=False)
    if prefix.returncode or prefix.stdout.strip():
        return None
    return run(*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")[:-1]
