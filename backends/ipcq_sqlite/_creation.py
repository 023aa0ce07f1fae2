"""Making and opening a queue."""

import fcntl
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

from ipcq.backend import (
    Attributes,
    Channel,
    Request,
    belongs,
    check_owner,
    no_fork,
    reraise_from_handler,
    suppressed,
    translated,
)
from ipcq.errors import CorruptQueue, MessageQueueError, QueueExists, QueueNotFound, VersionMismatch
from ipcq_sqlite import CAPABILITIES, DURABILITIES, _place, _schema
from ipcq_sqlite._channel import SqliteChannel
from ipcq_sqlite._database import LONG_PATIENCE, Database, check_descriptors
from ipcq_sqlite._descriptor import BriefFile
from ipcq_sqlite._errors import explained_error
from ipcq_sqlite._lease_channel import SqliteLeaseChannel

#: How often to make a directory again that another process took for a leftover.
_TRIES: Final = 5


def create(directory: str, name: str, attributes: Attributes) -> Channel:
    with translated(_place.ERRORS):
        _place.prepare(directory)
        if _place.target_of(_place.link_of(directory, name)) is not None:
            raise QueueExists
        for _ in range(_TRIES - 1):
            with suppressed(FileNotFoundError, BlockingIOError):
                return _created(directory, name, attributes)
        return _created(directory, name, attributes)


def _created(directory: str, name: str, attributes: Attributes) -> Channel:
    target = _place.new_directory(directory)
    path = f"{directory}/{target}"
    with BriefFile(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            files = {_place.MESSAGES: os.mkfifo, _place.SPACE: os.mkfifo}
            if attributes.leases:
                files[_place.OWNERS] = os.mknod
            for file, make in files.items():
                make(f"{path}/{file}")
                os.chmod(f"{path}/{file}", 0o600)  # the umask may have cleared bits
            _make_database(path, name, attributes)
            os.fsync(lock)
            return _published(directory, name, target)
        except BaseException as error:
            link = _place.link_of(directory, name)
            if _place.target_of(link) == target:
                os.unlink(link)
            _place.remove(path)
            if isinstance(error, FileExistsError):
                raise QueueExists from error
            raise


def _published(directory: str, name: str, target: str) -> Channel:
    channel = _opened(_place.link_of(directory, name), f"{directory}/{target}")
    try:
        _place.publish(directory, name, target)
    except BaseException:
        channel.close()
        raise
    return channel


def _make_database(path: str, name: str, attributes: Attributes) -> None:
    database = f"{path}/{_place.DATABASE}"
    values = (
        name,
        attributes.max_messages,
        attributes.max_message_size,
        attributes.buffer_size,
        attributes.priorities,
        attributes.leases,
        attributes.max_deliveries,
        attributes.options["durability"],
        attributes.mode,
    )
    check_descriptors()
    # No fork meanwhile, which would copy the connection.
    with no_fork:
        with BriefFile(database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600) as descriptor:
            os.fchmod(descriptor, attributes.mode)  # the umask may have cleared bits
        try:
            with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
                connection.execute("PRAGMA synchronous = OFF")  # it is written to the disk as a whole
                connection.executescript(_schema.creation(attributes.leases))
                connection.execute(_schema.MADE, values)
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            reraise_from_handler(error)
            raise explained_error(error, path) from error
        # After the connection is closed, because closing a descriptor releases the process's locks of the file.
        with BriefFile(database, os.O_RDONLY | os.O_CLOEXEC) as descriptor:
            os.fsync(descriptor)


def attach(directory: str, name: str, request: Request) -> Channel:
    with translated(_place.ERRORS):
        link = _place.link_of(directory, name)
        target = _place.target_of(link)
        if target is None:
            raise QueueNotFound
        path = f"{directory}/{target}"
        try:
            for each in (link, path):
                check_owner(os.lstat(each).st_uid, request)
            return _opened(link, path)
        except (MessageQueueError, OSError) as error:
            reraise_from_handler(error)
            if _place.target_of(link) != target:  # it was unlinked meanwhile
                raise QueueNotFound from error
            if missing := _place.missing_file(path):
                raise CorruptQueue(f"its file {path}/{missing} is gone: unlink and recreate the queue") from error
            raise


def _opened(link: str, path: str) -> Channel:
    database = Database(path)
    belongs(database)  # from here on forks close the connection first
    try:
        attributes = _read_made(path, database)
        leases = attributes.leases
        capabilities = replace(
            CAPABILITIES,
            persistence=DURABILITIES[attributes.options["durability"]],
            priorities=attributes.priorities,
            leases=leases,
            death_notice=leases,
            delays=leases,
        )
        kind = SqliteLeaseChannel if leases else SqliteChannel
        return kind(link, path, database, attributes, capabilities)
    except BaseException:
        database.close()
        raise


def _read_made(path: str, database: Database) -> Attributes:
    ((application, version),) = _rows(database, _schema.READ_VERSION)
    if application != _schema.APPLICATION_ID:
        raise CorruptQueue(f"{path}/{_place.DATABASE} is not a database of ipcq: unlink and recreate the queue")
    if version != _schema.VERSION:
        raise VersionMismatch(
            f"its database has version {version}, and this ipcq needs {_schema.VERSION}: "
            "take its messages out with the version of ipcq that created it, then unlink it"
        )
    made = _rows(database, _schema.READ_MADE)
    if len(made) != 1:
        raise CorruptQueue
    messages, size, buffer, priorities, leases, most_deliveries, durability, mode = made[0]
    if durability not in DURABILITIES:
        raise CorruptQueue
    return Attributes(
        mode=mode,
        max_messages=messages,
        max_message_size=size,
        buffer_size=buffer,
        priorities=bool(priorities),
        leases=bool(leases),
        max_deliveries=most_deliveries,
        options={"durability": durability},
    )


def _rows(database: Database, statement: str) -> list[Any]:
    (rows,) = database.sure(database.read(LONG_PATIENCE, (statement, ())))
    return rows
