"""The name of ipcq's distribution. On the package index, `ipcq` is the name of an unrelated project."""

from typing import Final

#: The project name in pyproject.toml, which a test compares. Printed commands and metadata look-ups use it.
DISTRIBUTION: Final = "ipcq-queue"

#: A distribution of this name installs into the package `ipcq` too: ours before the rename, or the unrelated one.
FORMER: Final = "ipcq"
