"""The machine and the Python that figures refer to."""

import os
import platform
import re
import sys
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Return facts about this machine and this Python."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()),
        "processor": processor(),
        "cpus": os.cpu_count(),
        # Fewer if the processes are pinned.
        "usable_cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    }


def load() -> float | None:
    """Return the load average of the last minute, or None if the system has none."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def processor(path: str = "/proc/cpuinfo") -> str:
    """Return the model name of the processor."""
    try:
        named = re.search(r"^model name\s*:\s*(.*)$", Path(path).read_text(), re.MULTILINE)
    except OSError:
        named = None
    return named[1] if named else platform.processor() or platform.machine()
