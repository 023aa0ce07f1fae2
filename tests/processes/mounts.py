"""Mounts that only this process sees: a small /dev/shm, or none at all."""

import ctypes
import os
from contextlib import suppress

CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 16384 | 1 << 18
MS_RDONLY = 1
SIZE_BYTES = 1 << 20
PAGE_BYTES = 4096


def mount_small_dev_shm(room: int = SIZE_BYTES) -> None:
    """Mount a small, empty /dev/shm for this process alone."""
    enter_mount_namespace()
    mount(b"/dev/shm", 0, f"size={room},mode=1777")


def enter_mount_namespace() -> None:
    """Enter a new mount namespace: later mounts are visible only to this process and its children."""
    library = ctypes.CDLL(None, use_errno=True)
    check("unshare", library.unshare(CLONE_NEWNS))
    check("mount --make-rprivate", library.mount(b"none", b"/", None, MS_REC_PRIVATE, None))


def mount(place: bytes, flags: int, options: str) -> None:
    """Mount an empty file system at a path."""
    library = ctypes.CDLL(None, use_errno=True)
    check("mount", library.mount(b"none", place, b"tmpfs", flags, options.encode()))


def check(what: str, outcome: int) -> None:
    """Raise the error that a system call reported."""
    if outcome:
        raise OSError(ctypes.get_errno(), f"{what} is needed, and refused here")


def fill() -> None:
    """Use up the free space of /dev/shm."""
    with suppress(OSError), open(f"/dev/shm/filler-{os.getuid()}", "wb", buffering=0) as filler:
        while True:
            filler.write(bytes(PAGE_BYTES))
