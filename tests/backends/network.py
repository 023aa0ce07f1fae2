"""Two network namespaces of Linux, joined by a link, in place of two machines."""

import ctypes
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

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


def ip(*words: str) -> None:
    """Run the program ip(8)."""
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


class Machine:
    """A network namespace, with its loopback interface and one end of the link."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Move this thread into the namespace, with the threads and processes that it starts."""
        with open("/proc/thread-self/ns/net", "rb") as outside, open(f"/run/netns/{self.name}", "rb") as inside:
            _enter(inside.fileno())
            try:
                yield
            finally:
                _enter(outside.fileno())

    def set_link(self, state: str) -> None:
        """Set this end of the link ``up`` or ``down``."""
        ip("-n", self.name, "link", "set", LINK, state)


def _enter(namespace: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(namespace, CLONE_NEWNET):  # in os since Python 3.12
        raise OSError(ctypes.get_errno(), "setns(CLONE_NEWNET) is needed, and refused here")


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    """Make two namespaces, and remove them in the end, whatever happens."""
    prefix = f"ipcq-{os.getpid()}-{secrets.token_hex(4)}"
    near, far = Machine(f"{prefix}-near", "10.0.0.1"), Machine(f"{prefix}-far", "10.0.0.2")
    with ExitStack() as stack:
        for machine in (near, far):
            ip("netns", "add", machine.name)
            stack.callback(ip, "netns", "delete", machine.name)
        ip("link", "add", LINK, "netns", near.name, "type", "veth", "peer", "name", LINK, "netns", far.name)
        for machine in (near, far):
            ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", LINK)
            for link in ("lo", LINK):
                ip("-n", machine.name, "link", "set", link, "up")
        yield near, far
