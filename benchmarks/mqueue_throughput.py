"""The backend mqueue compared with posix_ipc, with equal limits.

Goal: at least 0.9 times the speed of posix_ipc with blocking calls, in each
workload. "polled" is posix_ipc with non-blocking calls and poll.
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
        ["64B", "ping-pong", "wake-up", "idle"],
    )
