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
    """Take the name lock, and unlink the name if the first argument then returns True. The second argument, unless it
    is empty, is an incarnation: then the first does not count, and the name is unlinked if it leads to that queue."""
    reopen: Callable[[], tuple[Any, ...]]
    """Return what `__reduce__` has to return, so that pickle can attach again."""
    alternatives: Callable[[str], Sequence[str]]
    """Return the names of the usable backends that have a capability."""
