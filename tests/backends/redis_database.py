"""Fixtures and helpers for the tests of redis: a server for each test file, and its database, empty for each test.

pytest looks for fixtures in the module of a test, so each test file assigns the fixtures that it uses.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from backends.redis_server import RedisProcess, ask, running, version
from ipcq.backend import Operation, Place, Request
from ipcq_redis import RedisBackend, _place

NAME = "/jobs"
KEY = _place.key_of(NAME)
#: Seconds, more than any test takes.
LATER = 1e6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    settings = {"enable_debug_command": "local"} if version() >= (7, 0) else {}  # earlier ones always permit it
    with running(tmp_path_factory.mktemp("redis"), appendonly="no", **settings) as server:
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


def keys_of(queue: Any) -> tuple[str, ...]:
    """Return the keys for a script of an operation without a lane."""
    return queue._meta, queue._meta, *queue._keys
