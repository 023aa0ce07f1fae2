"""The one hook of the plugin system, and the marker that backends put on theirs."""

import pluggy

from ipcq._distribution import DISTRIBUTION
from ipcq.backend import Backend

__all__ = ("DISTRIBUTION", "GROUP", "PROJECT", "hookimpl", "ipcq_backend")

#: What pluggy calls the plugin system. It is the package's name; what pip installs is called `DISTRIBUTION`.
PROJECT = "ipcq"
#: Entry-point group in which a distribution names its backends: ``name = "module"``.
GROUP = "ipcq.backends"

hookspec = pluggy.HookspecMarker(PROJECT)

#: Marks a backend module's `ipcq_backend` function.
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ipcq_backend() -> Backend:  # type: ignore[empty-body]  # a specification has no body; plugins have one
    """Return the one descriptor of this plugin's backend.

    Called once per process, when the backend is first needed. The descriptor's `name` is the entry point's.
    """
