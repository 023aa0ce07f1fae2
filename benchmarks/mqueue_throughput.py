"""The backend mqueue against posix_ipc itself, with equal limits.

Wanted: at least 0.8 times posix_ipc, blocking. "polled" is posix_ipc with calls
that do not block, and poll, which is the faster way.
"""

import harness
from rivals import PosixIpc

from ipcq._bench.queues import Ipcq

LIMITS = {"max_messages": 10, "max_message_size": 8192}

if __name__ == "__main__":
    harness.main(
        __doc__,
        [
            Ipcq("mqueue", **LIMITS),
            PosixIpc(**LIMITS),
            PosixIpc("posix_ipc, polled", polled=True, **LIMITS),
            Ipcq("mqueue", "ipcq mqueue, raw", serializer="raw", **LIMITS),
        ],
        ["64B", "idle"],
    )
