"""The drop-in replacement for posix_ipc compared with posix_ipc, with equal limits.

Goals: at least 0.7 times the speed of posix_ipc on mqueue, and 3 times on shm.
"""

import os
from typing import Any

import harness
from rivals import PosixIpc

from ipcq._bench.contestant import OURS
from ipcq._distribution import DISTRIBUTION

LIMITS = {"max_messages": 10, "max_message_size": 8192}


class DropIn(PosixIpc):
    """The contestant of posix_ipc with the replacement's import."""

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
        [DropIn("mqueue", **LIMITS), DropIn("shm", **LIMITS), PosixIpc(**LIMITS)],
        ["64B", "2P2C", "ping-pong", "idle"],
    )
