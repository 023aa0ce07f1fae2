"""Queues in SQLite: the name of a queue is a symbolic link to a directory that holds one database."""

import contextlib, hashlib, os, shutil, sqlite3, tempfile, threading

from ipcq.backend import (
    Attributes,
    Backend,
    Capabilities,
    Channel,
    Persistence,
    Request,
    Scope,
    check_owner,
    translated,
)
from ipcq.errors import MessageQueueError, QueueExists, QueueGone, QueueNotFound, Unsupported
from ipcq.hooks import hookimpl

ABLE = Capabilities(scope=Scope.HOST, persistence=Persistence.KERNEL, exact_qsize=True, max_message_size=1 << 29)
ERRORS = {FileNotFoundError: QueueNotFound, FileExistsError: QueueExists, sqlite3.Error: MessageQueueError}
MAKE = "PRAGMA journal_mode = WAL; CREATE TABLE queue AS SELECT {} AS messages, {} AS size; CREATE TABLE item (data)"
PUT = "INSERT INTO item SELECT ? FROM queue WHERE messages > (SELECT count(*) FROM item) RETURNING rowid"


def place(name: str) -> str:
    return "/dev/shm/ipcq-file-" + hashlib.sha256(f"{os.geteuid()}{name}".encode()).hexdigest()


class FileChannel(Channel):
    def __init__(self, name: str, request: Request) -> None:
        self.capabilities, self.name, self.request, self.lock = ABLE, name, request, threading.RLock()
        with translated(ERRORS, name, "file"):
            check_owner(os.lstat(place(name)).st_uid, request)
            self.path = os.readlink(place(name)) + "/db"
            self.db = sqlite3.connect(self.path, timeout=0.5, isolation_level=None, check_same_thread=False)
        messages, size = self.run("SELECT * FROM queue")[0]
        self.attributes = Attributes(mode=0o600, max_messages=messages, max_message_size=size)

    def run(self, statement: str, *values: bytes) -> list:
        if self.request.after_unlink == "raise" and not self.linked():
            raise QueueGone
        with self.lock, translated(ERRORS, self.name, "file"), contextlib.suppress(sqlite3.OperationalError):
            return self.db.execute(statement, values).fetchall()
        return []  # another process is at it for longer than the timeout: nothing was done

    def try_put(self, data: bytes, priority: int, /) -> bool:
        return bool(self.run(PUT, data))

    def try_get(self) -> tuple[bytes, int] | None:
        return next(
            iter(self.run("DELETE FROM item WHERE rowid = (SELECT min(rowid) FROM item) RETURNING data, 0")), None
        )

    def qsize(self) -> int:
        return self.run("SELECT count(*) FROM item")[0][0]

    def linked(self) -> bool:
        return os.path.exists(self.path)

    def close(self) -> None:
        self.db.close()

    def after_fork(self) -> bool:
        return False  # SQLite's connections do not survive a fork


class FileBackend(Backend):
    name, capabilities = "file", ABLE

    def create(self, name: str, request: Request) -> Channel:
        if request.buffer_size is not None:
            raise Unsupported("its queues are bounded in messages: give max_messages instead of buffer_size")
        with translated(ERRORS, name, "file"):
            directory = tempfile.mkdtemp(dir="/dev/shm", prefix="ipcq-file-")
            made = MAKE.format(request.max_messages or 64, request.max_message_size or 1 << 20)
            sqlite3.connect(f"{directory}/db").executescript(made).connection.close()
            os.symlink(directory, place(name))  # only now is there a queue: whole or not at all
        return FileChannel(name, request)

    def attach(self, name: str, request: Request) -> Channel:
        return FileChannel(name, request)

    def exists(self, name: str) -> bool:
        return os.path.islink(place(name))

    def unlink(self, name: str) -> None:
        with translated(ERRORS, name, "file"):
            directory = os.readlink(place(name))
            os.unlink(place(name))
            shutil.rmtree(directory)


@hookimpl
def ipcq_backend() -> Backend:
    return FileBackend()
