"""Creating, finding, listing and unlinking queues of a Redis server, and their limits."""

from typing import Any

import pytest

from backends import redis_database
from backends.redis_database import KEY, NAME, created
from backends.redis_server import RedisProcess, ask
from ipcq.backend import Request
from ipcq.errors import CorruptQueue, QueueExists, QueueNotFound, Unsupported, VersionMismatch
from ipcq_redis import LARGEST, _opening

server, backend = redis_database.server, redis_database.backend


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


def test_many_queues_are_listed(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server shows a part of its keys at a time."""
    monkeypatch.setattr(_opening, "_VISITED", 1)
    names = [f"/jobs-{number}" for number in range(30)]
    for name in names:
        backend.create(name, Request()).close()
    assert backend.names() == sorted(names)


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
