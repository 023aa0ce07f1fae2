"""Where the files of queues are, at a place that no environment variable moves, and what they are called.

On Linux it is /dev/shm, which all users share, so a name means one queue for everybody; the files of others are told by
their owner and mode. Elsewhere it is a private directory of the user's on the disk.
"""

import os
import re
import sys
from hashlib import sha256
from typing import Final

from ipcq.backend import make_private_directory, reraise_from_handler
from ipcq.errors import PermissionDenied

SHARED: Final = "/dev/shm" if sys.platform == "linux" else None

_PREFIX: Final = "ipcq-pyshm-"
#: A queue's file, and what is left of one that was being made elsewhere than on Linux.
FILES: Final = re.compile(rf"{_PREFIX}[0-9a-f]{{40}}")
HALVES: Final = re.compile(rf"{_PREFIX}[0-9a-f]{{40}}\.[0-9a-f]{{16}}")


def directory() -> str:
    """Return the directory; where it is private to the user, it is made and checked.

    Raises:
        PermissionDenied: It belongs to somebody else or is open to others.
    """
    return SHARED or make_private_directory("pyshm")


def path_of(name: str) -> str:
    return f"{directory()}/{_PREFIX}{sha256(name.encode()).hexdigest()[:40]}"


def listed(which: re.Pattern[str]) -> list[str]:
    """Return the paths of the files in the directory whose names are of a kind."""
    place = directory()
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        return []
    except OSError as error:
        reraise_from_handler(error)
        raise PermissionDenied(f"{place} cannot be listed: {error.strerror}", errno=error.errno) from error
    return [f"{place}/{name}" for name in names if which.fullmatch(name)]
