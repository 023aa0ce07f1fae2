"""What a Redis server refuses, has lost or evicts, and what callers are told."""

import logging
from typing import Any

import pytest
from redis import exceptions

from backends import redis_database
from backends.redis_database import KEY, created, keys_of, now
from backends.redis_server import RedisProcess, ask, version
from ipcq.backend import Verdict
from ipcq.errors import (
    ConnectionLost,
    CorruptQueue,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueGone,
    Unsupported,
)
from ipcq_redis import _channel, _errors

server, backend = redis_database.server, redis_database.backend


@pytest.mark.parametrize("flags", [True, False])
def test_a_full_server_refuses_puts_and_lets_messages_be_taken(server: RedisProcess, backend: Any, flags: bool) -> None:
    """C24: NoSpace names the setting, nothing is stored, and each get makes space, also before Redis 7."""
    with created(backend, leases=True) as queue:
        queue._client._knows_flags &= flags
        queue.try_put(b"one", 0)
        queue.try_put(b"two", 0)
        ask(server.port, "CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(NoSpace, match="CONFIG SET maxmemory"):
            queue.try_put(b"three", 0)
        assert queue.try_get() == (b"one", 0)
        assert queue.try_lease(1, 9.0).data == b"two"
        assert queue.settle([1], Verdict.ACK, 0.0, b"") == []
        assert queue.counts() == (0, 0, 0, 0)


def test_a_replica_is_waited_for(server: RedisProcess, backend: Any) -> None:
    """C41: after a failover the address may lead to the new main server; nothing was done here."""
    with created(backend) as queue:
        ask(server.port, "REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(ConnectionLost, match="replica") as lost:
            queue._client.run(now(), queue._scripts.put, keys_of(queue), "", queue.incarnation, 0, 0, b"x")
        assert lost.value.outcome == "not done"
        ask(server.port, "REPLICAOF", "NO", "ONE")
        assert queue.try_put(b"x", 0)


def test_a_server_with_too_few_replicas_is_waited_for(server: RedisProcess, backend: Any) -> None:
    """C41: it has done nothing."""
    if version() < (7, 0):
        pytest.skip("Redis before 7 does not count the replicas for a script")
    with created(backend) as queue:
        ask(server.port, "CONFIG", "SET", "min-replicas-to-write", "1")
        with pytest.raises(ConnectionLost, match="min-replicas-to-write") as lost:
            queue._client.run(now(), queue._scripts.put, keys_of(queue), "", queue.incarnation, 0, 0, b"x")
        assert lost.value.outcome == "not done"


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
        forget, forget_all = "\0\1" + "\0" * 13, "\0" * 15  # the queue's figures, of which the second is the number
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
