"""The backends of this machine; a test that means all backends means these, unless it starts a server."""

import ipcq


def is_local(info: ipcq.BackendInfo) -> bool:
    """Return whether a backend asks no server, which may be away; a backend that cannot be loaded asks none."""
    return info.capabilities is None or info.capabilities.scope < ipcq.Scope.NETWORK


def local_backends() -> list[ipcq.BackendInfo]:
    """List the installed backends that ask no server, in the order of preference of `auto`."""
    return [info for info in ipcq.backends() if is_local(info)]
