"""The backend socketpair compared with a bare pair of sockets.

Goals: at least 0.75 times the throughput of the pair, at most twice its round
trip, and at most 1.3 times its wake-up. Without limits, a get must also handle
passed descriptors; with max_messages, a put takes the file lock.
"""

import harness

from ipcq._bench.queues import Ipcq
from ipcq._bench.references import SocketPair

SMALL = {"max_message_size": 4096}

if __name__ == "__main__":
    harness.main(
        __doc__,
        [
            Ipcq("socketpair"),
            SocketPair(),
            Ipcq("socketpair", "ipcq socketpair, raw", serializer="raw"),
            Ipcq("socketpair", "ipcq socketpair, 4 KiB at most", **SMALL),
            Ipcq("socketpair", "ipcq socketpair, raw, 4 KiB at most", serializer="raw", **SMALL),
            Ipcq("socketpair", "ipcq socketpair, 256 messages", max_messages=256, max_message_size=128),
        ],
        ["64B", "ping-pong", "wake-up", "idle"],
    )
