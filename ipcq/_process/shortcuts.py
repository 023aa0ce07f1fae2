"""The switch that turns off whatever is done in C because it is faster there."""

import os
from typing import Final

#: The environment variable that disables all of this if it is 0.
SHORTCUTS: Final = "IPCQ_SHORTCUTS"


def shortcuts_enabled() -> bool:
    """Return whether C may be used where Python would do the same."""
    return os.environ.get(SHORTCUTS) != "0"
