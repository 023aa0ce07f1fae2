"""What is particular to a queue in SQLite: its files, how waits end, forks, and calls inside calls."""

import gc
import os
import select
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends import sqlite
from backends.sqlite import NAME, attach, create, path_of
from ipcq.backend import Channel, Request
from ipcq.errors import MessageQueueError, QueueGone, QueueShutDown, TimedOutError
from ipcq_sqlite import SqliteBackend, _database, _fifo, _place

backend, queue = sqlite.backend, sqlite.queue


# Files


@pytest.mark.parametrize("umask", [0, 0o777])
@pytest.mark.parametrize("leases", [False, True])
def test_the_files_are_closed_to_others(backend: SqliteBackend, leases: bool, umask: int) -> None:
    """C27: whatever the umask."""
    before = os.umask(umask)
    try:
        with create(backend, leases=leases) as channel:
            channel.try_put(b"item", 0)
            path = path_of(backend)
            modes = {each.name: each.stat().st_mode & 0o777 for each in (path, *path.iterdir())}
    finally:
        os.umask(before)
    assert modes.pop(path.name) == 0o700
    assert set(modes.values()) == {0o600}
    assert {"db", "db-wal", "db-shm", "messages", "space", *(["owners"] if leases else [])} == modes.keys()


def test_a_queue_has_the_name_of_its_link(backend: SqliteBackend, queue: Channel, tmp_path: Path) -> None:
    """C18: so an operator finds its database."""
    assert (tmp_path / "jobs").resolve() == path_of(backend)
    assert backend.names() == [NAME]


def test_an_unlinked_queue_leaves_no_file(backend: SqliteBackend, queue: Channel, tmp_path: Path) -> None:
    """C17: even while it is open."""
    backend.unlink(NAME)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(QueueGone):
        queue.try_put(b"item", 0)


def test_what_a_killed_creator_left_is_removed(backend: SqliteBackend, tmp_path: Path) -> None:
    """C16: by the next creator, unless it is new or somebody is making it."""
    old, new = tmp_path / (".ipcq-" + "0" * 32), tmp_path / (".ipcq-" + "1" * 32)
    for leftover in (old, new):
        leftover.mkdir()
    os.utime(old, (1, 1))
    with create(backend):
        assert not old.exists()
        assert new.exists()
        assert [each.text.split()[0] for each in backend.findings()[1:]] == [str(new)]


def test_a_queue_is_no_leftover(backend: SqliteBackend) -> None:
    """C16: however old it is."""
    with create(backend) as channel:
        os.utime(path_of(backend), (1, 1))
        _place.remove_leftover(backend._place(), path_of(backend).name)
        assert channel.try_put(b"item", 0)


@pytest.mark.parametrize("step", ["publish", "synced"])
def test_an_unfinished_queue_leaves_nothing(
    backend: SqliteBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """C16: whatever fails, before and after the queue has its name."""

    def fail(*_: object) -> None:
        raise OSError(5, "it failed")

    monkeypatch.setattr(_place, step, fail)
    with pytest.raises(MessageQueueError):
        backend.create(NAME, Request())
    assert list(tmp_path.iterdir()) == []


# Waiting


def test_another_processs_put_ends_a_wait_at_once(backend: SqliteBackend, queue: Channel) -> None:
    """C13: not at the end of a slice; ten times a few milliseconds, and the time to be scheduled."""
    times = []
    script = """
import sys, time
from ipcq.backend import Request
from ipcq_sqlite import SqliteBackend
queue = SqliteBackend(sys.argv[1]).attach("/jobs", Request())
for _ in range(5):
    time.sleep(0.2)
    queue.try_put(repr(time.monotonic()).encode(), 0)
"""
    putter = threading.Thread(target=sqlite.run, args=(script, backend._place()))
    putter.start()
    for _ in range(5):
        while (taken := queue.try_get()) is None:
            queue.wait_readable(0.0, time.monotonic() + 5.0)
        times.append(time.monotonic() - float(taken[0]))
    putter.join()
    assert min(times) < 0.05


def test_an_idle_wait_runs_nothing(queue: Channel) -> None:
    """C13: no polling: the wait is one system call."""
    used = time.thread_time()
    queue.wait_readable(0.0, time.monotonic() + 0.5)
    queue.wait_writable(1, 0.0, time.monotonic() + 0.5)
    assert time.thread_time() - used < 0.05


def test_a_get_ends_a_wait_for_space(backend: SqliteBackend) -> None:
    """C13: and each producer that has found space wakes another."""
    with create(backend, max_messages=2, max_message_size=8) as full, attach(backend) as other:
        assert full.try_put_many([b"1", b"2", b"3"]) == 2
        waiting = threading.Thread(target=full.wait_writable, args=(1, 0.0, time.monotonic() + 20))
        waiting.start()
        began = time.monotonic()
        other.try_get()
        waiting.join()
        assert time.monotonic() - began < 10
        other.try_get()
        full.wait_writable(1, 0.0, 0.0)
        assert full.try_put(b"3", 0)
        assert _fifo.is_ringing(other._space)
        full.wait_writable(1, 0.0, time.monotonic() + 20)
        assert not _fifo.is_ringing(other._space)


def test_space_for_bytes_ends_a_wait(backend: SqliteBackend) -> None:
    """C13: if a message of the largest size would not have fitted before."""
    with create(backend, buffer_size=100, max_message_size=60) as channel:
        channel.try_put(bytes(30), 0)
        channel.try_get()
        assert not _fifo.is_ringing(channel._space)
        channel.try_put(bytes(50), 0)
        channel.try_get()
        assert _fifo.is_ringing(channel._space)


def test_a_fifo_forgets_nothing_that_matters(backend: SqliteBackend) -> None:
    """C13: after the last handle has closed, the next one knows whether a get would wait."""
    with create(backend) as channel:
        channel.try_put(b"item", 0)
    with attach(backend) as channel:
        assert _fifo.is_ringing(channel._messages)
        with attach(backend):
            pass
        assert channel.try_get() == (b"item", 0)
        assert channel.try_get() is None
        assert not _fifo.is_ringing(channel._messages)
    with attach(backend) as channel:
        assert not _fifo.is_ringing(channel._messages)


def test_a_full_or_an_empty_fifo_is_no_error(queue: Any) -> None:
    """C5: what is reported has happened already."""
    _fifo.silence(queue._messages)
    while select.select([], [queue._messages], [], 0)[1]:
        os.write(queue._messages, bytes(4096))
    _fifo.ring(queue._messages)
    assert _fifo.is_ringing(queue._messages)
    assert queue.try_put(b"item", 0)
    assert queue.try_get() == (b"item", 0)


def test_a_fifo_that_stays_full_is_an_error(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 11: the put that cannot wake anybody stores nothing."""
    while select.select([], [queue._messages], [], 0)[1]:
        os.write(queue._messages, bytes(4096))
    monkeypatch.setattr(_fifo, "shorten", lambda _: None)
    with pytest.raises(MessageQueueError):
        queue.try_put(b"item", 0)
    assert queue.qsize() == 0


def test_an_empty_fifo_cannot_be_shortened(queue: Any) -> None:
    """C5: another process was faster."""
    _fifo.silence(queue._messages)
    _fifo.shorten(queue._messages)


def test_whoever_empties_the_fifo_of_an_unlinked_queue_rings(backend: SqliteBackend, queue: Any) -> None:
    """C32: pollers see the end although somebody has just taken its byte."""
    descriptor = queue.fileno()
    backend.unlink(NAME)
    _fifo.silence(descriptor)
    queue._silence()
    assert _fifo.is_ringing(descriptor)


def test_polling_is_noted_once(queue: Any) -> None:
    """Clause 20: a descriptor is emptied after each get from then on."""
    assert queue.fileno() == queue.fileno()
    assert queue._state().polled
    queue.try_put(b"item", 0)
    queue.try_get()
    assert not _fifo.is_ringing(queue.fileno())


def test_an_ended_queue_stays_readable(backend: SqliteBackend, queue: Any) -> None:
    """C32: also for a handle that comes later."""
    queue.try_put(b"item", 0)
    queue.shutdown(False)
    assert queue.try_get() == (b"item", 0)
    with pytest.raises(QueueShutDown):
        queue.try_get()
    with pytest.raises(QueueShutDown):
        queue.peek()
    assert _fifo.is_ringing(queue.fileno())
    with attach(backend) as other:
        assert _fifo.is_ringing(other.fileno())


# Batches


def test_an_empty_batch_stores_nothing(queue: Any) -> None:
    """Clause 15: but tells whether the queue is shut down."""
    assert queue.try_put_many(()) == 0
    queue.shutdown(False)
    with pytest.raises(QueueShutDown):
        queue.try_put_many(())


def test_the_bytes_of_a_batch_are_limited(backend: SqliteBackend) -> None:
    """Clause 8: the part that fits is stored, and nothing behind it, although it would fit."""
    with create(backend, buffer_size=10, max_message_size=10) as channel:
        assert channel.try_put_many([b"1234", b"5678", b"90123", b"4"]) == 2
        assert channel.try_get_many(9) == [(b"1234", 0), (b"5678", 0)]
        assert channel.try_put_many([b""] * 11) == 10


def test_a_batch_of_large_messages_ends_after_a_step(backend: SqliteBackend) -> None:
    """Clause 11: so only a part of a batch is in memory twice."""
    with create(backend) as channel:
        channel.try_put_many([bytes(3 << 20)] * 4)
        assert [len(channel.try_get_many(9)) for _ in range(2)] == [3, 1]


# Signals and finalisers


def test_a_handlers_call_runs_between_transactions(queue: Channel) -> None:
    """C12: a handler may use the queue, and raise, at any moment."""

    class Stop(Exception):
        pass

    calls = done = mine = 0
    inside = False

    def handle(*_: object) -> None:
        nonlocal calls, done, inside
        calls += 1
        queue.try_put(b"handler", 0)
        done += 1
        if inside and calls % 5 == 0:
            inside = False
            raise Stop

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        while calls < 100:
            try:
                inside = True
                mine += queue.try_put(b"mine", 0)
                inside = False
            except Stop:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    found = [data for batch in iter(lambda: queue.try_get_many(1000), []) for data, _ in batch]
    assert done <= found.count(b"handler") <= calls  # another handler may have raised inside
    assert mine <= found.count(b"mine") <= mine + calls


def test_no_fork_takes_the_connection_away_from_a_statement(queue: Channel) -> None:
    """C35: a finaliser may fork while a statement is executed that is no transaction."""
    database: _database.Database = queue._database
    refused: list[str] = []

    def fork() -> int:
        with pytest.raises(MessageQueueError, match="forked inside a call") as caught:
            database.before_fork()
        refused.append(str(caught.value))
        return 1

    database._connected().create_function("fork", 0, fork)
    assert database.read(0.1, ("SELECT fork()", ())) == [[(1,)]]
    assert len(refused) == 1
    database.before_fork()  # not refused any more
    database.after_fork_in_parent()


def test_a_finalisers_call_is_part_of_the_transaction(queue: Any) -> None:
    """C12: on CPython 3.11 the garbage collector runs inside calls in C."""
    connection = queue._database._connected()
    connection.execute("BEGIN IMMEDIATE")
    assert queue.try_put(b"item", 0)
    assert connection.in_transaction
    with pytest.raises(MessageQueueError, match="finaliser forked"):
        queue.before_fork()
    connection.execute("COMMIT")
    assert queue.try_get() == (b"item", 0)


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_failed_transaction_is_rolled_back(queue: Any, interrupted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """C5: also if a handler raises while it is rolled back."""
    database = queue._database

    class Connection(sqlite3.Connection):
        left = interrupted

        def rollback(self) -> None:
            if self.left:
                self.left = False
                raise KeyboardInterrupt
            super().rollback()

    monkeypatch.setattr(_database.sqlite3, "connect", lambda *a, **k: Connection(*a, **k))
    database.close()
    steps = [("INSERT INTO messages VALUES (1, x'')", ()), ("SELECT nonsense", ())]
    with pytest.raises(KeyboardInterrupt if interrupted else MessageQueueError):
        database.write(0.1, lambda: steps)
    assert not database._connection.in_transaction
    assert queue.qsize() == 0


def test_a_wrong_statement_is_an_error(queue: Any) -> None:
    """Clause 18: one of ours."""
    with pytest.raises(MessageQueueError):
        queue._database.read(0.1, ("SELECT ?", (1, 2)))


# Forks


def in_child(act: Callable[[], object]) -> None:
    """Run a call in a forked child, and check that it succeeds."""
    child = os.fork()
    if not child:
        try:
            act()
            os._exit(0)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_connection_never_crosses_a_fork(backend: SqliteBackend) -> None:
    """C20: it is closed before, and opened again on either side."""
    import ipcq

    name = f"/fork-{os.getpid()}"
    with ipcq.open(name, "sqlite", serializer="raw", durability="normal") as handle:
        channel: Any = handle._channel
        handle.put(b"item")
        assert channel._database._connection is not None

        def act() -> None:
            assert channel._database._connection is None
            assert handle.get() == b"item"
            handle.put(b"child")

        in_child(act)
        assert channel._database._connection is None
        assert handle.get() == b"child"
        handle.unlink()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_handler_may_fork_between_two_instructions(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: the interrupted call connects again."""
    connected = queue._database._connected

    def fork_after(*_: object) -> Any:
        connection = connected()
        monkeypatch.undo()
        queue.before_fork()
        queue.after_fork_in_parent()
        return connection

    monkeypatch.setattr(queue._database, "_connected", fork_after)
    assert queue.try_put(b"item", 0)
    assert queue.try_get() == (b"item", 0)


def test_a_fork_while_a_handler_interrupts_a_connection_is_refused(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: nothing is changed, and the call goes on."""
    queue._database.close()
    connect = queue._database._connect

    def interrupted() -> Any:
        with pytest.raises(MessageQueueError, match="forked inside"):
            queue.before_fork()
        return connect()

    monkeypatch.setattr(queue._database, "_connect", interrupted)
    assert queue.try_put(b"item", 0)


def test_a_fork_waits_only_a_moment_for_a_thread(queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C20: then the child's copy of the connection is never used or closed."""
    monkeypatch.setattr(_database, "_FORK_SECONDS", 0.05)
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with queue._database._lock:
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=stay)
    thread.start()
    inside.wait(20)
    with pytest.raises(TimedOutError, match="in time for a fork"):
        queue.before_fork()
    leave.set()
    thread.join()
    connection = queue._database._connection
    queue._database.after_fork()
    _database._in_child()
    assert connection in _database._abandoned
    with pytest.raises(MessageQueueError, match="spawn"):
        queue.try_put(b"item", 0)
    assert connection.execute("SELECT 1").fetchone() == (1,)
    _database._abandoned.remove(connection)
    connection.close()


def test_an_abandoned_channel_closes_its_descriptors(backend: SqliteBackend) -> None:
    """C17: and keeps its connection, which it must not close."""
    channel: Any = backend.attach(NAME, Request()) if backend.exists(NAME) else backend.create(NAME, Request())
    descriptors = [file.fileno() for file in channel._files]
    connection = channel._database._connection
    channel.abandon()
    channel.abandon()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
    _database._abandoned.remove(connection)
    connection.close()
    gc.collect()


def test_the_locks_of_other_files_and_bytes_are_not_the_write_lock() -> None:
    """C11: as /proc/locks tells them."""
    line = "1: POSIX  ADVISORY  WRITE 4711 00:1b:32 {} {}"
    assert _database._is_write_lock(line.format(120, 120).split(), "00:1b:32")
    assert _database._is_write_lock(line.format(0, "EOF").split(), "00:1b:32")
    assert not _database._is_write_lock(line.format(121, 121).split(), "00:1b:32")
    assert not _database._is_write_lock(line.format(0, 100).split(), "00:1b:32")
    assert not _database._is_write_lock(line.format(120, 120).split(), "00:1b:33")


def test_a_queue_without_an_index_has_no_holder(tmp_path: Path) -> None:
    """C11: nobody has it open."""
    assert _database.holder_of(str(tmp_path), 0.0) is None
