"""Waiting for a queue of a Redis server: when it asks, when it polls, and what ends it."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from backends import redis_database
from backends.redis_database import LATER, created
from backends.redis_server import RedisProcess, ask
from ipcq.errors import ConnectionLost
from ipcq.testing.processes import until
from ipcq_redis import _channel
from ipcq_redis._connection import Connection

server, backend = redis_database.server, redis_database.backend


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
