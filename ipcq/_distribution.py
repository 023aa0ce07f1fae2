"""What pip calls ipcq. On the package index, the name of the package, `ipcq`, belongs to somebody else."""

from typing import Final

#: Every command that is printed and every look into the installed metadata uses this name. It is what pyproject.toml
#: calls the project; a test compares them.
DISTRIBUTION: Final = "ipcq-queue"

#: A distribution of this name writes into the package `ipcq` as well: ours before it was renamed, or somebody else's.
FORMER: Final = "ipcq"
