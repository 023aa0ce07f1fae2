"""What was measured on: without it a figure means nothing."""

import os
import platform
import re
import sys
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Say what this machine and this Python are."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "processor": processor(),
        "cpus": os.cpu_count(),
        # Pinned to fewer, the processes share them.
        "usable_cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    }


def load() -> float | None:
    """Return how many processes wanted to run in the last minute; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def processor(path: str = "/proc/cpuinfo") -> str:
    """Return the processor's own name."""
    try:
        named = re.search(r"^model name\s*:\s*(.*)$", Path(path).read_text(), re.MULTILINE)
    except OSError:
        named = None
    return named[1] if named else platform.processor() or platform.machine()
