"""A FIFO that wakes waiting processes: it is readable for poll(2) while it has bytes.

All channels have it open for reading and writing, so opening it never waits and its bytes stay while any of them is
open. It is never blocking: a full FIFO is readable, and that is all it has to be.
"""

import os
import select
from time import monotonic
from typing import Final

from ipcq.backend import original, reraise_from_handler
from ipcq_sqlite._descriptor import open_file

#: Not gevent's, which supports no timeout of 0.
_poll = original("select", "poll")

_FLAGS: Final = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
#: Bytes that one read takes: as many as Linux keeps in a pipe.
PIPE_SIZE: Final = 1 << 16


def open_fifo(path: str) -> "select.epoll":
    return open_file(path, _FLAGS)


def ring(descriptor: int) -> None:
    """Make the FIFO readable. Never fails, because what it reports has happened."""
    try:
        os.write(descriptor, b"!")
    except OSError as error:  # it is full, and so readable
        reraise_from_handler(error)


def silence(descriptor: int) -> None:
    """Empty the FIFO."""
    try:
        os.read(descriptor, PIPE_SIZE)
    except OSError as error:  # it is empty
        reraise_from_handler(error)


def shorten(descriptor: int) -> None:
    """Make space in a full FIFO, which stays readable."""
    try:
        os.read(descriptor, PIPE_SIZE // 2)
    except OSError as error:  # it is empty meanwhile
        reraise_from_handler(error)


def is_ringing(descriptor: int) -> bool:
    poll = _poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def listen(descriptor: int, until: float) -> bool:
    """Wait until the FIFO is readable, until `until` at the latest; return whether it is."""
    poll = _poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, until - monotonic()) * 1000))
