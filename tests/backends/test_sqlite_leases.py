"""What is particular to leases of a queue in SQLite: reboots, clocks, and holders that die."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from backends import sqlite
from backends.sqlite import attach, create, execute
from ipcq.backend import HOLDER_DIED, LONGEST, Verdict
from ipcq.errors import QueueShutDown, VersionMismatch
from ipcq_sqlite import SqliteBackend, _fifo, _lease_channel, _schema

backend, jobs = sqlite.backend, sqlite.jobs


def another_boot(monkeypatch: pytest.MonkeyPatch, seconds: float = 1000.0) -> None:
    """Let the monotonic clock begin anew, and other ids of boot and clock be read."""
    began = time.monotonic()
    monkeypatch.setattr(_lease_channel, "_clock", lambda: "another 1")
    monkeypatch.setattr(_lease_channel, "monotonic", lambda: time.monotonic() - began)
    monkeypatch.setattr(_lease_channel, "time", lambda: time.time() + seconds)


def test_a_delay_outlives_a_reboot(backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """C8: what is left of it is measured by the clock on the wall."""
    with create(backend, leases=True) as channel:
        for item, delay in ((b"soon", 100.0), (b"later", 1_000_000.0)):
            assert channel.try_put_delayed(item, 0, delay)
    another_boot(monkeypatch)
    with attach(backend) as channel:
        assert channel.try_get() == (b"soon", 0)
        assert channel.try_get() is None
        assert 998_000 < channel.tend() < 999_001
        assert channel.counts() == (0, 0, 1, 0)


def test_a_lease_does_not_outlive_a_reboot(backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """C3: its holder is dead."""
    with create(backend, leases=True, max_deliveries=1) as channel:
        channel.try_put(b"item", 0)
        channel.try_lease(1, 500.0)
        execute(backend, "UPDATE owners SET number = 7", "UPDATE entries SET owner = 7")
        another_boot(monkeypatch)
        with attach(backend) as other:
            assert other.counts() == (0, 0, 0, 1)
            assert other.try_get_dead().reason == HOLDER_DIED


def test_another_time_namespace_is_refused(backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """C18: its clock differs, so every hold would be wrong."""
    with create(backend, leases=True):
        clock = _lease_channel._clock().split()[0]
        monkeypatch.setattr(_lease_channel, "_clock", lambda: f"{clock} 1")
        with pytest.raises(VersionMismatch, match="time namespace"), attach(backend):
            pass


def test_a_kernel_without_time_namespaces_has_one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """C18: older than Linux 5.6."""

    def missing(_: str) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(_lease_channel.os, "stat", missing)
    assert _lease_channel._clock().endswith(" 0")


def test_the_first_after_a_reboot_adapts_the_delays_once(
    backend: SqliteBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C8: a second process that has seen the old clock finds the new one under the lock."""
    with create(backend, leases=True) as channel:
        channel.try_put_delayed(b"item", 0, 5000.0)
    another_boot(monkeypatch)
    with attach(backend) as channel:
        left = channel.tend()

        class Late:
            """A connection that has read the clock before the other process has changed it."""

            def __init__(self, connection: Any) -> None:
                self._connection = connection
                self._late = True

            def __getattr__(self, name: str) -> Any:
                return getattr(self._connection, name)

            def execute(self, statement: str, *values: Any) -> Any:
                if self._late and statement == "SELECT clock FROM state":
                    self._late = False
                    return self._connection.execute("SELECT 'old 1'")
                return self._connection.execute(statement, *values)

        channel._adapt_clock(Late(channel._database._connected()))
        assert left - 10 < channel.tend() <= left


def test_a_failure_in_the_first_step_after_a_reboot_is_rolled_back(
    backend: SqliteBackend, jobs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C16: the next one does it."""
    monkeypatch.setattr(_lease_channel, "_clock", lambda: "another 1")
    monkeypatch.setattr(_lease_channel, "time", lambda: "not a time".no_such_attribute)
    connection = jobs._database._connected()
    with pytest.raises(AttributeError):
        jobs._adapt_clock(connection)
    assert not connection.in_transaction


# Syncs


def traced(jobs: Any) -> list[str]:
    """Return the list to which the channel's connection adds what it executes about syncs and commits."""
    seen: list[str] = []

    def note(statement: str) -> None:
        statement = statement.removeprefix("-- ")  # it is executed inside another one
        if statement.startswith(("PRAGMA", "COMMIT")):
            seen.append(statement.removeprefix("PRAGMA synchronous = "))

    jobs._database._connected().set_trace_callback(note)
    return seen


def finalise_inside(jobs: Any) -> None:
    """Execute a transaction without a sync in which a finaliser puts a message."""
    jobs._database._connected().create_function("finalise", 0, lambda: jobs.try_put(b"item", 0))
    assert jobs._database.write(1.0, lambda: (("SELECT finalise()", ()),), synced=False) == [[(1,)]]


def test_each_transaction_says_whether_it_is_synced(jobs: Any) -> None:
    """C40: so none can decide for another one, whatever has interrupted it."""
    seen = traced(jobs)
    jobs.try_put(b"item", 0)
    jobs.try_lease(1, None)
    jobs.settle([1], Verdict.ACK, 0.0, b"")
    assert seen == ["FULL", "COMMIT", "NORMAL", "COMMIT", "FULL", "COMMIT"]


def test_a_queue_that_is_not_durable_decides_nothing(backend: SqliteBackend) -> None:
    """C40: its connections never sync a commit."""
    with create(backend, leases=True, options={"durability": "normal"}) as channel:
        seen = traced(channel)
        channel.try_put(b"item", 0)
        finalise_inside(channel)
        assert seen == ["COMMIT"] * 2
        assert channel._database._connected().execute("PRAGMA synchronous").fetchall() == [(1,)]


def test_a_finalisers_put_is_synced_after_a_lease(jobs: Any) -> None:
    """C40: it has become part of a transaction without a sync."""
    seen = traced(jobs)
    finalise_inside(jobs)
    assert seen == ["NORMAL", "COMMIT", "FULL", "COMMIT"]
    jobs.try_lease(1, None)
    assert seen[4:] == ["NORMAL", "COMMIT"]


def test_a_sync_that_fails_is_repeated(jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C40: after the next transaction, since the one before is complete."""
    seen = traced(jobs)
    with monkeypatch.context() as patch:
        patch.setattr(_schema, "TOUCH", "SELECT nonsense")
        finalise_inside(jobs)
    assert seen == ["NORMAL", "COMMIT", "FULL"]
    jobs.try_lease(1, None)
    assert seen[3:] == ["NORMAL", "COMMIT", "FULL", "COMMIT"]


def test_a_finalisers_lease_does_not_decide_for_a_put(jobs: Any) -> None:
    """C40: the put may have said already that it is synced, and not have begun."""
    connection = jobs._database._connected()
    connection.create_function("finalise", 0, lambda: len(jobs.try_lease_many(1, 1, None)))
    jobs.try_put(b"item", 0)
    seen = traced(jobs)
    assert jobs._database.read(0.1, ("SELECT finalise()", ())) == [[(1,)]]
    assert seen == ["FULL", "COMMIT"]


def test_the_end_of_a_hold_is_found_by_the_acknowledgement(jobs: Any) -> None:
    """C9: nobody has returned the message yet."""
    jobs.try_put(b"item", 0)
    jobs.try_lease(1, 1e-6)
    assert jobs.extend([1], 60.0) == [1]
    for verdict in Verdict:
        assert jobs.settle([1], verdict, 0.0, b"") == [1]
    assert jobs.counts() == (1, 0, 0, 0)


# Holders


def test_the_lease_of_a_killed_process_returns(backend: SqliteBackend, jobs: Any) -> None:
    """C3: within a second, and `held` tells the process until then."""
    jobs.try_put(b"item", 0)
    script = """
import os, sys
from ipcq.backend import Request
from ipcq_sqlite import SqliteBackend
queue = SqliteBackend(sys.argv[1]).attach("/jobs", Request())
print(queue.try_lease(1, None).data.decode(), flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", script, backend._place()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "item\n"
        assert [(each.pid, each.deliveries) for each in jobs.held(9)] == [(holder.pid, 1)]
        assert jobs.tend() < 0.1
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        died = time.monotonic()
        while (taken := jobs.try_lease(1, None)) is None:
            jobs.wait_readable(died, time.monotonic() + 5.0)
        assert time.monotonic() - died < 1.0
        assert (taken.deliveries, taken.failures) == (2, 1)
        assert [each.pid for each in jobs.held(9)] == [os.getpid()]


def test_a_channel_leaves_when_it_closes(backend: SqliteBackend, jobs: Any) -> None:
    """Clause 31: its leases are released, without a failure."""
    jobs.try_put(b"item", 0)
    with attach(backend) as other:
        assert other.try_lease(1, None).deliveries == 1
    assert jobs._database.read(0.1, ("SELECT count(*) FROM owners", ()))[0] == [(0,)]
    assert jobs.try_lease(1, None)[2:] == (2, 1, 0)


def test_a_short_delay_wakes_waits(jobs: Any) -> None:
    """Clause 34: they measure again until when they wait."""
    jobs.try_put_delayed(b"item", 0, 0.05)
    assert _fifo.is_ringing(jobs._messages)
    began = time.monotonic()
    while jobs.try_get() is None:
        jobs.wait_readable(began, began + 20)
    assert time.monotonic() - began < 10


def test_without_leases_out_the_next_call_is_when_a_delay_ends(jobs: Any) -> None:
    """Clause 29: nothing is out, something is delayed, or something is leased without a hold."""
    assert jobs.tend() is None
    jobs.try_put_delayed(b"item", 0, LONGEST)
    assert jobs.tend() > LONGEST / 2
    jobs.try_put(b"item", 0)
    jobs.try_lease(1, None)
    assert jobs.tend() < 1.0


def test_a_rejection_is_no_return(jobs: Any) -> None:
    """C25: the figures tell them apart."""
    jobs.try_put_many([b"1", b"2", b"3"])
    first, second, third = jobs.try_lease_many(1, 3, None)
    assert jobs.settle([first.token], Verdict.REJECT, 0.0, b"bad") == []
    assert jobs.settle([second.token, second.token, 99], Verdict.FAIL, 0.0, b"oops") == [second.token, 99]
    assert jobs.settle([third.token], Verdict.ACK, 0.0, b"") == []
    figures = jobs.stats()
    assert (figures.returned, figures.dead, figures.gets, figures.depth) == (1, 1, 1, 1)


def test_polled_jobs_silence_their_descriptor(jobs: Any) -> None:
    """Clause 20: a lease takes the last message that is ready."""
    descriptor = jobs.fileno()
    jobs.try_put(b"item", 0)
    assert _fifo.is_ringing(descriptor)
    jobs.try_lease(1, 60.0)
    assert not _fifo.is_ringing(descriptor)
    assert jobs.find_lost([1, 2]) == [2]
    assert jobs.extend([1, 2], 60.0) == [2]
    jobs.recall(1, 1)
    assert _fifo.is_ringing(descriptor)


def test_all_jobs_of_a_worker_are_held(jobs: Any) -> None:
    """C3: its process is looked up once."""
    jobs.try_put_many([b"one", b"two"])
    jobs.try_lease_many(1, 2, None)
    assert [held.pid for held in jobs.held(9)] == [os.getpid()] * 2


def test_jobs_end(jobs: Any) -> None:
    """Clause 33: a queue that is shut down has ended when nothing is leased."""
    jobs.recall(1, 1)
    jobs.try_put(b"item", 0)
    taken = jobs.try_lease(1, None)
    jobs.shutdown(False)
    assert jobs.try_lease(2, None) is None
    with pytest.raises(QueueShutDown):
        jobs.requeue(1)
    jobs.settle([taken.token], Verdict.ACK, 0.0, b"")
    with pytest.raises(QueueShutDown):
        jobs.try_lease(3, None)


def test_a_child_is_another_owner(jobs: Any) -> None:
    """Clause 31: it opens the file of the locks again."""
    jobs.try_put(b"item", 0)
    jobs.try_lease(1, None)
    number = jobs._owners.number
    descriptor = jobs._owners.descriptor
    kept = os.dup(descriptor)  # as in the parent
    try:
        assert jobs.after_fork()
        assert (jobs._owners.number, jobs._owners.descriptor) == (0, descriptor)
        assert jobs._owners.dead([number]) == []
    finally:
        os.close(kept)
    assert jobs._owners.dead([number]) == [number]


def test_a_child_of_an_unlinked_queue_has_no_handle(backend: SqliteBackend, jobs: Any) -> None:
    """Clause 17: the file of the locks is gone."""
    backend.unlink(sqlite.NAME)
    assert not jobs.after_fork()
