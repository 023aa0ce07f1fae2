"""Checks for other platforms that can run here: missing modules must not prevent imports."""

import subprocess
import sys
from pathlib import Path

import ipcq

ROOT = Path(__file__).parents[2]


def test_everything_can_be_imported_without_modules_that_windows_lacks() -> None:
    """The core, the suite for authors, the command line, each bundled backend, and every test."""
    run = subprocess.run(
        [sys.executable, "-W", "error", Path(__file__).with_name("windows.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr


def test_a_bundled_backend_is_usable_on_its_platforms() -> None:
    """It is usable on the platforms of its descriptor, and only there; CI runs on each of them."""
    bundled = [info for info in ipcq.backends() if info.distribution == "ipcq-queue"]
    here = {info.name for info in bundled if info.platforms is None or sys.platform.startswith(info.platforms)}
    assert {info.name for info in bundled if info.usable} == here, {info.name: info.reason for info in bundled}
