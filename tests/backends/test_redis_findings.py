"""What a Redis server tells of itself: capabilities of its queues, and what doctor finds."""

import time
from pathlib import Path
from typing import Any

import pytest

import ipcq
from backends import redis_database
from backends.redis_database import NAME, created
from backends.redis_server import RedisProcess, ask, running
from ipcq.backend import Place, Severity
from ipcq_redis import RedisBackend, _opening, _place

server, backend = redis_database.server, redis_database.backend


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
