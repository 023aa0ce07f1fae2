"""The kernel's own calls on the names of message queues, with the error number that posix_ipc does not tell.

They need the C library alone, so that a process without posix_ipc still sees that a name is taken, and can free it.
"""

import ctypes
import os
import stat
from functools import cache
from time import sleep
from typing import Any, Final

#: Seconds that a channel at work may go without looking whether its queue was shut down or unlinked. Whoever does
#: either waits that long before saying that it is done, and then it is so for every process.
BLIND: Final = 0.001

#: Bit of the queue's mode that says that it is shut down.
SHUT_DOWN: Final = stat.S_ISVTX

#: Bit that says in addition that messages still in the queue, and those of puts that began before, are dropped.
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
    # glibc before 2.34 keeps the calls in librt; musl and later glibc have them in libc.
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "mq_open"):  # pragma: no cover - old glibc alone
        library = ctypes.CDLL("librt.so.1", use_errno=True)
    library.mq_open.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Attributes))
    library.mq_unlink.argtypes = (ctypes.c_char_p,)
    return library


def open_queue(name: str, flags: int, mode: int = 0, attributes: Attributes | None = None) -> int:
    """Call ``mq_open(3)`` and return the descriptor, which is a file descriptor on Linux.

    Raises:
        OSError: With the error number of the call.
    """
    wanted = None if attributes is None else ctypes.byref(attributes)
    descriptor: int = _library().mq_open(name.encode(), flags | os.O_CLOEXEC, mode, wanted)
    if descriptor < 0:
        raise _error(name)
    return descriptor


def unlink_queue(name: str) -> None:
    """Call ``mq_unlink(3)``, and return when every channel knows.

    Raises:
        OSError: With the error number of the call.
    """
    if _library().mq_unlink(name.encode()) < 0:
        raise _error(name)
    sleep(BLIND)


def _error(name: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), name)
