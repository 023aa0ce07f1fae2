"""Signal handlers that raise in the middle of opening and closing a queue in SQLite."""

import gc
import os
import select
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from backends import sqlite
from backends.interruptions import Interrupted, Interruption
from backends.sqlite import NAME, attach, create
from ipcq.backend import Request, no_fork
from ipcq.errors import QueueNotFound
from ipcq_sqlite import SqliteBackend, _database, _place

backend, queue = sqlite.backend, sqlite.queue


def test_an_interrupted_close_keeps_no_descriptor(backend: SqliteBackend) -> None:
    """C16: the FIFOs are closed, too."""
    create(backend, leases=True).__enter__().close()
    before = len(os.listdir("/proc/self/fd"))
    with attach(backend) as channel:
        close = channel._database.close

        def interrupted() -> None:
            close()
            raise Interrupted

        channel._database.close = interrupted
        with pytest.raises(Interrupted):
            channel.close()
        assert len(os.listdir("/proc/self/fd")) == before
        channel._database.close = close


def test_an_interrupted_look_for_descriptors_keeps_none(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C16: not even those that it opened to see whether there are enough."""
    before = len(os.listdir("/proc/self/fd"))
    calls = iter(range(9))

    def interrupted() -> select.epoll:
        if next(calls) == 3:
            raise Interrupted
        return select.epoll()

    monkeypatch.setattr(_database, "original", lambda *_: interrupted)
    with pytest.raises(Interrupted):
        _database.check_descriptors()
    assert len(os.listdir("/proc/self/fd")) == before


def open_files() -> list[str]:
    """Return the files that this process has open."""
    files = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor of the directory itself
            files.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return sorted(files)


@pytest.mark.once  # CPython 3.12.1 crashes if a trace function raises while coverage is measured
@pytest.mark.parametrize("verb", ["create", "attach"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # raised in finalisers
def test_no_interruption_leaves_a_descriptor_open(
    backend: SqliteBackend, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C16: whichever step of opening and closing a signal handler raises at."""
    monkeypatch.setattr(os, "fsync", id)  # does nothing, faster
    request = Request(leases=True)
    with create(backend, leases=True):
        pass

    def open_and_close() -> None:
        if verb == "create":
            backend.create("/other", request).close()
        else:
            backend.attach(NAME, request).close()

    def clean_up() -> None:
        with suppress(QueueNotFound):
            backend.unlink("/other")
        for leftover in _place.leftovers(str(place)):
            shutil.rmtree(place / leftover)

    place, interrupt, leaks = Path(backend._place()), Interruption(), []
    open_and_close()
    clean_up()
    gc.collect()
    gc.freeze()  # so that the next ones take no time
    expected = open_files()
    where = "not yet"
    count = 0
    while where:
        where = interrupt(open_and_close)
        count += 1
        gc.collect()
        if (files := open_files()) != expected:
            leaks.append((where, *(set(files) - set(expected))))
            expected = files
        clean_up()
    gc.unfreeze()
    assert not leaks
    assert count > 100
    with pytest.raises(RuntimeError):  # nor a lock held
        no_fork.release()
