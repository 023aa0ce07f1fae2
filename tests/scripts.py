"""Runs short scripts in fresh interpreters that have the import path of the tests."""

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping

#: Timeout of a script, in seconds.
PATIENCE = 60.0


def run(script: str, *arguments: object, environment: Mapping[str, str] | None = None) -> str:
    """Run a script in a fresh interpreter and return its output; if the script fails, the test fails."""
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "faulthandler", "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PYTHONPATH": path, **(environment or {})},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()
