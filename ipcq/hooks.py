"""The hook that returns a backend's descriptor, and the marker for its implementation."""

import pluggy

from ipcq._distribution import DISTRIBUTION
from ipcq.backend import Backend

__all__ = ("DISTRIBUTION", "GROUP", "PROJECT", "hookimpl", "ipcq_backend")

#: Pluggy's project name, equal to the name of the package. `DISTRIBUTION` is the name that pip installs.
PROJECT = "ipcq"
#: Entry-point group in which a distribution lists its backends: ``name = "module"``.
GROUP = "ipcq.backends"

hookspec = pluggy.HookspecMarker(PROJECT)

#: Marks a backend module's `ipcq_backend` function.
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ipcq_backend() -> Backend:  # type: ignore[empty-body]  # only implementations have a body
    """Return the descriptor of this plugin's backend.

    Called once per process, when the backend is first needed. The descriptor's `name` equals the entry point's name.
    """
