"""What handles, leases and sessions have in C: base classes, and the decorator of methods (`ipcq/csrc/native.h`).

Without the extension, all are in Python, and the decorator does nothing. With ``IPCQ_SHORTCUTS=0`` no handle is armed,
so every call runs in Python. The variable is read when a handle is opened, because importing ipcq must not read the
environment.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ipcq._process.gevent import NativeRLock
from ipcq._process.imports import shortage_behind
from ipcq.errors import MessageQueueError

__all__ = ("Base", "LeaseBase", "Serials", "in_c", "log_mismatch")

F = TypeVar("F", bound=Callable[..., Any])


class PythonBase:
    """The base class of handles without the extension."""

    __slots__ = ("_session",)

    _armed = False

    def _arm(self, *_: object) -> None:
        """Do nothing: every call runs in Python."""

    def _disarm(self) -> None:
        """Do nothing."""

    def _await_uses(self) -> None:
        """Do nothing."""

    def _forget_uses(self) -> None:
        """Do nothing."""


class PythonLeaseBase:
    """The base class of leases without the extension."""

    __slots__ = ("_end", "_lessor", "_session", "_token", "deliveries", "failures", "item", "priority")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()  # of Generic
        cls.__del__ = cls._dropped  # type: ignore[attr-defined]  # with the extension, its finaliser calls it


class PythonSerials:
    """The base class of sessions without the extension: serial numbers."""

    def __init__(self) -> None:
        # Re-entrant, because a signal handler may lease while its thread holds it.
        self._lock = NativeRLock()
        self._next_serial = 1

    def serial(self, count: int, /) -> int:
        """Return the first of `count` unused serial numbers."""
        with self._lock:
            serial = self._next_serial  # no handler runs between this line and the next
            self._next_serial = serial + count
            return serial


def in_python(method: F) -> F:
    """Return the method itself."""
    return method


def parts() -> tuple[Any, Any, Any, Any]:
    """Return the base classes of handles, leases and sessions, and `in_c`, from the extension if it is installed.

    Raises:
        ImportError: The extension is installed, but memory or descriptors are too short to load it now.
    """
    try:
        from ipcq._native import Base, LeaseBase, Serials, in_c
    except ImportError as error:
        if shortage_behind(error):
            raise  # a later import may succeed
        return PythonBase, PythonLeaseBase, PythonSerials, in_python
    return Base, LeaseBase, Serials, in_c


if TYPE_CHECKING:
    from ipcq._native import Base, LeaseBase, Serials, in_c
else:
    Base, LeaseBase, Serials, in_c = parts()


def log_mismatch(error: MessageQueueError) -> None:
    """Log that a backend's functions in C cannot be used, and why."""
    logging = sys.modules.get("logging")  # if it was not imported, there are no handlers
    if logging is not None:
        logging.getLogger("ipcq").warning("put and get are slower than they could be: %s", error)
