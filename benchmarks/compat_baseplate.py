"""The drop-in replacement for baseplate's message queue compared with baseplate, with equal limits.

Goal: at least 2 times as fast as baseplate.
"""

import os
from typing import Any

import harness
from rivals import Baseplate

from ipcq._bench.contestant import OURS
from ipcq._distribution import DISTRIBUTION


class DropIn(Baseplate):
    """The contestant of baseplate with the replacement's import."""

    kind = OURS
    distribution = DISTRIBUTION

    def __init__(self, backend: str) -> None:
        self.name = f"compat.baseplate on {backend}"
        self._backend = backend

    def library(self) -> Any:
        os.environ["IPCQ_BACKEND"] = self._backend
        from ipcq.compat import baseplate

        return baseplate


if __name__ == "__main__":
    harness.main(__doc__, [DropIn("mqueue"), DropIn("shm"), Baseplate()], ["64B", "2P2C", "ping-pong", "idle"])
