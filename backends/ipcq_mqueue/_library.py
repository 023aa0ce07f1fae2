"""posix_ipc itself, also where a program has put something else under its name.

``sys.modules["posix_ipc"] = ipcq.compat.posix_ipc`` gives a program's libraries that face; the face stands on this
backend, and this backend on the real library.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, Final

from ipcq.backend import importing

_NAME: Final = "posix_ipc"


def is_installed() -> bool:
    """Tell whether it is there, whatever has its name by now."""
    with _uncovered():
        return find_spec(_NAME) is not None


@cache
def library() -> Any:
    """Import it, and return the same from then on.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    with _uncovered():
        return importlib.import_module(_NAME)


@contextmanager
def _uncovered() -> Iterator[None]:
    """Take away for a moment what has its name; what is written in C is loaded into whatever has its name."""
    with importing():
        there = sys.modules.get(_NAME)
        if there is None or getattr(there, "__name__", _NAME) == _NAME:
            yield
            return
        del sys.modules[_NAME]
        try:
            yield
        finally:
            sys.modules[_NAME] = there
