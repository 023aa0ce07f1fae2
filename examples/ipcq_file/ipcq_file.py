"""Queues in SQLite databases: a queue's name is a symbolic link to a directory with one database."""

import contextlib, hashlib, itertools, os, shutil, sqlite3, tempfile

from ipcq import backend as b, errors as e
from ipcq.hooks import hookimpl

ABLE = b.Capabilities(
    scope=b.Scope.HOST, persistence=b.Persistence.KERNEL, exact_qsize=True, max_message_size=1 << 29
)
ERRORS = {FileNotFoundError: e.QueueNotFound, FileExistsError: e.QueueExists, sqlite3.Error: e.MessageQueueError}
BUSY = sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED  # try again later; every other code is an error
CODES = {
    sqlite3.SQLITE_FULL: e.NoSpace,
    sqlite3.SQLITE_READONLY: e.PermissionDenied,
    **dict.fromkeys((sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB), e.CorruptQueue),
}
MAKE = (
    "PRAGMA journal_mode = WAL",
    "CREATE TABLE queue AS SELECT {} AS messages, {} AS size",
    "CREATE TABLE item (data)",
)
# Rows are added at one end and deleted at the other, so their numbers have no gaps and give the count.
COUNT = "SELECT ifnull((SELECT max(rowid) FROM item) - (SELECT min(rowid) FROM item) + 1, 0)"
PUT = f"INSERT INTO item SELECT ? FROM queue WHERE messages > ({COUNT}) RETURNING rowid"
GET = "DELETE FROM item WHERE rowid = (SELECT min(rowid) FROM item) RETURNING data, 0"


def place(name: str) -> str:
    return "/dev/shm/ipcq-file-" + hashlib.sha256(f"{os.geteuid()}{name}".encode()).hexdigest()


class FileChannel(b.Channel):
    capabilities = ABLE

    def __init__(self, name: str, directory: str) -> None:
        self.name, self.link, self.directory = name, place(name), directory
        self.lock, self.db, self.connecting = b.NativeRLock(), None, False
        b.belongs(self)  # before the first connection, so that every fork calls this channel's hooks

    def run(self, statement: str, *values: bytes) -> list | None:
        with self.lock, b.translated(ERRORS, self.name, "file"):
            while True:
                try:
                    db = self.db or self.connect()
                    # A single call of C, so that no signal handler that forks can close the connection during it.
                    return list(itertools.chain.from_iterable(map(db.execute, [statement], [values])))
                except sqlite3.Error as error:
                    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                    if code in BUSY:
                        return None  # another process has the lock: nothing was done
                    if code:
                        kind = CODES.get(code, e.MessageQueueError) if os.path.exists(self.directory) else e.QueueGone
                        raise kind(str(error)) from error
                    if self.db is db:
                        raise  # otherwise a handler that forked has closed it, before anything was done

    def connect(self) -> sqlite3.Connection:
        self.connecting = True
        path = f"file:{self.directory}/db?mode=rw"
        self.db = sqlite3.connect(path, timeout=0.05, isolation_level=None, check_same_thread=False, uri=True)
        self.connecting = False
        return self.db

    def look(self, statement: str) -> tuple:
        for _ in range(20):
            if rows := self.run(statement):
                return rows[0]
        raise e.TimedOutError("another process has locked the database for a second: end it, or try again")

    def check(self) -> None:
        if not self.linked():
            raise e.QueueGone

    def try_put(self, data: bytes, priority: int, /) -> bool:
        self.check()
        return bool(self.run(PUT, data))

    def try_get(self) -> b.Received | None:
        self.check()
        return next(iter(self.run(GET) or ()), None)

    def qsize(self) -> int:
        self.check()
        return self.look(COUNT)[0]

    def linked(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.readlink(self.link) == self.directory
        return False

    def close(self) -> None:
        with self.lock:
            if self.db is not None:
                self.db.close()
            self.db = None

    def before_fork(self) -> None:
        # SQLite's locks belong to the process, but a connection that a child inherits would treat them as its own.
        if not self.lock.acquire(timeout=1):
            raise e.TimedOutError("another thread is stuck inside SQLite")
        if self.connecting:  # a signal handler has interrupted `connect`, and forks
            self.lock.release()
            raise e.MessageQueueError("this thread is connecting to the database")
        self.close()  # the next call connects again; the lock is held until the fork is over

    def after_fork_in_parent(self) -> None:
        self.lock.release()

    def after_fork(self) -> bool:
        return False  # the child must open the queue itself


class FileBackend(b.Backend):
    name, capabilities = "file", ABLE

    def create(self, name: str, request: b.Request) -> b.Channel:
        if request.buffer_size is not None:
            raise e.Unsupported("its queues are limited by messages: pass max_messages instead of buffer_size")
        limits = request.max_messages or 64, request.max_message_size or 1 << 20
        with b.translated(ERRORS, name, "file"), contextlib.ExitStack() as undo:
            directory = tempfile.mkdtemp(dir="/dev/shm", prefix="ipcq-file-")
            undo.callback(shutil.rmtree, directory)
            open(f"{directory}/db", "xb").close()
            channel = FileChannel(name, directory)
            undo.callback(channel.close)
            for statement in MAKE:
                channel.run(statement.format(*limits))
            os.symlink(directory, place(name))  # only now the queue exists, complete
            undo.pop_all()
        return self.opened(channel)

    def attach(self, name: str, request: b.Request) -> b.Channel:
        with b.translated(ERRORS, name, "file"):
            b.check_owner(os.lstat(place(name)).st_uid, request)
            return self.opened(FileChannel(name, os.readlink(place(name))))

    def opened(self, channel: FileChannel) -> FileChannel:
        try:
            messages, size = channel.look("SELECT * FROM queue")
        except e.QueueGone as error:
            raise e.QueueNotFound from error  # unlinked meanwhile
        channel.attributes = b.Attributes(mode=0o600, max_messages=messages, max_message_size=size)
        return channel

    def exists(self, name: str) -> bool:
        return os.path.islink(place(name))

    def unlink(self, name: str) -> None:
        with b.translated(ERRORS, name, "file"):
            directory = os.readlink(place(name))
            os.unlink(place(name))
            shutil.rmtree(os.rename(directory, f"{directory}-gone") or f"{directory}-gone")


@hookimpl
def ipcq_backend() -> b.Backend:
    return FileBackend()
