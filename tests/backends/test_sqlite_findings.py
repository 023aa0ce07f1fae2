"""What `ipcq doctor` says of queues in SQLite."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from backends import sqlite
from backends.sqlite import NAME, holding, path_of
from ipcq.backend import Channel, Severity
from ipcq_sqlite import SqliteBackend, _findings, _place

backend, queue = sqlite.backend, sqlite.queue


def texts(backend: SqliteBackend) -> list[str]:
    return [each.text for each in backend.findings()]


def test_the_free_space_is_told(backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: little space is a warning."""
    (found,) = backend.findings()
    assert (found.severity, "MiB free" in found.text) == (Severity.NOTE, True)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: (1 << 30, 1 << 30, 1 << 20))
    (found,) = backend.findings()
    assert (found.severity, found.text.endswith("has 1 of 1024 MiB free")) == (Severity.WARNING, True)
    assert "du -sh" in found.fix


def test_a_directory_that_can_have_no_queues_is_told(backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: with the text of the error that an open would raise."""
    directory = backend._place()
    monkeypatch.setattr(_place, "file_system", lambda _: "nfs")
    (found,) = backend.findings()
    assert (found.severity, "network file system (nfs)" in found.text) == (Severity.ERROR, True)
    os.rmdir(directory)
    (found,) = backend.findings()
    assert (found.severity, found.text) == (Severity.ERROR, f"{directory} is no directory: mkdir -p {directory}")


def test_a_default_place_without_queues_needs_no_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """C24: the first queue creates it."""
    monkeypatch.setattr(_place, "default", lambda: str(tmp_path / "missing"))
    assert SqliteBackend().findings() == []


def test_a_healthy_queue_is_no_finding(backend: SqliteBackend, queue: Channel) -> None:
    """Clause 19: open or closed."""
    assert len(texts(backend)) == 1
    queue.close()
    assert len(texts(backend)) == 1


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_a_process_that_blocks_others_is_told(backend: SqliteBackend, queue: Channel, stopped: bool) -> None:
    """C11: stopped, or of another program that does not write."""
    with holding(backend, stopped=stopped) as pid:
        (_, found) = backend.findings()
        assert f"process {pid}" in found.text
        assert repr(NAME) in found.text
        assert found.fix == (f"kill -CONT {pid}" if stopped else "")


@pytest.mark.parametrize("change", ["writes", "leaves"])
def test_a_process_at_work_is_no_finding(
    backend: SqliteBackend, queue: Channel, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C11: it holds the lock by chance."""
    with holding(backend):

        def sleep(_: float) -> None:
            if change == "writes":
                os.utime(path_of(backend) / "db-wal", (1, 1))
            else:
                monkeypatch.setattr(_findings, "holder_of", lambda *_: None)

        monkeypatch.setattr(_findings.time, "sleep", sleep)
        assert len(texts(backend)) == 1


def test_a_large_journal_is_told(backend: SqliteBackend, queue: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: it only grows while another process reads."""
    queue.try_put(b"item", 0)
    monkeypatch.setattr(_findings, "_LARGE_JOURNAL", 1000)
    (_, found) = backend.findings()
    assert "journal" in found.text
    assert "fuser" in found.fix


def test_a_queue_that_goes_is_no_finding(
    backend: SqliteBackend, queue: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 19: while doctor looks."""

    def gone(*_: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(_findings.os.path, "exists", gone)
    assert len(texts(backend)) == 1
