"""Whether a process is changing the index of SQLite's journal."""

import os
from pathlib import Path
from typing import Any

import pytest

from backends import sqlite
from backends.sqlite import attach, change_index, holding, path_of
from ipcq_sqlite import SqliteBackend
from ipcq_sqlite._index import index_of, is_changing

backend, queue = sqlite.backend, sqlite.queue


@pytest.fixture
def index(backend: SqliteBackend, queue: Any) -> int:
    """Return the descriptor of the queue's index."""
    found = index_of(str(path_of(backend)))
    assert found is not None
    return found


def test_the_descriptor_is_that_of_sqlite(backend: SqliteBackend, index: int) -> None:
    """No other one may ever be closed: the locks of the process would go with it."""
    assert os.path.samefile(f"/proc/self/fd/{index}", path_of(backend) / "db-shm")


def test_a_connection_that_has_not_opened_its_index_has_none(tmp_path: Path) -> None:
    """So has one where /proc is not mounted: SQLite waits inside, then."""
    assert index_of(str(tmp_path)) is None
    (tmp_path / "db-shm").touch()  # by another process
    assert index_of(str(tmp_path)) is None


def test_a_descriptor_that_goes_meanwhile_is_not_the_one(
    backend: SqliteBackend, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may close files."""
    gone = os.dup(0)
    os.close(gone)
    monkeypatch.setattr(os, "listdir", lambda _: [str(gone), str(index)])
    assert index_of(str(path_of(backend))) == index


def test_the_index_of_a_process_that_is_inside_is_changing(backend: SqliteBackend, index: int) -> None:
    """C11: it may be stopped there."""
    assert not is_changing(index)
    with holding(backend, stopped=True):
        assert not is_changing(index)  # before the change
        change_index(backend)
        assert is_changing(index)


def test_the_index_of_a_killed_process_is_repaired(backend: SqliteBackend, queue: Any, index: int) -> None:
    """C10: nobody changes it any more, so the next call does not wait."""
    with holding(backend):
        change_index(backend)
    assert not is_changing(index)
    assert queue.try_put(b"item", 0)
    assert queue.try_get() == (b"item", 0)


def test_a_thread_of_this_process_is_seen_inside(backend: SqliteBackend, queue: Any, index: int) -> None:
    """C11: a lock of the same process conflicts with it too."""
    with attach(backend) as other:
        connection = other._database._connected()
        connection.execute("BEGIN IMMEDIATE")
        change_index(backend)
        assert is_changing(index)
        connection.execute("ROLLBACK")


def test_a_closed_descriptor_tells_nothing() -> None:
    """A signal handler may have forked, which closes the connection."""
    gone = os.dup(0)
    os.close(gone)
    assert not is_changing(gone)
