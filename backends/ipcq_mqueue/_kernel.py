"""The C library's calls on the names of message queues; unlike posix_ipc they report the error number.

They need only the C library, so a process without posix_ipc can still probe and unlink a name.
"""

import ctypes
import os
import stat
from functools import cache
from time import sleep
from typing import Any, Final

#: How long a busy channel may go without checking whether its queue was shut down or unlinked. `shutdown` and `unlink`
#: wait as long before they return; then every process sees their effect.
BLIND_SECONDS: Final = 0.001

#: Mode bit: the queue is shut down.
SHUT_DOWN: Final = stat.S_ISVTX

#: Mode bit, only with SHUT_DOWN: messages in the queue, and those of puts that began earlier, are dropped.
DROPPED: Final = stat.S_ISUID


class Attributes(ctypes.Structure):
    """``struct mq_attr`` of ``mq_getattr(3)``."""

    _fields_ = (
        ("flags", ctypes.c_long),
        ("max_messages", ctypes.c_long),
        ("message_size", ctypes.c_long),
        ("messages", ctypes.c_long),
        ("reserved", ctypes.c_long * 4),
    )


@cache
def _library() -> Any:
    # Before 2.34, glibc has these calls in librt; musl and later versions of glibc have them in libc.
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "mq_open"):  # pragma: no cover - only with an old glibc
        library = ctypes.CDLL("librt.so.1", use_errno=True)
    library.mq_open.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Attributes))
    library.mq_unlink.argtypes = (ctypes.c_char_p,)
    return library


def open_queue(name: str, flags: int, mode: int = 0, attributes: Attributes | None = None) -> int:
    """Call ``mq_open(3)`` and return the descriptor, which is a file descriptor on Linux.

    Raises:
        OSError: The call failed; with its error number.
    """
    wanted = None if attributes is None else ctypes.byref(attributes)
    descriptor: int = _library().mq_open(name.encode(), flags | os.O_CLOEXEC, mode, wanted)
    if descriptor < 0:
        raise _error(name)
    return descriptor


def unlink_queue(name: str) -> None:
    """Call ``mq_unlink(3)``, and return when every channel sees the effect.

    Raises:
        OSError: The call failed; with its error number.
    """
    if _library().mq_unlink(name.encode()) < 0:
        raise _error(name)
    sleep(BLIND_SECONDS)


def _error(name: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), name)
