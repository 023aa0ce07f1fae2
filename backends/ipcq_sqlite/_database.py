"""The connection of one channel to its database.

*Signals.* A signal handler may run between any two instructions of Python, and raise, or call the queue again. So a
transaction, from its beginning to its commit, is one call in C: statements with their parameters are prepared first,
and `map` executes them. Whatever a statement needs from an earlier one, it reads from the database. A handler can only
run before a transaction or after it.

A finaliser may run inside, on CPython 3.11, where the garbage collector runs in C. If it calls the queue, its
statements become part of the transaction that it interrupts.

*Syncs.* A connection of a durable queue syncs the journal at each commit, unless what the transaction stores would be
void after a power cut. Every transaction says in its own call in C whether it is synced, so no earlier one can decide
for it, whatever has interrupted that one. A finaliser that runs inside may only ask for a sync.

*Locks.* SQLite lets one connection write at a time. A transaction that finds the lock held tries again after short
pauses, for a limited time. It does not hold the lock of its channel meanwhile. For one lock SQLite itself would wait
for long: `_index` tells beforehand that it is held.

*Checkpoints.* Before version 3.51.3, SQLite can lose transactions if one begins the journal anew while another
connection is in a checkpoint: https://sqlite.org/wal.html#walresetbug. So no connection makes checkpoints by itself.
After a write that finds the journal long, the channel takes the write lock, and a second connection makes the
checkpoint. If the lock is held, a later write tries again. The connection that is closed last makes a checkpoint, too,
under an exclusive lock.

*Forks.* A connection must not cross a fork, not even unused: SQLite's record of the locks of this process would
survive in the child, which has none of them, and a parent that closes would remove the journal under it. So before a
fork each connection is closed, which waits a moment for the thread that is inside. The next call connects again. If
the thread does not leave in time, the child never uses or closes its copy. Nor does the core let it open the queue
again: SQLite would take the locks of the parent for its own there, and write to a journal that the parent removes.
"""

import os
import sqlite3
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from operator import call
from time import monotonic
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import quote

from ipcq.backend import (
    Holder,
    NativeRLock,
    hold_over_forks,
    holder_of_thread,
    no_fork,
    original,
    reraise_from_handler,
    suppressed,
    too_many_descriptors,
)
from ipcq.errors import MessageQueueError, TimedOutError
from ipcq_sqlite import _place, _schema
from ipcq_sqlite._errors import damaged, explained_error, is_busy
from ipcq_sqlite._index import WRITE_LOCK_AT, index_of, is_changing

#: Not gevent's, which lets other greenlets run.
_sleep = original("time", "sleep")

#: A statement and its parameters. A list of tuples executes the statement once with each of them.
Step: TypeAlias = tuple[str, Any]
#: The rows of each statement.
Rows: TypeAlias = list[list[Any]]
_Found = TypeVar("_Found")

#: Seconds for which a put or a get tries to get the lock.
PATIENCE: Final = 0.1
#: Seconds for calls that cannot return "not now". Many processes on a slow disk hold the lock in turn.
LONG_PATIENCE: Final = 10.0
#: Seconds after which these give up if the process that holds the lock is stopped.
_STOPPED_PATIENCE: Final = 1.0
#: Seconds after which a put or a get asks whether that process is stopped.
_ASK_SECONDS: Final = 0.002
#: Seconds for which a fork waits for the thread that uses a connection.
_FORK_SECONDS: Final = 1.0

#: Bytes of the journal after which a write copies it into the database, about 1,000 pages. Others wait for it.
_JOURNAL_BYTES: Final = 1 << 22
#: Descriptors that SQLite needs at a time.
_DESCRIPTORS: Final = 6

_CONNECT_OPTIONS: Final[dict[str, Any]] = {
    "timeout": 0,
    "isolation_level": None,
    "check_same_thread": False,
    "uri": True,
}
_PRAGMAS: Final = (
    "synchronous = NORMAL",
    "wal_autocheckpoint = 0",  # a checkpoint in a commit holds no lock
    f"journal_size_limit = {_JOURNAL_BYTES}",  # so that its size tells what was written since it last began anew
    "temp_store = MEMORY",
    "trusted_schema = OFF",
)
_BEGIN: Final = "BEGIN IMMEDIATE"
_SYNC: Final[Step] = ("PRAGMA synchronous = FULL", ())
_DO_NOT_SYNC: Final[Step] = ("PRAGMA synchronous = NORMAL", ())
_COMMIT: Final = "COMMIT"
_CHECKPOINT: Final = "PRAGMA wal_checkpoint(PASSIVE)"
#: The text of the error if a function that a statement calls raises.
_FUNCTION_FAILED: Final = "user-defined function raised"

#: The names of numbered parameters.
_NUMBERS: Final = ("1", "2", "3", "4", "5")

_databases: "weakref.WeakSet[Database]" = weakref.WeakSet()
# Connections that crossed a fork. Closing them would change the files of the parent.
_abandoned: list[sqlite3.Connection] = []


class Database:
    """The connection to the database of one queue.

    Args:
        path: The directory of the queue.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._prepare: Callable[[sqlite3.Connection], None] | None = None
        self._relieve: Callable[[], object] = list
        self._lock = NativeRLock()
        self._connection: sqlite3.Connection | None = None
        self._index: int | None = None
        self._connecting = self._executing = self._crossed = False
        self._durable = self._owes_sync = False
        # When the lock was first found held, by `time.monotonic`; 0 while it is free.
        self._busy_since = 0.0
        # Bytes of the journal at the last checkpoint; 0 if it has begun anew since.
        self._checkpoint_bytes = 0
        _databases.add(self)

    # Transactions

    def write(self, patience: float, steps: Callable[[], Sequence[Step]], *, synced: bool = True) -> Rows | None:
        """Execute statements in one transaction; return their rows, or None if the lock is not free in time.

        Args:
            patience: Seconds for which to try to get the lock.
            steps: Called before each try, for the statements.
            synced: Whether a durable queue stores them safely before this returns. Otherwise a power cut may undo
                them, and the next synced transaction stores them.
        """
        rows = self._patiently(patience, steps, self._transaction if synced else self._unsynced_transaction)
        if rows is not None and not self._executing:
            self._shorten_journal()
        if self._owes_sync and not self._executing:
            with suppressed(MessageQueueError, MemoryError):  # the next write tries again
                self._owes_sync = self._patiently(PATIENCE, lambda: [(_schema.TOUCH, ())], self._transaction) is None
        return rows

    def read(self, patience: float, *steps: Step) -> Rows | None:
        """Execute statements that write nothing, each by itself; return their rows, or None as `write` does.

        A process that is stopped while it changes the index of the journal holds up those that read, too.
        """
        return self._patiently(patience, lambda: steps, self._execute)

    def _at_once(
        self, steps: Callable[[], Sequence[Step]], execute: Callable[[sqlite3.Connection, Sequence[Step]], Rows]
    ) -> Rows | None:
        with self._lock:
            connection = self._connected()
            if self._index is not None and is_changing(self._index):
                return None
            rows = execute(connection, steps())
        self._busy_since = 0.0
        return rows

    def _patiently(
        self,
        patience: float,
        steps: Callable[[], Sequence[Step]],
        execute: Callable[[sqlite3.Connection, Sequence[Step]], Rows],
    ) -> Rows | None:
        retries, relieved = _Retries(self, patience), False
        while True:
            try:
                rows = self._at_once(steps, execute)
            except sqlite3.ProgrammingError as error:
                reraise_from_handler(error)
                if "closed" not in str(error):
                    raise explained_error(error, self._path) from error
                # A handler of this thread has forked before the statements. They run on the next connection.
                continue
            except UnicodeDecodeError as error:  # SQLite quotes bytes of a damaged schema in the text of its error
                reraise_from_handler(error)
                raise damaged(error, self._path) from error
            except sqlite3.Error as error:
                reraise_from_handler(error)
                if _FUNCTION_FAILED in str(error) and not relieved:
                    relieved = True
                    self._relieve()
                    continue
                if not is_busy(error):
                    raise explained_error(error, self._path) from error
                rows = None
            if rows is not None or not retries.pause():
                return rows

    def _unsynced_transaction(self, connection: sqlite3.Connection, steps: Sequence[Step]) -> Rows:
        # A finaliser must not decide for the transaction that it interrupts before this has begun.
        return self._transaction(connection, steps, synced=self._executing)

    def _transaction(self, connection: sqlite3.Connection, steps: Sequence[Step], *, synced: bool = True) -> Rows:
        if connection.in_transaction:  # this is a finaliser
            self._owes_sync = self._durable
            return self._execute(connection, steps)
        first = [_SYNC if synced else _DO_NOT_SYNC] if self._durable else []
        try:
            try:
                return self._execute(connection, [*first, (_BEGIN, ()), *steps, (_COMMIT, ())])[len(first) + 1 : -1]
            except BaseException:
                _roll_back(connection)
                raise
        except BaseException:  # if a handler raises before the first one has finished
            _roll_back(connection)
            raise

    def _execute(self, connection: sqlite3.Connection, steps: Sequence[Step]) -> Rows:
        calls = [_prepared(connection, statement, values) for statement, values in steps]
        before, self._executing = self._executing, True  # True already if this is a finaliser
        try:
            return list(map(list, map(call, calls)))
        finally:
            self._executing = before

    def _shorten_journal(self) -> None:
        """Make a checkpoint if the journal is long, after which the next write begins it anew."""
        try:
            size = os.stat(f"{self._path}/{_place.JOURNAL}").st_size  # opens no file, so it releases no lock
        except OSError as error:
            reraise_from_handler(error)
            return
        if size <= _JOURNAL_BYTES:
            self._checkpoint_bytes = 0
        # If a process that reads keeps the journal from beginning anew, the next checkpoint has as much to copy.
        if size <= self._checkpoint_bytes + _JOURNAL_BYTES:
            return
        busy = False
        with suppressed(MessageQueueError, MemoryError):  # what was written is stored
            busy = self._patiently(0.0, tuple, self._checkpoint) is None
        if not busy:
            self._checkpoint_bytes = size

    def _checkpoint(self, connection: sqlite3.Connection, _: Sequence[Step]) -> Rows:
        # The second connection is opened under the lock, in the same call in C. A finaliser's statements become part of
        # the transaction here as well.
        second = sqlite3.Connection.__new__(sqlite3.Connection)
        calls: list[Callable[[], object]] = [
            partial(connection.execute, _BEGIN),
            partial(sqlite3.Connection.__init__, second, self._address(), **_CONNECT_OPTIONS),
            partial(second.execute, _CHECKPOINT),
            second.close,
            partial(connection.execute, _COMMIT),
        ]
        self._executing = True
        try:
            try:
                deque(map(call, calls), maxlen=0)
            except BaseException:
                _abort(connection, second)
                raise
        except BaseException:  # if a handler raises before the first one has finished
            _abort(connection, second)
            raise
        finally:
            self._executing = False
        return []

    def _address(self) -> str:
        return f"file:{quote(self._path)}/{_place.DATABASE}?mode=rw"

    def _connected(self) -> sqlite3.Connection:
        connection = self._connection
        if connection is None:
            if self._crossed:
                raise MessageQueueError(
                    "its process was forked while a thread was in a call of it: "
                    'fork while no call is in progress, or start processes with "spawn"'
                )
            self._connecting = True
            try:
                connection = self._connection = self._connect()
            finally:
                self._connecting = False
        return connection

    def _connect(self) -> sqlite3.Connection:
        check_descriptors()
        connection: sqlite3.Connection = sqlite3.connect(self._address(), **_CONNECT_OPTIONS)
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}").close()
            if self._prepare is not None:
                self._prepare(connection)
            self._index = index_of(self._path)
        except BaseException:
            connection.close()
            raise
        return connection

    def prepare(
        self, prepare: Callable[[sqlite3.Connection], None], relieve: Callable[[], object], *, synced: bool
    ) -> None:
        """Prepare the connection, and each later one.

        Args:
            prepare: Called with each connection.
            relieve: Called before the only retry if a function that a statement calls has failed.
            synced: Whether the queue is durable, so that its transactions are synced unless they say otherwise.
        """
        # Connect again, so that no handler that forks closes a connection that is half prepared.
        self.close()
        self._prepare, self._relieve, self._durable = prepare, relieve, synced
        self.sure(self._patiently(LONG_PATIENCE, tuple, self._execute))

    # Others

    def holder(self) -> Holder | None:
        """Return the process that held the lock when it was last asked for, if it still holds it."""
        return holder_of(self._path, monotonic() - self._busy_since) if self._busy_since else None

    def note_busy(self, now: float) -> None:
        """Note that the lock was found held."""
        self._busy_since = self._busy_since or now

    def sure(self, found: _Found | None) -> _Found:
        """Return the result of a call that cannot return "not now".

        Raises:
            TimedOutError: There is none, because the lock was held.
        """
        if found is None:
            raise self._held_up()
        return found

    def _held_up(self) -> TimedOutError:
        holder = self.holder()
        if holder is not None:
            return TimedOutError(f"{holder}: {holder.way_out}")
        return TimedOutError(
            f"another process has held the lock of the queue for {LONG_PATIENCE:g} s: "
            f"find it (fuser {self._path}/{_place.DATABASE}), and continue or end it"
        )

    # Life

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def before_fork(self) -> None:
        if not self._lock.acquire(timeout=_FORK_SECONDS):
            raise TimedOutError("a thread has not left its call of the queue in time for a fork")
        connection = self._connection
        # A statement that reads is no transaction, but closing the connection would take it away from its call in C.
        if self._connecting or self._executing or (connection is not None and connection.in_transaction):
            self._lock.release()
            raise MessageQueueError("a signal handler or a finaliser forked inside a call of the queue")
        if connection is not None:
            self._connection = None
            connection.close()

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork(self) -> None:
        self._lock = NativeRLock()

    def abandon(self) -> None:
        """In a child: never use or close a connection that crossed the fork."""
        connection, self._connection = self._connection, None
        if connection is not None:
            _abandoned.append(connection)
            self._crossed = True


class _Retries:
    """The retries of one call while another connection holds the lock."""

    def __init__(self, database: Database, patience: float) -> None:
        self._database = database
        self._patience = patience
        self._tries = 0
        self._until = self._ask_at = 0.0

    def pause(self) -> bool:
        """Sleep before the next try; return False if the call gives up."""
        now = monotonic()
        self._database.note_busy(now)
        if not self._tries:
            self._until = now + self._patience
            self._ask_at = now + (_ASK_SECONDS if self._patience == PATIENCE else _STOPPED_PATIENCE)
        if now >= self._until:
            return False
        if now >= self._ask_at:
            holder = self._database.holder()
            if holder is not None and holder.stopped:
                return False
            self._ask_at = now + _STOPPED_PATIENCE
        # A transaction without fsync takes some 0.1 ms.
        _sleep(min(0.00005 * self._tries, 0.001))
        self._tries += 1
        return True


def _prepared(connection: sqlite3.Connection, statement: str, values: Any) -> Callable[[], sqlite3.Cursor]:
    if "?1" in statement:  # a parameter named "1", for which CPython 3.12.1 wants a name, too
        values = list(map(_by_name, values)) if type(values) is list else _by_name(values)
    return partial(connection.executemany if type(values) is list else connection.execute, statement, values)


def _by_name(values: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(_NUMBERS, values, strict=False))


def _roll_back(connection: sqlite3.Connection) -> None:
    # A handler may have forked since, which has closed the connection. That is no reason to execute the steps again.
    with suppressed(sqlite3.ProgrammingError):
        if connection.in_transaction:
            connection.rollback()


def _abort(connection: sqlite3.Connection, second: sqlite3.Connection) -> None:
    with suppressed(sqlite3.ProgrammingError):  # it was not opened
        second.close()
    _roll_back(connection)


def holder_of(path: str, seconds: float) -> Holder | None:
    """Return the process that holds the write lock of a queue's database, or None."""
    try:
        found = os.stat(f"{path}/{_place.INDEX}")
        device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        with open("/proc/locks", encoding="utf-8") as file:
            for line in file:
                if _is_write_lock(line.split(), device):
                    return holder_of_thread(int(line.split()[4]), seconds)
    except OSError as error:
        reraise_from_handler(error)
    return None


def _is_write_lock(words: list[str], device: str) -> bool:
    # 1: POSIX  ADVISORY  WRITE 4711 00:1b:32 120 120
    if words[1] != "POSIX" or words[3] != "WRITE" or words[5] != device:
        return False
    return int(words[6]) <= WRITE_LOCK_AT and (words[7] == "EOF" or int(words[7]) >= WRITE_LOCK_AT)


def check_descriptors() -> None:
    """Raise our error if descriptors run out: SQLite would only say that it cannot open the file."""
    with no_fork:
        try:
            # Objects that close their descriptor themselves, whenever a signal handler raises. gevent removes them.
            list(map(call, repeat(original("select", "epoll"), _DESCRIPTORS)))
        except OSError as error:
            reraise_from_handler(error)
            raise too_many_descriptors(error.errno or 0) from error


def _in_child() -> None:
    for database in list(_databases):
        database.abandon()


hold_over_forks(in_child=_in_child)
