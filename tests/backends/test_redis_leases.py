"""Leases of a Redis server: late replies, ends by its clock, and serials of 63 bits."""

from typing import Any

from backends import redis_database
from backends.redis_database import created
from ipcq.backend import LONGEST, Verdict

server, backend = redis_database.server, redis_database.backend


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
