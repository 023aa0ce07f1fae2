"""Descriptors that close themselves.

A signal handler may raise after the call that opens a file and before its number is stored, or right before the call
that closes it. So an object in C owns each descriptor from the call that opens it on, and closes it when it goes. An
`epoll` is such an object for any kind of file: it is never used for polling here, and goes without a warning.
"""

import os
import weakref
from typing import TYPE_CHECKING, Final

from ipcq.backend import hold_over_forks, no_fork, original

if TYPE_CHECKING:
    from select import epoll

#: gevent removes it.
_owner_of: Final = original("select", "epoll").fromfd


def open_file(path: str, flags: int, mode: int = 0o777) -> "epoll":
    """Return an object that owns the descriptor of a newly opened file; its `fileno` is the descriptor."""
    # In C, so that the descriptor always has its owner when a signal handler runs.
    owner: epoll = next(map(_owner_of, map(os.open, (path,), (flags,), (mode,))))
    return owner


class BriefFile:
    """A file that is open inside a ``with``, and that no forked child keeps."""

    def __init__(self, path: str, flags: int, mode: int = 0o777) -> None:
        with no_fork:
            self._owner = open_file(path, flags, mode)
            _brief.add(self)

    def __enter__(self) -> int:
        return self._owner.fileno()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with no_fork:
            self._owner.close()


_brief: "weakref.WeakSet[BriefFile]" = weakref.WeakSet()


def _in_child() -> None:
    for file in list(_brief):
        file.close()


hold_over_forks(in_child=_in_child)
