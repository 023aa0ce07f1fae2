"""Signal handlers that raise in the middle of opening and closing a queue in SQLite."""

import os
import select
from typing import Any

import pytest

from backends import sqlite
from backends.sqlite import attach, create
from ipcq_sqlite import SqliteBackend, _database

backend, queue = sqlite.backend, sqlite.queue


class Interrupted(BaseException):
    """What a signal handler raises."""


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
