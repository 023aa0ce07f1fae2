"""Queues in SQLite whose files somebody has removed or damaged by hand, and names that look like files."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from backends import sqlite
from backends.sqlite import NAME, USES, attach, create, path_of
from ipcq.backend import Channel, Request
from ipcq.errors import CorruptQueue, QueueExists, QueueGone
from ipcq_sqlite import SqliteBackend, _place, _schema

backend = sqlite.backend

#: A name that is also a token.
TOKEN_NAME = "/.ipcq-" + "0" * 32


def make_old(directory: Path) -> None:
    """Let each directory be old enough for a leftover."""
    old = time.time() - 60
    for entry in directory.iterdir():
        if not entry.is_symlink():
            os.utime(entry, (old, old))


def test_a_queue_whose_name_looks_like_a_token_is_no_leftover(backend: SqliteBackend, tmp_path: Path) -> None:
    """C4: creating another queue removes neither its name nor its messages."""
    with closing(backend.create(TOKEN_NAME, Request())) as channel:
        channel.try_put(b"x", 0)
    make_old(tmp_path)
    assert [entry for entry in _place.leftovers(str(tmp_path)) if not (tmp_path / entry).is_dir()] == []
    with create(backend), closing(backend.attach(TOKEN_NAME, Request())) as channel:
        assert channel.try_get() == (b"x", 0)


def test_a_name_that_looks_like_a_token_is_not_reported(backend: SqliteBackend, tmp_path: Path) -> None:
    """C19: doctor would advise to remove it."""
    with closing(backend.create(TOKEN_NAME, Request())):
        assert _place.leftovers(str(tmp_path)) == []


@pytest.mark.parametrize("leases", [False, True], ids=["plain", "leases"])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_queue_without_its_directory_is_gone(
    backend: SqliteBackend, use: Callable[[Channel], object], leases: bool
) -> None:
    """C4: no put succeeds whose message nobody can ever get, though the name is still there."""
    with create(backend, leases=leases) as channel:
        shutil.rmtree(path_of(backend))
        with pytest.raises(QueueGone):
            use(channel)


@pytest.mark.parametrize("leases", [False, True], ids=["plain", "leases"])
@pytest.mark.parametrize("file", [_place.DATABASE, _place.MESSAGES, _place.SPACE])
def test_a_queue_without_a_file_is_corrupt(backend: SqliteBackend, file: str, leases: bool) -> None:
    """C18: the error names the file, none is created in its place, and the way out works."""
    create(backend, leases=leases).__enter__().close()
    (path_of(backend) / file).unlink()
    with pytest.raises(CorruptQueue, match=f"/{file} is gone: unlink and recreate"):
        backend.attach(NAME, Request())
    assert not (path_of(backend) / file).exists()
    with pytest.raises(QueueExists):
        backend.create(NAME, Request())
    backend.unlink(NAME)
    with create(backend):
        pass


def test_a_file_that_cannot_be_looked_for_may_be_there(tmp_path: Path) -> None:
    """C18: only a file that is certainly missing is reported."""
    (tmp_path / "loop").symlink_to("loop")
    assert _place.missing_file(str(tmp_path / "loop")) == ""


def test_a_schema_that_is_not_utf8_is_corrupt(backend: SqliteBackend) -> None:
    """C28: SQLite's error quotes the schema, and Python cannot decode the error."""
    create(backend).__enter__().close()
    database = path_of(backend) / "db"
    raw = database.read_bytes()
    assert b"DEFAULT 0" in raw
    database.write_bytes(raw.replace(b"DEFAULT 0", b"DEFAULT\x9d0"))
    with pytest.raises(CorruptQueue, match=r"\.recover"), attach(backend) as channel:
        channel.try_put(b"x", 0)


def test_a_clock_that_is_no_text_is_corrupt(backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """C28: a damaged page can hold what SQLite would not store."""
    create(backend, leases=True).__enter__().close()
    monkeypatch.setattr(_schema, "READ_CLOCK", "SELECT 7")
    with pytest.raises(CorruptQueue):
        backend.attach(NAME, Request())
