"""Paths of the queues' files. No environment variable changes them.

On Linux the directory is /dev/shm, which all users share, so a name is one queue for all users; owner and mode of a
file decide who may use it. On other systems it is a private directory of the user on disk.
"""

import errno
import os
import re
import sys
from functools import partial
from hashlib import sha256
from typing import Final

from ipcq.backend import make_private_directory, translated
from ipcq.errors import PermissionDenied

SHARED: Final = "/dev/shm" if sys.platform == "linux" else None

_PREFIX: Final = "ipcq-pyshm-"
#: A queue's file, and the temporary file of a queue that is being created (not used on Linux).
FILES: Final = re.compile(rf"{_PREFIX}[0-9a-f]{{40}}")
HALVES: Final = re.compile(rf"{_PREFIX}[0-9a-f]{{40}}\.[0-9a-f]{{16}}")


def directory() -> str:
    """Return the directory. A private directory is created and checked.

    Raises:
        PermissionDenied: The private directory belongs to another user or is open to other users.
    """
    return SHARED or make_private_directory("pyshm")


def path_of(name: str) -> str:
    return f"{directory()}/{_PREFIX}{sha256(name.encode()).hexdigest()[:40]}"


def listed(which: re.Pattern[str]) -> list[str]:
    """Return the paths of the files whose names match."""
    place = directory()
    unlisted = partial(PermissionDenied, f"{place} cannot be listed: see ls -ld {place}")
    with translated(dict.fromkeys((errno.EACCES, errno.ENOTDIR), unlisted)):
        try:
            names = os.listdir(place)
        except FileNotFoundError:
            return []
    return [f"{place}/{name}" for name in names if which.fullmatch(name)]
