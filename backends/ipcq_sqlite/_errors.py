"""What the errors of SQLite mean."""

import os
import sqlite3
from typing import Final

from ipcq.errors import CorruptQueue, MessageQueueError, NoSpace, PermissionDenied

#: Another connection holds the lock, or recovers the journal of a killed process.
_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def primary(error: sqlite3.Error) -> int:
    """Return SQLite's number for a kind of error; 0 if the module itself raised it."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    return primary(error) in _BUSY


def explained_error(error: sqlite3.Error, path: str) -> MessageQueueError:
    """Return our error for one of SQLite.

    Args:
        error: SQLite's error.
        path: The directory of the queue.
    """
    code = primary(error)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and not _free(path)):
        return NoSpace(
            f"no space is left on the file system of {path}: free some (to take messages out, SQLite needs some, too)"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(error, path)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH):
        return PermissionDenied(
            f"its database cannot be written ({error}): see ls -la {path}, and whether it is mounted read-only"
        )
    if code == sqlite3.SQLITE_ERROR:  # such as a missing table
        return CorruptQueue(f"its database is not one of ipcq ({error}): unlink and recreate the queue")
    return MessageQueueError(f"SQLite failed: {error}")


def damaged(error: Exception, path: str) -> CorruptQueue:
    return CorruptQueue(
        f"its database is damaged ({error}): save what is left with sqlite3 {path}/db .recover, "
        "then unlink and recreate the queue"
    )


def _free(path: str) -> int:
    try:
        return os.statvfs(path).f_bavail
    except OSError:
        return 1
