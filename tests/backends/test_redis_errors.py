"""What a Redis server can refuse, lose or return late, and what callers are told."""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions

import ipcq
import scripts
from backends.redis_server import RedisProcess, ask, running
from ipcq.backend import LONGEST, Operation, Place, Request, Severity, Verdict, closed
from ipcq.errors import (
    BackendUnavailable,
    ConnectionLost,
    CorruptQueue,
    InvalidArgument,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueExists,
    QueueGone,
    QueueNotFound,
    Unsupported,
    VersionMismatch,
)
from ipcq.testing.processes import fresh_name, until
from ipcq_redis import LARGEST, RedisBackend, _channel, _client, _errors, _opening, _place
from ipcq_redis._connection import Connection

NAME = "/jobs"
KEY = _place.key_of(NAME)
LATER = 1e6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    with running(tmp_path_factory.mktemp("redis"), appendonly="no", enable_debug_command="local") as server:
        yield server


@pytest.fixture
def backend(server: RedisProcess) -> Iterator[Any]:
    """Return the descriptor of the server's database, which is empty."""
    ask(server.port, "FLUSHALL")
    yield RedisBackend(_place.canonical(Place("redis", "127.0.0.1", server.port)))
    for setting in ("maxmemory", "min-replicas-to-write", "maxmemory-policy"):
        ask(server.port, "CONFIG", "SET", setting, "noeviction" if "policy" in setting else "0")
    ask(server.port, "REPLICAOF", "NO", "ONE")


def created(backend: Any, **request: Any) -> Any:
    return closing(backend.create(NAME, Request(**request)))


def now(seconds: float = 2.0) -> Operation:
    """Return an operation of one attempt."""
    return Operation("test-1", time.monotonic() + seconds, 1)


def test_a_full_server_refuses_puts_and_lets_messages_be_taken(server: RedisProcess, backend: Any) -> None:
    """C24: NoSpace names the setting, nothing is stored, and each get makes space."""
    with created(backend, leases=True) as queue:
        queue.try_put(b"one", 0)
        queue.try_put(b"two", 0)
        ask(server.port, "CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(NoSpace, match="CONFIG SET maxmemory"):
            queue.try_put(b"three", 0)
        assert queue.try_get() == (b"one", 0)
        assert queue.try_lease(1, 9.0).data == b"two"
        assert queue.settle([1], Verdict.ACK, 0.0, b"") == []
        assert queue.counts() == (0, 0, 0, 0)


def test_an_old_server_that_is_full_keeps_its_messages(server: RedisProcess, backend: Any) -> None:
    """C24, clause 11: before Redis 7 a script cannot run without memory, so a get raises and takes nothing."""
    with created(backend) as queue:
        queue._client._knows_flags = False
        queue.try_put(b"one", 0)
        ask(server.port, "CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(NoSpace):
            queue.try_get()
        ask(server.port, "CONFIG", "SET", "maxmemory", "0")
        assert queue.try_get() == (b"one", 0)


def test_flags_are_left_out_for_a_server_that_does_not_know_them(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis before 7 cannot compile them."""
    monkeypatch.setattr(_client, "_FLAGS", {False: "!#\n", True: "!#\n"})
    with created(backend) as queue:
        assert queue.try_put(b"one", 0)
        assert not queue._client._knows_flags


def test_a_replica_is_waited_for(server: RedisProcess, backend: Any) -> None:
    """C41: after a failover the address may lead to the new main server; nothing was done here."""
    with created(backend) as queue:
        ask(server.port, "REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(ConnectionLost, match="replica") as lost:
            queue._client.run(now(), queue._scripts.put, *_keys(queue), "", queue.incarnation, 0, 0, b"x")
        assert lost.value.outcome == "not done"
        ask(server.port, "REPLICAOF", "NO", "ONE")
        assert queue.try_put(b"x", 0)


def _keys(queue: Any) -> tuple[tuple[str, ...]]:
    return ((queue._meta, queue._meta, *queue._keys),)


def test_a_server_with_too_few_replicas_is_waited_for(server: RedisProcess, backend: Any) -> None:
    """C41: it has done nothing."""
    with created(backend) as queue:
        ask(server.port, "CONFIG", "SET", "min-replicas-to-write", "1")
        with pytest.raises(ConnectionLost, match="min-replicas-to-write") as lost:
            queue._client.run(now(), queue._scripts.put, *_keys(queue), "", queue.incarnation, 0, 0, b"x")
        assert lost.value.outcome == "not done"


def test_a_server_that_forgot_the_scripts_gets_them_again(server: RedisProcess, backend: Any) -> None:
    """A restart and SCRIPT FLUSH do that."""
    with created(backend) as queue:
        queue.try_put(b"one", 0)
        ask(server.port, "SCRIPT", "FLUSH")
        assert queue.try_get() == (b"one", 0)


def test_the_key_of_another_program_is_left_alone(server: RedisProcess, backend: Any) -> None:
    """C18: whatever it is."""
    ask(server.port, "SET", KEY, "theirs")
    for call in (
        lambda: backend.attach(NAME, Request()),
        lambda: backend.create(NAME, Request()),
        lambda: backend.exists(NAME),
        lambda: backend.unlink(NAME),
    ):
        with pytest.raises(CorruptQueue, match="another program"):
            call()
    ask(server.port, "DEL", KEY)
    ask(server.port, "HSET", KEY, "field", "theirs")
    with pytest.raises(CorruptQueue, match="another program"):
        backend.attach(NAME, Request())
    assert ask(server.port, "HGET", KEY, "field") == b"$6\r\ntheirs\r\n"


def test_another_layout_is_refused(server: RedisProcess, backend: Any) -> None:
    """C18: a later version of ipcq has made it."""
    with created(backend):
        ask(server.port, "HSET", KEY, "layout", "99")
        with pytest.raises(VersionMismatch, match="'99'"):
            backend.attach(NAME, Request())


def test_an_old_server_is_refused(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands lack what the scripts need."""
    monkeypatch.setattr(_opening.Directory, "facts", lambda *_: {"redis_version": "6.0.16"})
    with pytest.raises(Unsupported, match=r"Redis 6\.0\.16"):
        backend.create(NAME, Request())
    assert not backend.exists(NAME)


def test_evicted_messages_are_reported(server: RedisProcess, backend: Any) -> None:
    """C7: a get does not skip them in silence."""
    with created(backend, priorities=True) as queue:
        queue.try_put(b"one", 0)
        ask(server.port, "DEL", queue._keys[0])
        with pytest.raises(CorruptQueue, match="eviction"):
            queue.try_get()


def test_an_emptied_server_has_no_queue(server: RedisProcess, backend: Any) -> None:
    """Clause 41: a handle says that its queue is gone."""
    with created(backend) as queue:
        assert queue.linked()
        ask(server.port, "FLUSHALL")
        with pytest.raises(QueueGone):
            queue.try_put(b"x", 0)
        assert not queue.linked()


def test_a_server_that_forgot_messages_is_told_of(
    server: RedisProcess, backend: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C7: the next put sees that its number was given before; without logging there is nobody to tell."""
    with created(backend) as queue:
        forget, forget_all = "\0\1" + "\0" * 12, "\0" * 14  # the queue's figures, of which the second is the number
        for _ in range(3):
            queue.try_put(b"x", 0)
        ask(server.port, "HSET", KEY, "kept", forget)
        with caplog.at_level(logging.WARNING, "ipcq"):
            assert queue.try_put(b"y", 0)
        assert "lost at least 2 messages" in caplog.text
        ask(server.port, "HSET", KEY, "kept", forget_all)
        monkeypatch.delitem(_channel.sys.modules, "logging")
        assert queue.try_put(b"y", 0)
    assert len(caplog.records) == 1


def test_a_request_that_comes_too_late_is_not_carried_out(backend: Any) -> None:
    """Clause 40: its client has told its caller that the outcome is unknown, and may have repeated it."""
    with created(backend) as queue:
        queue.qsize()
        queue._client._idle[0].clock -= 10
        with pytest.raises(ConnectionLost, match="too late"):
            queue._client.run(now(), queue._scripts.put, *_keys(queue), "", queue.incarnation, 0, 0, b"x")
        assert queue.qsize() == 0


def test_an_older_operation_of_a_lane_is_not_carried_out(backend: Any) -> None:
    """Clause 39: a copy of a request that was answered long ago changes nothing."""
    with created(backend) as queue:
        keys = (queue._meta, f"{queue._meta}:lane", *queue._keys)

        def put(number: int) -> list[Any]:
            words = queue.incarnation, 0, 0, b"x"
            return queue._client.run(now(), queue._scripts.put, keys, f"{number:016}", *words)

        assert put(7) == put(7) == [b"ok", 1, 1]
        with pytest.raises(ConnectionLost, match="too late"):
            put(6)
        assert queue.qsize() == 1


def test_a_lane_is_for_later_operations() -> None:
    """Operations of several threads may end in another order than they began."""
    lanes = _client.Lanes()
    late = lanes.lane_of("process-5")
    lanes.give_back("process-5")
    assert lanes.lane_of("process-4") != late
    assert lanes.lane_of("process-6") == late
    lanes.give_back("process-6")
    lanes.give_back("process-6")


def test_lanes_without_an_answer_are_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """C17: they would take memory."""
    monkeypatch.setattr(_client, "_MOST_LOST", 2)
    lanes = _client.Lanes()
    lost = [lanes.lane_of(f"process-{number}") for number in range(5)]
    assert len(lanes._used) == 2
    assert lanes.lane_of("process-4") == lost[4]


def test_idle_connections_are_few(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """C17: a burst of threads leaves no more than these open."""
    monkeypatch.setattr(_client, "_MOST_IDLE", 0)
    with created(backend) as queue:
        assert queue.try_put(b"x", 0)
        assert queue._client._idle == []


def test_a_connection_may_end_in_any_order(backend: Any) -> None:
    """C14: `wake` breaks a connection that another thread may have closed."""
    connection = Connection(backend._server, time.monotonic() + 2)
    open_end, connection._end = connection._end, socket.socket()
    connection._socket.close()
    connection.break_off()
    connection._end = open_end
    for step in (connection.break_off, connection.close, connection.close, connection.break_off, connection.abandon):
        step()
    assert connection._descriptor == -1


def test_a_child_that_is_forked_inside_a_call_closes_nothing(backend: Any) -> None:
    """C35: the fork has closed the connection, and its number may belong to another file."""
    connection = Connection(backend._server, time.monotonic() + 2)
    number = connection._descriptor
    connection._process = -1
    closed(number, lambda: None)  # as if the child had closed it
    connection.close()
    os.fstat(number)
    os.close(number)


def test_many_queues_are_listed(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server shows a part of its keys at a time."""
    monkeypatch.setattr(_opening, "_VISITED", 1)
    names = [f"/jobs-{number}" for number in range(30)]
    for name in names:
        backend.create(name, Request()).close()
    assert backend.names() == sorted(names)


def test_an_old_connection_is_replaced(backend: Any) -> None:
    """C42: a password may have changed; and the clocks of two machines drift."""
    with created(backend) as queue:
        queue.qsize()
        (old,) = queue._client._idle
        old.began -= LATER
        queue.qsize()
        assert old._descriptor == -1
        assert old not in queue._client._idle


def test_a_lease_whose_reply_came_too_late_is_no_lease(backend: Any) -> None:
    """C4: the message is back in the queue, and the next call leases it anew."""
    with created(backend, leases=True) as queue:
        queue.try_put(b"job", 0)
        over = [[b"job"], [0], [1], [0], 0, 7, 1]
        assert queue._leased(over, 8) == []
        assert [each.token for each in queue._leased(over, 7)] == [7]


def test_tend_tells_when_something_is_over(backend: Any) -> None:
    """Clause 29: by the server's clock."""
    with created(backend, leases=True) as queue:
        assert queue.tend() is None
        queue.try_put_delayed(b"later", 0, 50.0)
        assert 49 < queue.tend() <= 50
        queue.try_put(b"job", 0)
        queue.try_lease(1, 20.0)
        assert 19 < queue.tend() <= 20
        (held,) = queue.held(9)
        assert (held.pid, held.deliveries) == (None, 1)
        assert 0 <= held.seconds < 20
        queue.extend([1], LONGEST)
        assert queue.find_lost([1, 2]) == [2]


def test_serials_of_63_bits_are_told_apart(backend: Any) -> None:
    """Clause 24: numbers in Lua have 53."""
    with created(backend, leases=True) as queue:
        queue.try_put_many([b"one", b"two"])
        first = (1 << 63) - 2
        assert [each.token for each in queue.try_lease_many(first, 2, 9.0)] == [first, first + 1]
        assert queue.settle([first + 1], Verdict.ACK, 0.0, b"") == []
        queue.recall(first, 2)
        assert queue.try_get() == (b"one", 0)


def test_limits_that_cannot_be_kept_are_refused(backend: Any) -> None:
    """Clause 6: never rounded."""
    for request in ({"max_message_size": LARGEST + 1}, {"buffer_size": 1 << 54}):
        with pytest.raises(Unsupported, match="at most"):
            backend.create(NAME, Request(**request))
    with created(backend, buffer_size=1 << 40) as queue:
        assert queue.attributes.max_message_size == LARGEST


def test_a_queue_is_full_by_bytes(backend: Any) -> None:
    """Clause 6: an empty message takes one."""
    with created(backend, buffer_size=100, max_message_size=25) as queue:
        assert queue.try_put_many([bytes(25)] * 3) == 3
        assert queue.try_put_many([b""] * 30) == 25
        assert queue.full()
        assert not queue.try_put(b"", 0)


def test_a_missing_queue_cannot_be_attached(backend: Any) -> None:
    """Clause 2: whatever another database has."""
    with pytest.raises(QueueNotFound):
        backend.attach(NAME, Request())


def test_creators_meet(backend: Any) -> None:
    """Clause 1: the second one finds the queue of the first."""
    with created(backend), pytest.raises(QueueExists):
        backend.create(NAME, Request())


def test_unlink_follows_a_name_that_another_process_takes(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 4: between its look and its step another process may unlink or create."""
    with created(backend):
        unlink = _opening.Directory.unlink_incarnation
        calls = []

        def late(directory: Any, name: str, incarnation: str) -> None:
            calls.append(incarnation)
            unlink(directory, name, "another" if len(calls) == 1 else incarnation)

        monkeypatch.setattr(_opening.Directory, "unlink_incarnation", late)
        backend.unlink(NAME)
        assert len(calls) == 2
        with pytest.raises(QueueNotFound):
            backend.unlink(NAME)


@pytest.mark.parametrize("name", ["/{a}", "/a*b?[c]", "/100%", "/ä\n", "/a\\b"])
def test_any_name_has_a_key_of_its_own(server: RedisProcess, backend: Any, name: str) -> None:
    """Clause 1: braces and patterns are escaped, and the listing has the name; keys of others are not listed."""
    ask(server.port, "HSET", "ipcq:{other}:x", "field", "theirs")
    with closing(backend.create(name, Request())):
        assert backend.names() == [name]
    assert _place.name_of("ipcq:jobs") is None


def test_a_wait_polls_while_connections_fail(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 13: it ends at its time, and does not ask in a hurry."""

    def refuse(*_: object) -> None:
        raise ConnectionLost("no connection", outcome="not done")

    with created(backend, max_messages=1) as queue:
        assert queue.try_get() is None
        queue.try_put(b"x", 0)
        assert not queue.try_put(b"x", 0)
        monkeypatch.setattr(queue, "_connection_to_wait", refuse)
        since = time.monotonic() - 10
        queue.wait_readable(since, time.monotonic() + 0.02)
        queue.wait_writable(1, since, time.monotonic() + 0.02)
        assert time.monotonic() - since >= 10.04


def test_a_wait_that_knows_nothing_asks_first(backend: Any) -> None:
    """Clause 13: also if the last answer is old; what is there already ends it at once."""
    with created(backend, max_messages=1) as queue:
        began = time.monotonic()
        queue.wait_writable(1, began, began + LATER)
        queue.wait_readable(began, began + 0.05)
        queue.try_put(b"x", 0)
        queue._last["readers"] = _channel.Last(0, 0.0, 0.0)
        queue.wait_readable(began, began + LATER)
        queue.wait_writable(1, began, time.monotonic() + 0.05)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("end", ["wake", "kill"])
def test_a_wait_can_be_broken(server: RedisProcess, backend: Any, end: str) -> None:
    """Clause 13: by `wake`, which `close` calls; or by the server, and then it polls."""
    with created(backend) as queue, ThreadPoolExecutor() as pool:
        assert queue.try_get() is None
        now = time.monotonic()
        waiting = pool.submit(queue.wait_readable, now - 10, now + 60)
        until(lambda: queue._waiting)
        if end == "wake":
            queue.wake()
        else:
            until(lambda: b"blocked_clients:1" in ask(server.port, "INFO", "clients"))
            ask(server.port, "CLIENT", "KILL", "TYPE", "normal")
        waiting.result(30)
        assert not queue._waiting
        assert queue.try_put(b"x", 0)


def test_a_wait_that_is_over_asks_nothing(backend: Any) -> None:
    """Clause 13: the server takes a time of 0 for none."""
    with created(backend) as queue:
        assert queue.try_get() is None
        queue._idle.append(Connection(backend._server, time.monotonic() + 9))
        queue.wait_readable(time.monotonic(), time.monotonic() - 1)
        assert len(queue._idle) == 1


def test_the_connection_of_a_forked_parent_is_left_alone(backend: Any) -> None:
    """C35: a child forgets it, and opens its own."""
    with created(backend) as queue:
        queue.try_get()
        queue.wait_readable(time.monotonic(), time.monotonic() + 0.01)
        used = [*queue._client._idle, *queue._idle]
        descriptors = [each._descriptor for each in used]
        assert queue.after_fork()
        for each in descriptors:
            closed(each)  # as a child does
        assert queue.try_put(b"x", 0)
        assert [each._descriptor for each in used] == [-1, -1]


# Texts


@pytest.mark.parametrize(
    ("reply", "ours"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", NoSpace),
        ("ERR Error running script: @user_script:1: -OOM command not allowed", NoSpace),
        ("MISCONF Redis is configured to save RDB snapshots", NoSpace),
        ("READONLY You can't write against a read only replica.", ConnectionLost),
        ("LOADING Redis is loading the dataset in memory", ConnectionLost),
        ("MASTERDOWN Link with MASTER is down", ConnectionLost),
        ("BUSY Redis is busy running a script.", ConnectionLost),
        ("WRONGTYPE Operation against a key", CorruptQueue),
        ("NOPERM this user has no permissions to run the 'eval' command", PermissionDenied),
        ("ERR DB index is out of range", PermissionDenied),
        ("MOVED 3999 127.0.0.1:6381", Unsupported),
        ("ERR unknown command", MessageQueueError),
    ],
)
def test_each_refusal_has_its_meaning(reply: str, ours: type[MessageQueueError]) -> None:
    """Clause 18: conditions stay apart."""
    assert type(_errors.explained_reply(reply)) is ours


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (exceptions.OutOfMemoryError("command not allowed"), "OOM command not allowed"),
        (exceptions.AuthenticationError("Authentication required."), "NOAUTH Authentication required."),
        (exceptions.ResponseError("WRONGTYPE x"), " WRONGTYPE x"),
    ],
)
def test_the_code_of_an_error_is_known(error: Exception, text: str) -> None:
    """The library removes some codes."""
    assert _errors.with_code(error) == text


# Findings


def texts(findings: list[Any]) -> str:
    return "\n".join(each.text for each in findings)


def test_doctor_tells_what_a_server_loses(server: RedisProcess, backend: Any) -> None:
    """C31: no append-only file, and eviction."""
    ask(server.port, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    saving, evicting = backend.findings()
    assert (saving.severity, evicting.severity) == (Severity.WARNING, Severity.ERROR)
    assert "no append-only file" in saving.text
    assert "allkeys-lru" in evicting.text
    with created(backend) as queue:
        assert queue.capabilities.persistence == ipcq.Persistence.KERNEL


@pytest.mark.parametrize(
    ("sync", "persistence", "told"), [("everysec", "DISK", "later than it answers"), ("always", "SYNCED", "")]
)
def test_the_capabilities_are_those_of_the_server(tmp_path: Path, sync: str, persistence: str, told: str) -> None:
    """C31, C40: a queue claims what its server keeps, and doctor tells the rest."""
    with running(tmp_path, appendfsync=sync) as server:
        backend = RedisBackend(_place.canonical(Place("redis", "127.0.0.1", server.port)))
        with created(backend) as queue:
            assert queue.capabilities.persistence == ipcq.Persistence[persistence]
        assert told in texts(backend.findings())
        assert bool(told) == bool(backend.findings())


def test_a_user_with_few_rights_is_enough(server: RedisProcess, backend: Any) -> None:
    """A server need not show its settings; then nothing is claimed."""
    rights = "~ipcq:* +@hash +@list +@sortedset +@stream +@string +@scripting +@keyspace +time +select +info"
    ask(server.port, "ACL", "SETUSER", "worker", "on", ">c4n4ry", *rights.split())
    few = RedisBackend(
        _place.canonical(Place("redis", "127.0.0.1", server.port, (), "worker", ipcq.backend.Secret("c4n4ry")))
    )
    with created(few, leases=True) as queue:
        assert queue.try_put(b"x", 0)
        assert queue.try_lease(1, 9.0).data == b"x"
        queue.wait_readable(time.monotonic(), time.monotonic() + 0.01)
    few.unlink(NAME)
    ask(server.port, "ACL", "SETUSER", "worker", "-info")
    assert texts(few.findings()) == "the server does not tell whether it saves messages on a disk"
    with created(few) as queue:
        assert queue.capabilities.persistence == ipcq.Persistence.KERNEL
    with _opening.Directory(few._server, few.capabilities) as directory:
        assert directory.setting("appendfsync") == ""


def test_a_setting_that_is_not_told_is_unknown(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some hosted servers answer with nothing."""
    with _opening.Directory(backend._server, backend.capabilities) as directory:
        assert directory.setting("no-such-setting") == ""


def test_a_server_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """C41: by doctor, with the place."""
    monkeypatch.setattr("ipcq._process.operation.OPERATION_SECONDS", 0.1)
    (finding,) = RedisBackend(Place("redis", "localhost", 1, ("0",))).findings()
    assert "localhost:1 cannot be reached" in finding.text


# Places


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://Host/", "redis://host:6379/0/"),
        ("valkey://host:6379/00/", "redis://host:6379/0/"),
        ("valkeys://host/3/", "rediss://host:6379/3/"),
        ("redis://localhost:6379/0/", "redis"),
        ("redis:///0/", "redis"),
    ],
)
def test_two_spellings_of_a_place_have_one_text(url: str, text: str) -> None:
    """Clause 35: port, database and aliases of the scheme are filled in."""
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    name, _, port = host.lower().partition(":")
    place = Place(scheme, name, int(port) if port else None, tuple(filter(None, path.split("/"))))
    assert RedisBackend().at(place).name == text


@pytest.mark.parametrize("path", [("jobs",), ("0", "1"), ("-1",)])
def test_a_place_is_a_database(path: tuple[str, ...]) -> None:
    """Clause 35: databases have numbers."""
    with pytest.raises(InvalidArgument, match="not a database"):
        RedisBackend().at(Place("redis", "host", None, path))


def test_without_the_library_the_backend_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clause 19: with the command that installs it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert RedisBackend().probe().reason == "redis-py is not installed: pip install 'ipcq-queue[redis]'"


@pytest.mark.parametrize(
    "call",
    [lambda: ipcq.exists(NAME, "redis"), lambda: ipcq.unlink(NAME, "redis"), lambda: ipcq.queues("redis")],
    ids=["exists", "unlink", "queues"],
)
def test_without_the_library_no_server_can_be_asked(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]
) -> None:
    """Clause 19: the error is that of `open`, with the command that installs the library."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(BackendUnavailable, match="redis-py is not installed: pip install"):
        call()


@pytest.mark.parametrize(
    "call",
    [
        "queue = ipcq.open(NAME); queue.unlink(); queue.close()",
        "ipcq.exists(NAME)",
        "ipcq.queues()",
        "ipcq.backends()",
        "cli(['doctor'], standalone_mode=False)",
        "cli(['ls'], standalone_mode=False)",
    ],
)
def test_the_library_is_imported_only_if_a_server_is_named(call: str) -> None:
    """`auto` and the shell are as fast as without it."""
    begin = f"import sys, ipcq; from ipcq._cli import cli; NAME = {fresh_name()!r}"
    script = f"{begin}; {call}; print('redis' in sys.modules)"
    assert scripts.run(script).split()[-1] == "False"
