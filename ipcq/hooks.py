"""The one hook of the plugin system, and the marker that backends put on theirs."""

import pluggy

from ipcq.backend import Backend

__all__ = ("GROUP", "PROJECT", "hookimpl", "ipcq_backend")

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
