"""The backend pyshm against shmqueue, with as much room for each.

Wanted: at least 5 times shmqueue under the file's lock, at least 1.2 times
under shmlock, and at most 5 ms of processor time in 2 s of a get that waits.
"""

import harness
from rivals import ShmQueue

from ipcq._bench.queues import Ipcq

ROOM = 1 << 16

if __name__ == "__main__":
    harness.main(
        __doc__,
        [
            Ipcq("pyshm", "pyshm, file", buffer_size=ROOM, lock="file"),
            ShmQueue(buffer_size=ROOM),
            Ipcq("pyshm", "pyshm, file, raw", buffer_size=ROOM, lock="file", serializer="raw"),
            Ipcq("pyshm", "pyshm, shmlock", buffer_size=ROOM, lock="shmlock"),
        ],
        ["64B", "idle"],
    )
