"""Two network namespaces of Linux, joined by a link, in place of two machines.

They have no names, only descriptors of this process: they end with it and its children, however it ends.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Self

import pytest

from processes.needs import required

if sys.platform != "linux":
    pytest.skip("the server is installed on Linux alone", allow_module_level=True)

if os.geteuid() != 0:
    required("only root can make network namespaces: run the tests as root")
PROGRAM = shutil.which("ip") or required("ip is missing: sudo apt-get install iproute2")

CLONE_NEWNET = 0x40000000
#: The name of the link's end in each namespace.
LINK = "wire"

_system = ctypes.CDLL(None, use_errno=True)


def ip(*words: str) -> None:
    """Run the program ip(8) in the namespace of this thread."""
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


class Machine:
    """A network namespace, with its loopback interface and one end of the link."""

    def __init__(self, address: str) -> None:
        self.address = address
        with _current() as outside:
            _do(_system.unshare(CLONE_NEWNET), "unshare")
            try:
                self._namespace = _current()
            finally:
                _enter(outside)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._namespace.close()

    @property
    def path(self) -> str:
        """The path of the namespace, for other processes."""
        return f"/proc/{os.getpid()}/fd/{self._namespace.fileno()}"

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Move this thread into the namespace, with the threads and processes that it starts."""
        with _current() as outside:
            _enter(self._namespace)
            try:
                yield
            finally:
                _enter(outside)

    def set_link(self, state: str) -> None:
        """Set this end of the link ``up`` or ``down``."""
        with self.inside():
            ip("link", "set", LINK, state)


def _current() -> FileIO:
    """Return a descriptor of this thread's namespace."""
    return FileIO("/proc/thread-self/ns/net")


def _enter(namespace: FileIO) -> None:
    _do(_system.setns(namespace.fileno(), CLONE_NEWNET), "setns")


def _do(result: int, what: str) -> None:
    if result:  # these calls are in os since Python 3.12
        raise OSError(ctypes.get_errno(), f"{what}(CLONE_NEWNET) is needed, and refused here")


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Make two namespaces, and remove them in the end."""
    with Machine("10.0.0.1") as near, Machine("10.0.0.2") as far:
        with near.inside():
            ip("link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", far.path)
        for machine in (near, far):
            with machine.inside():
                ip("address", "add", f"{machine.address}/24", "dev", LINK)
                for link in ("lo", LINK):
                    ip("link", "set", link, "up")
        yield near, far
