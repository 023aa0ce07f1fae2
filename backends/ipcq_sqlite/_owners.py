"""Who holds leases: a number that nobody uses again, and a byte of a file that its owner locks until it dies.

Before its first lease a channel locks the byte at its random number, far beyond the end of the file, and enters the
number into the table of owners. The lock belongs to the open file, so the kernel releases it when the channel is closed
or its process dies, whatever killed it. A forked child opens the file again, and is another owner. Numbers are not used
again, so a number whose byte is not locked has a dead owner, and will always have one.
"""

import fcntl
import os
import secrets
from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING, Final

from ipcq.backend import holder_of_byte
from ipcq_sqlite._byte_lock import is_locked, lock_of
from ipcq_sqlite._descriptor import open_file

if TYPE_CHECKING:
    from select import epoll

_NUMBER_BITS: Final = 62
#: Seconds between two looks of a channel for dead owners.
LOOK_SECONDS: Final = 0.02

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def open_owners(path: str) -> "epoll":
    return open_file(path, _FLAGS, 0o600)


class Owners:
    """The owners of a queue, and this channel's number.

    Args:
        path: The file.
        descriptor: The file as `open_owners` has opened it; the caller closes it.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self.descriptor = descriptor
        self.number = 0
        """The number of this channel; 0 while it has none, and so no leases."""
        self._next_look = 0.0

    def enter(self) -> int:
        """Return this channel's number, whose byte is locked from now on."""
        if not self.number:
            number = secrets.randbits(_NUMBER_BITS) | 1
            fcntl.fcntl(self.descriptor, fcntl.F_OFD_SETLK, lock_of(number))
            self.number = self.number or number  # or that of a signal handler's call
        return self.number

    def is_time(self) -> bool:
        """Return whether to look for dead owners again."""
        return monotonic() >= self._next_look

    def dead(self, numbers: Iterable[int]) -> list[int]:
        """Return those owners that are dead."""
        dead = [number for number in numbers if number != self.number and not is_locked(self.descriptor, number)]
        self._next_look = monotonic() + LOOK_SECONDS
        return dead

    def pid_of(self, number: int) -> int | None:
        """Return the process of an owner, or None if it is unknown."""
        if number == self.number:
            return os.getpid()
        holder = holder_of_byte(self.descriptor, number, 0.0)
        return None if holder is None else holder.pid

    def reopen(self) -> None:
        """In a forked child: open the file again under the same descriptor, and own nothing."""
        fresh = open_file(self._path, _FLAGS & ~os.O_CREAT)
        os.dup2(fresh.fileno(), self.descriptor, inheritable=False)
        self.number = 0
