"""C28: no two processes meet SQLite's WAL-reset bug, because none can commit during a checkpoint of another."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle
from typing import Any

import pytest

from backends import sqlite
from backends.interruptions import Interruption
from backends.sqlite import create, locked, path_of, run
from ipcq.backend import Channel
from ipcq.errors import MessageQueueError
from ipcq_sqlite import SqliteBackend, _database, _place

backend, queue = sqlite.backend, sqlite.queue

JOURNAL = _database._JOURNAL_BYTES
MEGABYTE = bytes(1_000_000)

#: Prints whether another process can write.
TRY = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    connection.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
else:
    print("can write")
connection.close()
"""


def journal_bytes(backend: SqliteBackend) -> int:
    """Return the size of the journal."""
    return (path_of(backend) / "db-wal").stat().st_size


class Second(sqlite3.Connection):
    """A second connection that tells a test of its checkpoints."""

    made: list["Second"]
    copied: list[tuple[int, int, int]]
    around: Callable[[], object]

    def __new__(cls, *arguments: Any, **options: Any) -> "Second":
        made = super().__new__(cls, *arguments, **options)
        cls.made.append(made)
        return made

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        type(self).around()
        cursor = super().execute(*arguments)
        type(self).copied.append(cursor.fetchone())
        type(self).around()
        return cursor

    def is_closed(self) -> bool:
        try:
            super().execute("SELECT 1")
        except sqlite3.ProgrammingError:  # or never opened
            return True
        return False


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Second]]:
    """Watch the connections that make checkpoints."""
    Second.made, Second.copied, Second.around = [], [], lambda: None
    monkeypatch.setattr(sqlite3, "Connection", Second)
    yield Second
    assert all(each.is_closed() for each in Second.made)


def write_much(backend: SqliteBackend, queue: Channel, size: int = JOURNAL) -> None:
    """Make the journal longer than this."""
    uses = cycle((lambda: queue.try_put(MEGABYTE, 0), queue.try_get))
    while journal_bytes(backend) <= size:
        assert next(uses)()


def test_a_checkpoint_copies_the_whole_journal(backend: SqliteBackend, queue: Channel, second: type[Second]) -> None:
    """C28: the next write begins it anew, at its usual length."""
    write_much(backend, queue)
    ((busy, pages, copied),) = second.copied
    assert (busy, copied) == (0, pages)
    assert pages > JOURNAL // 5000
    assert queue.try_put(b"item", 0)
    assert journal_bytes(backend) == JOURNAL


def test_no_process_can_write_during_a_checkpoint(backend: SqliteBackend, queue: Channel, second: type[Second]) -> None:
    """C28: not before its first step, and not after its last one."""
    answers = []
    second.around = lambda: answers.append(run(TRY, str(path_of(backend) / "db")))
    write_much(backend, queue)
    assert answers == ["database is locked\n"] * 2
    assert run(TRY, str(path_of(backend) / "db")) == "can write\n"


def test_a_commit_makes_no_checkpoint(queue: Any) -> None:
    """C28: there the connection holds no lock."""
    assert queue._database.read(0.1, ("PRAGMA wal_autocheckpoint", ())) == [[(0,)]]


def test_a_checkpoint_waits_for_no_lock(backend: SqliteBackend, queue: Any, second: type[Second]) -> None:
    """C28: a later write makes it."""
    shorten = queue._database._shorten_journal

    def shorten_while_locked() -> None:
        with locked(backend):
            shorten()

    queue._database._shorten_journal = shorten_while_locked
    write_much(backend, queue)
    assert not second.copied
    queue._database._shorten_journal = shorten
    assert queue.try_put(b"item", 0)
    assert len(second.copied) == 1


def failing() -> None:
    """Fail as a checkpoint on a full disk does."""
    raise sqlite3.OperationalError("database or disk is full")


def test_a_failed_checkpoint_fails_no_write(backend: SqliteBackend, queue: Channel, second: type[Second]) -> None:
    """C28: the message is stored; the next try follows when the journal has grown as much again."""
    second.around = failing
    write_much(backend, queue)
    assert len(second.made) == 1
    assert queue.try_put(b"item", 0)
    assert len(second.made) == 1
    write_much(backend, queue, journal_bytes(backend) + JOURNAL)
    assert len(second.made) == 2


def test_a_journal_that_is_gone_needs_no_checkpoint(queue: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    """C28: another program may have removed it."""
    monkeypatch.setattr(_place, "JOURNAL", "missing")
    assert queue.try_put(b"item", 0)


# Signals and finalisers


@pytest.mark.once  # CPython 3.12.1 crashes if a trace function raises while coverage is measured
@pytest.mark.parametrize("condition", ["free", "locked", "failing"])
def test_no_interruption_of_a_checkpoint_leaves_a_connection_or_a_lock(
    backend: SqliteBackend, queue: Any, second: type[Second], condition: str
) -> None:
    """C28: whichever step a signal handler raises at."""
    write_much(backend, queue)
    database, interrupt, places = queue._database, Interruption(), []
    if condition == "failing":
        second.around = failing

    def checkpoint() -> None:
        with suppress(MessageQueueError):
            database._patiently(0.0, tuple, database._checkpoint)

    while not places or places[-1]:
        if condition == "locked":
            with locked(backend):
                places.append(interrupt(checkpoint))
        else:
            places.append(interrupt(checkpoint))
        assert all(each.is_closed() for each in second.made), places[-1]
        assert not database._executing, places[-1]
        assert not database._connection.in_transaction, places[-1]
        with locked(backend):
            pass
    assert len(places) > 10


def test_a_fork_during_a_checkpoint_is_refused(backend: SqliteBackend, queue: Any, second: type[Second]) -> None:
    """C35: a finaliser may fork there, and the child would have both connections."""
    refused = []

    def fork() -> None:
        with pytest.raises(MessageQueueError, match="finaliser forked") as caught:
            queue.before_fork()
        refused.append(caught)

    second.around = fork
    write_much(backend, queue)
    assert len(refused) == 2


def test_a_finalisers_put_during_a_checkpoint_is_stored(
    backend: SqliteBackend, queue: Any, second: type[Second]
) -> None:
    """C28: it does not wait for the lock that its own thread holds."""
    put = []
    second.around = lambda: put.append(queue.try_put(b"item", 0))
    write_much(backend, queue)
    assert put == [True, True]
    assert [data for data, _ in queue.try_get_many(9)][-2:] == [b"item"] * 2


# The length of the journal

#: Puts and gets messages, in processes that follow one another.
WRITE = """
import os, sys
from ipcq.backend import Request
from ipcq_sqlite import SqliteBackend
place, verbs, messages, processes = sys.argv[1], sys.argv[2].split(), int(sys.argv[3]), int(sys.argv[4])
for _ in range(processes):
    if os.fork():
        assert os.wait()[1] == 0
        continue
    queue = SqliteBackend(place).attach("/jobs", Request())
    for _ in range(messages):
        while "put" in verbs and not queue.try_put(bytes(1_000_000), 0):
            pass
        while "get" in verbs and queue.try_get() is None:
            pass
    queue.close()
    os._exit(0)
"""


@pytest.mark.parametrize(
    "programs", [[("put", "30", "1"), ("get", "30", "1")], [("put get", "1", "20")]], ids=["pair", "short"]
)
def test_the_journal_stays_short(backend: SqliteBackend, programs: list[tuple[str, ...]]) -> None:
    """C28: with a busy producer and a busy consumer, and with many processes of one message each."""
    with create(backend, options={"durability": "normal"}):
        commands = [[sys.executable, "-c", WRITE, backend._place(), *arguments] for arguments in programs]
        running, longest = list(map(subprocess.Popen, commands)), 0
        while any(each.poll() is None for each in running):
            longest = max(longest, journal_bytes(backend))
        assert [each.returncode for each in running] == [0] * len(running)
    assert JOURNAL <= longest < 3 * JOURNAL
