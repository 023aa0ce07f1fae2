"""The backend that the documentation builds keeps the contract, installed as a third-party backend is."""

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

import ipcq
from backends.examples import installed
from ipcq.testing import BackendContract
from ipcq.testing.machine import QueueMachine, end_helper, profile
from ipcq.testing.processes import fresh_name, own_seed


@pytest.fixture(scope="module", autouse=True)
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with installed("ipcq_file", tmp_path_factory.mktemp("installed")):
        yield


class TestFile(BackendContract):
    backend = "file"


class FileMachine(QueueMachine):
    backend = "file"


def test_it_agrees_with_the_model() -> None:
    """C25: a few sequences of calls here; the example's own tests run 150."""
    try:
        run_state_machine_as_test(seed(own_seed())(FileMachine), settings=profile(5))
    finally:
        end_helper()


@pytest.fixture
def queue() -> Iterator["ipcq.Queue[Any]"]:
    with ipcq.open(fresh_name(), "file", exclusive=True, max_messages=4, max_message_size=1 << 16) as queue:
        yield queue
        queue.unlink()


def execute_sql(queue: "ipcq.Queue[Any]", *statements: str) -> sqlite3.Connection:
    """Execute statements on the queue's database, and return the connection."""
    channel: Any = queue._channel
    database = sqlite3.connect(f"{channel.directory}/db", isolation_level=None)
    for statement in statements:
        database.execute(statement)
    return database


CALLS: dict[str, Callable[["ipcq.Queue[Any]"], object]] = {
    "put": lambda queue: queue.put(1, timeout=5),
    "get": lambda queue: queue.get(timeout=5),
    "qsize": lambda queue: queue.qsize(),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_missing_table_does_not_look_like_a_full_or_empty_queue(queue: "ipcq.Queue[Any]", call: str) -> None:
    """Not every OperationalError means that another process holds the lock."""
    execute_sql(queue, "DROP TABLE item").close()
    with pytest.raises(ipcq.CorruptQueue, match="no such table"):
        CALLS[call](queue)


@pytest.mark.parametrize(("call", "error"), [("put", ipcq.QueueFull), ("get", ipcq.QueueEmpty)])
def test_a_locked_database_times_out(queue: "ipcq.Queue[Any]", call: str, error: type[Exception]) -> None:
    """A writer blocks other calls only for as long as they are willing to wait."""
    database = execute_sql(queue, "BEGIN IMMEDIATE")
    with pytest.raises(error):
        getattr(queue, call)(*[1] * (call == "put"), timeout=0.1)
    database.close()
    queue.put(1, timeout=5)


def test_a_full_disk_is_no_space(queue: "ipcq.Queue[Any]") -> None:
    """It does not look like a full queue, for which a put would wait."""
    queue._channel.db.execute("PRAGMA max_page_count = 1")  # type: ignore[attr-defined]  # the example's
    with pytest.raises(ipcq.NoSpace):
        queue.put(bytes(60_000), timeout=5)


def test_the_capacity_is_the_same_after_gets(queue: "ipcq.Queue[Any]") -> None:
    """The row numbers give the number of messages."""
    for turn in range(3):
        queue.put_many(range(4), timeout=5)
        sizes = [queue.qsize(), len(queue.get_many(2 + turn)), queue.qsize()]
        queue.clear()
        assert sizes == [4, 2 + turn, 2 - turn]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of forks while it makes a connection
def test_a_handler_that_forks_costs_no_message(queue: "ipcq.Queue[Any]") -> None:
    """The connection is closed wherever the fork strikes, and the call continues with a new one."""
    children: list[int] = []

    def fork(*_: object) -> None:
        pid = os.fork()
        if not pid:
            os._exit(0)
        children.append(pid)
        if len(children) < 30:
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + 0.00013 * (len(children) % 10))

    before = signal.signal(signal.SIGALRM, fork)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
    put, taken = 0, []
    while len(children) < 30:
        queue.put(put, timeout=5)
        taken.append(queue.get(timeout=5))
        put += 1
    signal.signal(signal.SIGALRM, before)
    for child in children:
        os.waitpid(child, 0)
    assert taken == list(range(put))


def test_a_fork_while_a_connection_is_made_is_an_error_in_the_child(queue: "ipcq.Queue[Any]") -> None:
    """The child must not open the database, because it has a part of the parent's connection."""
    channel: Any = queue._channel
    channel.connecting = True
    with pytest.raises(ipcq.MessageQueueError, match="this thread is connecting"):
        channel.before_fork()
    channel.connecting = False
    queue.put(1, timeout=5)
    assert queue.get(timeout=5) == 1
