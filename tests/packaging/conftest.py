"""Fixtures for the tests of packaging: the sources, the distributions built from them, and the installed wheel."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from building import LOCAL, MADE, ROOT, Built, pip, run, tracked


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources, because builds leave files, with a version that no index can have."""
    place = tmp_path_factory.mktemp("sources") / "ipcq"
    names = tracked()
    if names is None:
        shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(*MADE))
    for name in names or ():
        if (ROOT / name).is_file():  # not a file that is deleted, but not yet in git
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    settings = (place / "pyproject.toml").read_text(encoding="utf-8")
    marked = re.sub(r'^version = "(.*)"$', rf'version = "\1+{LOCAL}"', settings, count=1, flags=re.MULTILINE)
    (place / "pyproject.toml").write_text(marked, encoding="utf-8")
    return place


@pytest.fixture(scope="session")
def built(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the source distribution, and the wheel from it."""
    place = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", place, sources)
    (sdist,), (wheel,) = place.glob("*.tar.gz"), place.glob("*.whl")
    return Built(sdist, wheel)


@pytest.fixture(scope="session")
def target(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel, without its dependencies, into a separate directory."""
    place = tmp_path_factory.mktemp("target")
    pip("install", "--no-deps", "--target", place, built.wheel)
    return place


@pytest.fixture
def environment(target: Path) -> dict[str, str]:
    """Return the environment in which Python finds the installed wheel before anything else."""
    return {**os.environ, "PYTHONPATH": str(target)}
