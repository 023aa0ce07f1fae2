"""Programs under the real gevent, and what they saw."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

#: Seconds that such a program may take.
PATIENCE = 100

Facts = dict[str, Any]


@cache
def seen(program: Path, *arguments: str) -> Facts:
    """Run a program, once in each worker, and return what its last line of output says."""
    run = subprocess.run(
        [sys.executable, "-W", "error", program, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )
    assert run.returncode == 0, run.stderr
    facts: Facts = json.loads(run.stdout.splitlines()[-1])
    return facts
