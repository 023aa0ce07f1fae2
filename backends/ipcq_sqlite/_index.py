"""The index of the journal, as SQLite has opened it.

The index begins with two copies of a header. A transaction writes one and then the other as its last step, under the
write lock. A process that reads and finds that they differ tries again inside SQLite, for 10 s, and nothing ends that
(walTryBeginRead and walIndexReadHdr in wal.c). So a process that is stopped between the two copies would hold up every
call of the others for longer than their timeouts. A channel therefore compares the copies itself before it calls
SQLite. Two kinds of calls may still wait inside: one that compared them right before the other process was stopped, and
one that opens the database.

If the copies differ and nobody holds the lock, the process was killed. Then SQLite repairs the index.

*The descriptor* is SQLite's own. A process that closes any other descriptor of the file loses its locks on it
(``fcntl(2)``), and SQLite's with them.
"""

import os
from typing import Final

from ipcq.backend import reraise_from_handler
from ipcq_sqlite import _place
from ipcq_sqlite._byte_lock import is_locked

#: The byte that is locked by the connection that writes (WAL_WRITE_LOCK in wal.c).
WRITE_LOCK_AT: Final = 120

#: Bytes of one copy of the header (WalIndexHdr in wal.c).
_HEADER_BYTES: Final = 48


def index_of(path: str) -> int | None:
    """Return SQLite's descriptor of the index, or None if it is unknown.

    Args:
        path: The directory of the queue.
    """
    try:
        index = os.stat(f"{path}/{_place.INDEX}")
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.path.samestat(os.fstat(int(name)), index):
                    return int(name)
            except OSError as error:  # another thread has closed it
                reraise_from_handler(error)
    except OSError as error:
        reraise_from_handler(error)
    return None


def is_changing(descriptor: int) -> bool:
    """Return whether a process is changing the header of the index, and may be stopped inside.

    Args:
        descriptor: A descriptor of the index.
    """
    try:
        headers = os.pread(descriptor, 2 * _HEADER_BYTES, 0)
        return headers[:_HEADER_BYTES] != headers[_HEADER_BYTES:] and is_locked(descriptor, WRITE_LOCK_AT)
    except OSError as error:  # a signal handler has closed it: SQLite tells what is wrong
        reraise_from_handler(error)
        return False
