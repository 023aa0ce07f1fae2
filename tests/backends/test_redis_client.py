"""The client of a Redis server: its scripts, its lanes for repeated requests, and its connections."""

import os
import socket
import time
from typing import Any

import pytest

from backends import redis_database
from backends.redis_database import LATER, created, keys_of, now
from backends.redis_server import RedisProcess, ask
from ipcq._process.operation import Asking
from ipcq.backend import closed
from ipcq.errors import ConnectionLost
from ipcq_redis import _client
from ipcq_redis._connection import Connection

server, backend = redis_database.server, redis_database.backend


def test_flags_are_left_out_for_a_server_that_does_not_know_them(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis before 7 cannot compile them."""
    monkeypatch.setattr(_client, "_FLAGS", {False: "!#\n", True: "!#\n"})
    with created(backend) as queue:
        assert queue.try_put(b"one", 0)
        assert not queue._client._knows_flags


def test_a_server_that_forgot_the_scripts_gets_them_again(server: RedisProcess, backend: Any) -> None:
    """A restart and SCRIPT FLUSH do that."""
    with created(backend) as queue:
        queue.try_put(b"one", 0)
        ask(server.port, "SCRIPT", "FLUSH")
        assert queue.try_get() == (b"one", 0)


def test_a_request_that_comes_too_late_is_not_carried_out(backend: Any) -> None:
    """Clause 40: its client has told its caller that the outcome is unknown, and may have repeated it."""
    with created(backend) as queue:
        queue.qsize()
        queue._client._idle[0].clock -= 10
        with pytest.raises(ConnectionLost, match="too late"):
            queue._client.run(now(), queue._scripts.put, keys_of(queue), "", queue.incarnation, 0, 0, b"x")
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


def test_a_put_that_was_given_up_is_not_carried_out_after_a_later_one(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C1: its request may still be on its way, and its message would come out of order."""
    given_up: list[Any] = []

    def delay(_: Connection, *arguments: Any) -> Any:
        given_up.append(arguments)
        raise ConnectionLost(outcome="unknown")

    with created(backend) as queue:
        with monkeypatch.context() as patch:
            patch.setattr(_client, "_evaluated", delay)
            with pytest.raises(ConnectionLost):
                Asking(time.monotonic() + 0.1).run(queue.try_put, b"given up", 0)
        assert queue.try_put(b"later", 0)
        for arguments in given_up:
            connection = Connection(backend._server, time.monotonic() + 2)
            assert _client._evaluated(connection, time.monotonic() + 2, *arguments[1:]) == [[b"late"]]
            connection.close()
        assert queue.try_get_many(3) == [(b"later", 0)]


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


def test_an_old_connection_is_replaced(backend: Any) -> None:
    """C42: a password may have changed; and the clocks of two machines drift."""
    with created(backend) as queue:
        queue.qsize()
        (old,) = queue._client._idle
        old.began -= LATER
        queue.qsize()
        assert old._descriptor == -1
        assert old not in queue._client._idle


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
