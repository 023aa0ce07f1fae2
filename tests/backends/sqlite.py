"""Fixtures and helpers for the tests of sqlite: queues in a directory of their own, and access to their files.

pytest looks for fixtures in the module of a test, so each test file assigns the fixtures that it uses.
"""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ipcq.backend import Channel, LeaseChannel, Request
from ipcq_sqlite import SqliteBackend

if sys.platform != "linux":
    pytest.skip("the backend works only on linux", allow_module_level=True)

from ipcq_sqlite import _place
from ipcq_sqlite._index import index_of

NAME = "/jobs"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount: run the tests as root")


#: The counter of changes in the second header of the index (WalIndexHdr in wal.c).
_COUNTER_AT = 48 + 8


@pytest.fixture
def backend(tmp_path: Path) -> SqliteBackend:
    """Return the backend with an empty directory for its queues."""
    return SqliteBackend(str(tmp_path))


@pytest.fixture
def queue(backend: SqliteBackend) -> Iterator[Channel]:
    """Return a channel to a new queue."""
    with create(backend) as channel:
        yield channel


@pytest.fixture
def jobs(backend: SqliteBackend) -> Iterator[LeaseChannel]:
    """Return a channel to a new queue with leases."""
    with create(backend, leases=True) as channel:
        assert isinstance(channel, LeaseChannel)
        yield channel


@contextmanager
def create(backend: SqliteBackend, **request: Any) -> Iterator[Any]:
    with closing(backend.create(NAME, Request(**request))) as channel:
        yield channel


@contextmanager
def attach(backend: SqliteBackend, **request: Any) -> Iterator[Any]:
    with closing(backend.attach(NAME, Request(**request))) as channel:
        yield channel


def path_of(backend: SqliteBackend) -> Path:
    """Return the directory of the queue."""
    place = backend._place()
    return Path(place) / str(_place.target_of(_place.link_of(place, NAME)))


def execute(backend: SqliteBackend, *statements: str) -> None:
    """Change the database behind the queue's back."""
    with closing(sqlite3.connect(path_of(backend) / "db", isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@contextmanager
def holding(backend: SqliteBackend, *, stopped: bool = False) -> Iterator[int]:
    """Let another process hold the write lock, and yield its process id."""
    stop = "os.kill(os.getpid(), signal.SIGSTOP)" if stopped else "sys.stdin.read()"
    script = f"""
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
{stop}
"""
    command = [sys.executable, "-c", script, str(path_of(backend) / "db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "held\n"
        if stopped:
            os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            yield program.pid
        finally:
            program.kill()


def change_index(backend: SqliteBackend) -> None:
    """Begin to change the index of the journal, as a process does that is stopped inside (walIndexWriteHdr in wal.c).

    It holds the write lock. Its index begins with two copies of a header, which differ until the change is complete.
    """
    index = index_of(str(path_of(backend)))
    assert index is not None
    (counter,) = os.pread(index, 1, _COUNTER_AT)
    os.pwrite(index, bytes([counter ^ 1]), _COUNTER_AT)


@contextmanager
def locked(backend: SqliteBackend) -> Iterator[None]:
    """Hold the write lock."""
    with closing(sqlite3.connect(path_of(backend) / "db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


USES: dict[str, Callable[[Channel], object]] = {
    "put": lambda queue: queue.try_put(b"x", 0),
    "put_many": lambda queue: queue.try_put_many([b"x", b"y"]),
    "get": lambda queue: queue.try_get(),
    "get_many": lambda queue: queue.try_get_many(2),
    "put_dropping": lambda queue: queue.try_put_dropping(b"x", 0),
    "get_latest": lambda queue: queue.try_get_latest(),
    "peek": lambda queue: queue.peek(),
    "qsize": lambda queue: queue.qsize(),
    "full": lambda queue: queue.full(),
    "clear": lambda queue: queue.clear(),
    "stats": lambda queue: queue.stats(),
}


def run(script: str, *arguments: str, seconds: float = 60.0) -> str:
    """Run a program in Python, and return what it printed."""
    command = [sys.executable, "-c", script, *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def fill_disk(directory: Path) -> Path:
    """Fill the file system of a directory, and return the file to remove."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast
