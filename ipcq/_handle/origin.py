"""How a handle was opened."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ipcq.backend import Backend, Request


class Origin(NamedTuple):
    """How a handle was opened, for operations that need more than its channel."""

    name: str
    backend: Backend
    request: Request
    remove: Callable[[Callable[[], bool], str], None]
    """Take the name lock, and unlink the name if the first argument then returns True. If the second, an incarnation,
    is not empty, unlink the name instead if it leads to that."""
    reopen: Callable[[], tuple[Any, ...]]
    """Return what `__reduce__` has to return, so that pickle can attach again."""
    alternatives: Callable[[str], Sequence[str]]
    """Return the names of the usable backends that have a capability."""
