"""The backend pyshm compared with multiprocessing.Queue and shmqueue.

The buffers of pyshm and shmqueue are equal. Goals: at least 0.6 times the
throughput of multiprocessing.Queue, and round trips as short; at least 5 times
the throughput of shmqueue with the file's lock, at least 1.2 times with shmlock;
at most 5 ms of CPU time in a get that waits for 2 s.
"""

import harness
from rivals import ShmQueue

from ipcq._bench.queues import Ipcq
from ipcq._bench.references import MultiprocessingQueue

ROOM = 1 << 16

if __name__ == "__main__":
    harness.main(
        __doc__,
        [
            Ipcq("pyshm", "pyshm, file", buffer_size=ROOM, lock="file"),
            MultiprocessingQueue(),
            ShmQueue(buffer_size=ROOM),
            Ipcq("pyshm", "pyshm, file, raw", buffer_size=ROOM, lock="file", serializer="raw"),
            Ipcq("pyshm", "pyshm, shmlock", buffer_size=ROOM, lock="shmlock"),
        ],
        ["64B", "ping-pong", "wake-up", "idle"],
    )
