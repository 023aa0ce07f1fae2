"""The parts of a handle that are in C: its base class, and the decorator of its methods (`ipcq/csrc/native.h`).

Without the extension, both are in Python and do nothing. With ``IPCQ_SHORTCUTS=0`` no handle is armed, so every call
runs in Python. The variable is read when a handle is opened, because importing ipcq must not read the environment.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ipcq._process.imports import shortage_behind
from ipcq.errors import MessageQueueError

__all__ = ("Base", "in_c", "log_mismatch")

F = TypeVar("F", bound=Callable[..., Any])


class PythonBase:
    """The base class of handles without the extension."""

    __slots__ = ()

    _armed = False

    def _arm(self, *_: object) -> None:
        """Do nothing: every call runs in Python."""

    def _disarm(self) -> None:
        """Do nothing."""

    def _await_uses(self) -> None:
        """Do nothing."""

    def _forget_uses(self) -> None:
        """Do nothing."""


def in_python(method: F) -> F:
    """Return the method itself."""
    return method


def base_and_decorator() -> tuple[Any, Any]:
    """Return the base class of handles and the decorator `in_c`, from the extension if it is installed.

    Raises:
        ImportError: The extension is installed, but memory or descriptors are too short to load it now.
    """
    try:
        from ipcq._native import Base, in_c
    except ImportError as error:
        if shortage_behind(error):
            raise  # a later import may succeed
        return PythonBase, in_python
    return Base, in_c


if TYPE_CHECKING:
    from ipcq._native import Base, in_c
else:
    Base, in_c = base_and_decorator()


def log_mismatch(error: MessageQueueError) -> None:
    """Log that a backend's functions in C cannot be used, and why."""
    logging = sys.modules.get("logging")  # if it was not imported, there are no handlers
    if logging is not None:
        logging.getLogger("ipcq").warning("put and get are slower than they could be: %s", error)
