"""Where the files of queues are, at a place that no environment variable moves, and what they are called.

On Linux it is /dev/shm, which all users share, so a name means one queue for everybody; the files of others are told by
their owner and mode. Elsewhere it is a private directory of the user's on the disk.
"""

import os
import re
import stat
import sys
from functools import cache
from hashlib import sha256
from typing import Final

from ipcq.backend import let_through
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
    return SHARED or _private()


def path_of(name: str) -> str:
    return f"{directory()}/{_PREFIX}{sha256(name.encode()).hexdigest()[:40]}"


def _private() -> str:
    path = _home()
    try:
        os.mkdir(path, 0o700)
        os.chmod(path, 0o700)  # the umask may have taken bits away
    except FileExistsError:
        pass
    if sys.platform != "win32":
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionDenied(
                f"{path} must be a directory of this user ({os.geteuid()}) with mode 0700: have it removed "
                f"(sudo rm -r {path}), ipcq makes it anew"
            )
    return path


if sys.platform == "win32":
    import ctypes
    from ctypes import wintypes

    @cache
    def _home() -> str:
        # Local application data, CSIDL 28, as the system knows it and not as %LOCALAPPDATA% has it.
        buffer = ctypes.create_unicode_buffer(wintypes.MAX_PATH)
        if ctypes.windll.shell32.SHGetFolderPathW(None, 28, None, 0, buffer):
            raise PermissionDenied("the folder for local application data is not to be found")
        return f"{buffer.value}/ipcq-pyshm"

else:

    @cache
    def _home() -> str:
        return f"/tmp/ipcq-pyshm-{os.geteuid()}"


def listed(which: re.Pattern[str]) -> list[str]:
    """Return the paths of the files in the directory whose names are of a kind."""
    place = directory()
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        return []
    except OSError as error:
        let_through(error)
        raise PermissionDenied(f"{place} cannot be listed: {error.strerror}", errno=error.errno) from error
    return [f"{place}/{name}" for name in names if which.fullmatch(name)]
