"""C12: calls in the middle of another call on a pyshm queue with leases."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest

from backends import pyshm
from backends.overtaking import Overtaking
from backends.pyshm import Handle, create, linux
from ipcq.errors import QueueEmpty
from ipcq_pyshm import _staged
from ipcq_pyshm._layout import LeaseState

pytestmark = linux
name, leasing = pyshm.name, pyshm.leasing


def lease_and(end: str) -> Callable[[Handle], list[Any]]:
    """Return a call that leases a message and ends the lease; it returns what has left the queue."""

    def call(queue: Handle) -> list[Any]:
        job = queue.lease(timeout=0)
        getattr(job, end)()
        return [job.item] if end == "ack" else []

    return call


def lease_many(queue: Handle) -> list[Any]:
    """Lease and acknowledge what is there."""
    jobs = queue.lease_many(3, block=False)
    queue.ack_many(jobs)
    return [job.item for job in jobs]


def requeue(queue: Handle) -> list[Any]:
    """Make a message a dead letter and ready again."""
    queue.lease(timeout=0).reject()
    queue.dead().requeue()
    return []


VERBS: dict[str, Callable[[Handle], list[Any]]] = {
    "lease": lease_and("ack"),
    "release": lease_and("release"),
    "fail": lease_and("fail"),
    "lease_many": lease_many,
    "get": lambda queue: [queue.get(timeout=0)],
    "get_many": lambda queue: queue.get_many(block=False),
    "requeue": requeue,
}


@pytest.mark.parametrize("inner", ["lease", "get", "release"])
@pytest.mark.parametrize("outer", ["lease", "lease_many", "release", "fail", "get", "get_many", "requeue"])
def test_a_call_in_the_middle_of_another_completes_and_loses_nothing(name: str, outer: str, inner: str) -> None:
    """C12: at any point where a handler or a finaliser can interrupt a step of its own thread."""
    with create(name, leases=True, max_messages=5) as queue:
        for point in count():
            items = [b"1", b"2", b"3"]
            queue.put_many(items)
            taken: list[Any] = []

            def overtake(taken: list[Any] = taken) -> None:
                with suppress(QueueEmpty):
                    taken += VERBS[inner](queue)

            overtaking = Overtaking(point, overtake)
            with suppress(QueueEmpty):
                taken += overtaking.during(lambda: VERBS[outer](queue))  # type: ignore[arg-type]  # they are lists
            with suppress(QueueEmpty):
                taken += queue.get_many(block=False)
            assert Counter(taken) == Counter(items), (outer, inner, point)
            assert queue._channel.counts() == (0, 0, 0, 0)
            if not overtaking.reached:
                break


def test_looks_that_are_overtaken_start_again(leasing: Handle) -> None:
    """C12: they return one state of the queue."""
    leasing.put_many([b"1", b"2"])
    leasing.lease(timeout=0).reject("one")
    job = leasing.lease(timeout=0)
    looks: dict[Callable[[], object], object] = {
        lambda: [each.deliveries for each in leasing._channel.held(2)]: [1],
        lambda: [each.data for each in leasing._channel.peek_dead(0, 2)]: [b"1"],
        lambda: leasing._channel.find_lost([job._token]): [],
        leasing._channel.peek: None,
    }
    for look, right in looks.items():
        for point in count():
            overtaking = Overtaking(point, lambda: leasing.put(b"3") or leasing.get())
            assert overtaking.during(look) == right
            if not overtaking.reached:
                break
    job.ack()


def test_a_batch_that_is_overtaken_after_a_commit_goes_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C12: what was committed is not taken again."""
    monkeypatch.setattr(_staged, "_CROWDED", 2)
    with create(name, leases=True, max_messages=20, priorities=True) as queue:
        queue.put_many([b"%d" % number for number in range(20)])
        go_on, left = queue._channel._go_on, iter([True])

        def overtake(state: LeaseState) -> None:
            if next(left, False):
                queue._channel.peek()
            go_on(state)

        monkeypatch.setattr(queue._channel, "_go_on", overtake)
        taken = queue._channel.try_lease_many(1, 20, None)
        assert [each.data for each in taken] == [b"%d" % number for number in range(20)]
