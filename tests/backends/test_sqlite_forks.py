"""Forks in the middle of calls of a queue in SQLite."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from backends import sqlite
from backends.sqlite import run
from ipcq.backend import Verdict
from ipcq_sqlite import SqliteBackend

backend, queue, jobs = sqlite.backend, sqlite.queue, sqlite.jobs


@contextmanager
def fork_after_transaction(channel: Any) -> Iterator[None]:
    """Let a signal handler fork after the next transaction, before the next instruction."""
    database = channel._database
    execute = database._execute

    def interrupted(connection: Any, steps: Any) -> Any:
        rows = execute(connection, steps)
        if len(steps) > 2 and database._execute is interrupted:
            database._execute = execute
            channel.before_fork()
            channel.after_fork_in_parent()
        return rows

    database._execute = interrupted
    yield
    assert database._execute is execute


def test_a_fork_after_a_put_does_not_repeat_it(queue: Any) -> None:
    """C8: the fork has closed the connection, but the message is stored, and stored once."""
    with fork_after_transaction(queue):
        assert queue.try_put(b"item", 0)
    assert queue.qsize() == 1


def test_a_fork_after_a_get_does_not_repeat_it(queue: Any) -> None:
    """C9: no message is lost."""
    queue.try_put_many([b"a", b"b"])
    with fork_after_transaction(queue):
        assert queue.try_get() == (b"a", 0)
    assert queue.try_get() == (b"b", 0)


def test_a_fork_after_an_acknowledgement_does_not_repeat_it(jobs: Any) -> None:
    """C9: the lease is not reported as lost."""
    jobs.try_put(b"item", 0)
    assert jobs.try_lease(1, None).data == b"item"
    with fork_after_transaction(jobs):
        assert jobs.settle([1], Verdict.ACK, 0.0, b"") == []


CROSSED = """
import os, sys, threading
import ipcq
from ipcq_sqlite import _database

_database._FORK_SECONDS = 0.05
sys.unraisablehook = lambda report: print("refused:", report.exc_value, flush=True)
inside, leave = threading.Event(), threading.Event()

def stay(database):
    with database._lock:
        inside.set()
        leave.wait(20)

with ipcq.open(sys.argv[1], durability="normal") as queue:
    queue.put("parent")
    thread = threading.Thread(target=stay, args=(queue._channel._database,))
    thread.start()
    inside.wait(20)
    child = os.fork()
    if not child:
        try:
            ipcq.open(sys.argv[1]).put("child")
        except ipcq.MessageQueueError as error:
            print("child:", error, flush=True)
        os._exit(0)
    leave.set()
    thread.join()
    os.waitpid(child, 0)
with ipcq.open(sys.argv[1]) as queue:
    print("left:", queue.get_many(9, block=False))
"""


def test_a_child_does_not_open_a_database_whose_connection_crossed_the_fork(backend: SqliteBackend) -> None:
    """C17: SQLite would take the locks of the parent for its own there, and lose what it stores."""
    refused, child, left = run(CROSSED, f"{backend.name}jobs").splitlines()
    assert "in time for a fork" in refused
    assert "must not cross a fork" in child
    assert left == "left: ['parent']"
