"""C12: a take that found nothing needs no lock the next time, and misses nothing."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from backends import sqlite
from backends.sqlite import attach, create, locked
from ipcq.backend import LeaseChannel
from ipcq.errors import QueueGone, QueueShutDown
from ipcq_sqlite import SqliteBackend, _fifo

backend, jobs = sqlite.backend, sqlite.jobs

TAKES: dict[str, Callable[[Any], object]] = {
    "get": lambda queue: queue.try_get(),
    "get_leases": lambda queue: queue.try_get(),
    "lease": lambda queue: queue.try_lease(1, None),
}


@pytest.fixture(params=TAKES)
def verb(request: pytest.FixtureRequest) -> str:
    """Return what takes a message."""
    return str(request.param)


@pytest.fixture
def polled(backend: SqliteBackend, verb: str) -> Any:
    """Return a channel whose last take found nothing."""
    with create(backend, leases=verb != "get") as channel:
        assert not TAKES[verb](channel)
        yield channel


def test_an_empty_queue_is_polled_without_the_lock(
    backend: SqliteBackend, polled: Any, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C12: a producer that holds it is not disturbed."""
    if verb != "get":
        monkeypatch.setattr(polled._owners, "is_time", lambda: False)
    with locked(backend):
        assert not TAKES[verb](polled)
    assert not polled._database._busy_since


def test_a_message_is_found_though_the_fifo_is_silent(backend: SqliteBackend, polled: Any, verb: str) -> None:
    """C12: a process may have been killed between emptying it and its commit."""
    with attach(backend) as other:
        assert other.try_put(b"item", 0)
    _fifo.silence(polled._messages)
    assert TAKES[verb](polled)


def test_a_shutdown_is_found_though_the_fifo_is_silent(backend: SqliteBackend, polled: Any, verb: str) -> None:
    """C12: it ends the queue at once."""
    with attach(backend) as other:
        other.shutdown(False)
    _fifo.silence(polled._messages)
    with pytest.raises(QueueShutDown):
        TAKES[verb](polled)


def test_an_unlink_is_found_though_the_fifo_is_silent(backend: SqliteBackend, polled: Any, verb: str) -> None:
    """C17: a take from an unlinked queue raises, and does not poll forever."""
    backend.unlink("/jobs")
    _fifo.silence(polled._messages)
    with pytest.raises(QueueGone):
        TAKES[verb](polled)


def poll(jobs: LeaseChannel) -> None:
    """Lease a message without waiting, again and again; the test's timeout ends it."""
    while not jobs.try_lease(2, None):
        pass


def test_the_end_of_a_delay_is_found(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C38: nobody else may be there to end it."""
    monkeypatch.setattr(jobs._owners, "is_time", lambda: False)
    assert jobs.try_put_delayed(b"item", 0, 0.2)
    assert not jobs.try_lease(1, None)
    _fifo.silence(jobs._messages)
    poll(jobs)


LEASE = """
import sys
from ipcq.backend import Request
from ipcq_sqlite import SqliteBackend
queue = SqliteBackend(sys.argv[1]).attach("/jobs", Request())
print(queue.try_lease(1, None).data, flush=True)
sys.stdin.read()
"""


def test_the_death_of_a_holder_is_found(backend: SqliteBackend, jobs: LeaseChannel) -> None:
    """C37: nobody else may be there to find it."""
    assert jobs.try_put(b"item", 0)
    command = [sys.executable, "-c", LEASE, backend._place()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"b'item'\n"
        assert not jobs.try_lease(1, None)
        holder.kill()
    poll(jobs)
