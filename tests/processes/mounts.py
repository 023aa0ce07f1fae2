"""File systems that this process alone sees: a small /dev/shm, and none at all."""

import ctypes
import os
from contextlib import suppress

CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 16384 | 1 << 18
MS_RDONLY = 1
ROOM = 1 << 20
PAGE = 4096


def mount_a_small_one(room: int = ROOM) -> None:
    """Put a small, empty /dev/shm before this process's eyes alone."""
    leave()
    mount(b"/dev/shm", 0, f"size={room},mode=1777")


def leave() -> None:
    """Leave the others: what is mounted from now on, only this process sees, and what it starts."""
    library = ctypes.CDLL(None, use_errno=True)
    check("unshare", library.unshare(CLONE_NEWNS))
    check("mount --make-rprivate", library.mount(b"none", b"/", None, MS_REC_PRIVATE, None))


def mount(place: bytes, flags: int, options: str) -> None:
    """Put an empty file system at a place."""
    library = ctypes.CDLL(None, use_errno=True)
    check("mount", library.mount(b"none", place, b"tmpfs", flags, options.encode()))


def check(what: str, outcome: int) -> None:
    """Raise what a call of the system reported."""
    if outcome:
        raise OSError(ctypes.get_errno(), f"{what} is needed, and refused here")


def fill() -> None:
    """Take all that is left of /dev/shm."""
    with suppress(OSError), open(f"/dev/shm/filler-{os.getuid()}", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(PAGE))
