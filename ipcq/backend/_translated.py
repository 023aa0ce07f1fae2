"""Translation of exceptions of the system and of libraries into ours.

The table here holds the error numbers that mean the same on all backends. A backend adds those of its own calls.
"""

import errno
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final

from ipcq._process.limits import shortage
from ipcq._process.signals import reraise_from_handler
from ipcq.errors import MessageQueueError, NoSpace, PermissionDenied

#: A backend's table: it maps an error number or an exception class to a callable without arguments that returns our
#: error, such as one of our classes or a `functools.partial` of one.
_Table = Mapping[Any, Callable[[], MessageQueueError]]
_EMPTY_TABLE: Final[_Table] = {}

_NO_SPACE_ERRNOS: Final = (errno.ENOSPC, errno.EDQUOT, errno.ENOBUFS)


def explained(error: BaseException, table: _Table = _EMPTY_TABLE) -> MessageQueueError:
    """Return our error for an exception, with its error number.

    If `table` does not list the exception, the error is `LimitExceeded` if no descriptors are left, `NoSpace` if no
    memory or space is left, `PermissionDenied` if the system denies permission, and `MessageQueueError` otherwise.

    Args:
        error: The original exception. Raise the returned error from it.
        table: Maps an error number or an exception class to a callable without arguments that returns our error. A
            number takes precedence over a class.

    Raises:
        BaseException: The exception itself, if a signal handler raised it (`reraise_from_handler`).
    """
    reraise_from_handler(error)
    number = error.errno if isinstance(error, OSError) else None
    make = table.get(number) or next(
        (ours for theirs, ours in table.items() if isinstance(theirs, type) and isinstance(error, theirs)), None
    )
    ours = make() if make is not None else _common_error(error, number)
    if number is not None:
        ours.errno = number
    return ours


def _common_error(error: BaseException, number: int | None) -> MessageQueueError:
    if shortage_error := shortage(error):
        return shortage_error
    if number in _NO_SPACE_ERRNOS:
        return NoSpace(f"no space is left ({error}): free some and try again")
    if isinstance(error, PermissionError):
        return PermissionDenied(f"permission denied: {error}")
    return MessageQueueError(f"the system refused: {error}")


def translated(table: _Table = _EMPTY_TABLE, queue: str = "", backend: str = "") -> AbstractContextManager[None]:
    """Return a context manager that turns each `OSError`, and each exception in `table`, into our error (clause 18).

    Our error is chained to the original. Our own errors, other exceptions and exceptions of signal handlers pass
    through.

    Args:
        table: As for `explained`.
        queue: Name of the queue, for the error's text. If empty, the layer above adds it.
        backend: Name of the backend, likewise.
    """
    return _Translated(table, queue, backend)


class _Translated:
    # A class, because `contextlib` creates a reference cycle around an exception that passes through. The cycle keeps
    # alive what the failed call used.

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
            try:
                raise ours from error
            finally:
                del ours, error  # break the cycle of error, traceback and this frame
