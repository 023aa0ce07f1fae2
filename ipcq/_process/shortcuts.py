"""The switch that disables the code in C that only makes ipcq faster."""

import os
from typing import Final

#: The environment variable that disables it if set to 0.
SHORTCUTS: Final = "IPCQ_SHORTCUTS"


def shortcuts_enabled() -> bool:
    """Return whether calls and codecs may run in C, where Python could do the same."""
    return os.environ.get(SHORTCUTS) != "0"
