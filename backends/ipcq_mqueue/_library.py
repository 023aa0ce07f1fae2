"""The real posix_ipc, even if a program has replaced the module of that name.

``sys.modules["posix_ipc"] = ipcq.compat.posix_ipc`` makes libraries use the compatible module. That module uses this
backend, which needs the real library.
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
    """Return whether posix_ipc is installed, even if another module has its name now.

    If it is, import it: so it stays available, and no further call searches `sys.path`.
    """
    with _uncovered():
        found = find_spec(_NAME) is not None
    if found:
        library()
    return found


@cache
def library() -> Any:
    """Return posix_ipc. The first call imports it.

    Raises:
        ModuleNotFoundError: posix_ipc is not installed.
    """
    with _uncovered():
        return importlib.import_module(_NAME)


@contextmanager
def _uncovered() -> Iterator[None]:
    """Remove another module of that name temporarily: the extension module would be loaded into it."""
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
