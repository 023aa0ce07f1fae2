"""Exceptions of the system and of libraries, turned into ours.

What an error number means differs little between backends: the table here is for all of them, and a backend adds what
only its own calls mean.
"""

import errno
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final

from ipcq._process.limits import shortage
from ipcq._process.signals import reraise_from_handler
from ipcq.errors import MessageQueueError, NoSpace, PermissionDenied

#: What a backend's table has: for a number of `errno`, or for a class of exceptions, what makes our error: one of our
#: classes, a `functools.partial` of one, or a function without arguments.
_Table = Mapping[Any, Callable[[], MessageQueueError]]
_NOTHING: Final[_Table] = {}

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.ENOBUFS)


def explained(error: BaseException, table: _Table = _NOTHING) -> MessageQueueError:
    """Return what an exception means, with its error number.

    What `table` does not list is `LimitExceeded` for a full table of descriptors, `NoSpace` for want of memory or of
    space, `PermissionDenied` for what the system does not permit, and otherwise the root of our errors.

    Args:
        error: What was raised; raise what is returned from it.
        table: What makes our error, for each error number or class of exceptions of which the backend knows more: one
            of our classes, or a function without arguments. A number takes precedence over a class.

    Raises:
        BaseException: The exception itself, if a signal handler raised it (`reraise_from_handler`).
    """
    reraise_from_handler(error)
    number = error.errno if isinstance(error, OSError) else None
    make = table.get(number) or next(
        (ours for theirs, ours in table.items() if isinstance(theirs, type) and isinstance(error, theirs)), None
    )
    ours = make() if make is not None else _anywhere(error, number)
    if number is not None:
        ours.errno = number
    return ours


def _anywhere(error: BaseException, number: int | None) -> MessageQueueError:
    if short := shortage(error):
        return short
    if number in _FULL:
        return NoSpace(f"no space is left for it ({error}): free some and try again")
    if isinstance(error, PermissionError):
        return PermissionDenied(f"the system does not let this user: {error}")
    return MessageQueueError(f"the system refused: {error}")


def translated(table: _Table = _NOTHING, queue: str = "", backend: str = "") -> AbstractContextManager[None]:
    """Return a context in which each `OSError`, and what else `table` lists, becomes ours, chained (clause 18).

    Our own errors and other exceptions pass through, as does whatever a signal handler raised.

    Args:
        table: As for `explained`.
        queue: Name of the queue, for the error's text; added above where it is missing.
        backend: Name of the backend, likewise.
    """
    return _Translated(table, queue, backend)


class _Translated:
    # A class, because `contextlib` ties a cycle around an error that passes through, and that keeps what failed alive.

    __slots__ = ("_backend", "_queue", "_table")

    def __init__(self, table: _Table, queue: str, backend: str) -> None:
        self._table = table
        self._queue = queue
        self._backend = backend

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        if isinstance(error, MessageQueueError):
            ours = error
        elif isinstance(error, (OSError, *(theirs for theirs in self._table if isinstance(theirs, type)))):
            ours = explained(error, self._table)
        else:
            return
        if self._queue:
            ours.at(self._queue, self._backend)
        if ours is not error:
            raise ours from error
