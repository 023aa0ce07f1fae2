"""What the tests of packaging build distributions with."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]

#: What is no source, for a tree that git does not know, such as an unpacked source distribution.
MADE = (".git", ".venv*", ".nox", ".*_cache", ".coverage*", ".hypothesis", "_build", "build", "dist", "htmlcov")
MADE += ("__pycache__", "*.egg-info", "*.so", "PKG-INFO", "setup.cfg")

#: Part of the version of what is built, by which pip tells it from releases on the index.
LOCAL = "built"

#: Seconds that pip or a build may take.
PATIENCE = 300


class Built(NamedTuple):
    """The two distributions."""

    sdist: Path
    wheel: Path

    @property
    def directory(self) -> Path:
        return self.wheel.parent


def run(*command: str | Path, **options: object) -> str:
    """Run a program and return what it prints; where it fails, say what it complains of."""
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)
    assert run.returncode == 0, f"{command}\n{run.stdout[-4000:]}\n{run.stderr[-4000:]}"
    return run.stdout


def pip(*arguments: str | Path) -> str:
    """Run pip of this environment."""
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments)


def tracked() -> Sequence[str] | None:
    """Return the files that git knows or would add, if this is a checkout."""
    if shutil.which("git") is None:
        return None
    # In CI the tests of root look into a checkout of another user.
    git = "git", "-C", str(ROOT), "-c", "safe.directory=*"
    prefix = subprocess.run([*git, "rev-parse", "--show-prefix"], capture_output=True, text=True, check=False)
    if prefix.returncode or prefix.stdout.strip():
        return None
    return run(*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")[:-1]
