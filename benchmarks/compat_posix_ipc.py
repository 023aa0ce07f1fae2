"""The face of posix_ipc against posix_ipc itself, with equal limits.

Wanted: on mqueue at least 0.7 times posix_ipc, on shm at least 3 times.
"""

import os
from typing import Any

import harness
from rivals import PosixIpc

from ipcq._bench.contestant import OURS
from ipcq._distribution import DISTRIBUTION

LIMITS = {"max_messages": 10, "max_message_size": 8192}


class Face(PosixIpc):
    """What posix_ipc's own contestant does, with another import."""

    kind = OURS
    distribution = DISTRIBUTION

    def __init__(self, backend: str, **how: Any) -> None:
        super().__init__(f"compat.posix_ipc on {backend}", **how)
        self._backend = backend

    def library(self) -> Any:
        os.environ["IPCQ_BACKEND"] = self._backend
        from ipcq.compat import posix_ipc

        return posix_ipc


if __name__ == "__main__":
    harness.main(
        __doc__,
        [Face("mqueue", **LIMITS), Face("shm", **LIMITS), PosixIpc(**LIMITS)],
        ["64B", "2P2C", "ping-pong", "idle"],
    )
