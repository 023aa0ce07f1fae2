"""A pyshm queue with leases when memory runs out during a step."""

from typing import Any

import pytest

import ipcq
from backends import pyshm
from backends.pyshm import Handle, attach, create, linux
from ipcq_pyshm import _staged

pytestmark = linux
name, leasing = pyshm.name, pyshm.leasing


def fail(*_: object) -> Any:
    """Simulate a call that runs out of memory."""
    raise MemoryError


@pytest.mark.parametrize("verb", ["lease", "take"])
def test_a_batch_has_as_many_messages_as_memory_allowed(
    leasing: Handle, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C36: the other messages stay ready."""
    leasing.put_many([b"1", b"2", b"3"])
    channel = leasing._channel
    call, left = getattr(channel._order, verb), iter([True, True, False])
    monkeypatch.setattr(channel._order, verb, lambda *given: call(*given) if next(left, True) else fail())
    taken = channel.try_lease_many(1, 3, None) if verb == "lease" else channel.try_get_many(3)
    assert [each[0] for each in taken] == [b"1"]
    assert leasing.get_many() == [b"2", b"3"]


def test_a_batch_without_memory_raises(leasing: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    """C36: and leases nothing."""
    leasing.put_many([b"1", b"2"])
    with monkeypatch.context() as scarce:
        scarce.setattr(leasing._channel, "_commit", fail)
        with pytest.raises(MemoryError):
            leasing._channel.try_lease_many(1, 2, None)
    assert leasing.get_many() == [b"1", b"2"]


@pytest.mark.parametrize("crowded", [0, 900])
def test_a_step_succeeds_though_its_moves_are_not_written_yet(
    leasing: Handle, crowded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C36: the next step writes them."""
    monkeypatch.setattr(_staged, "_CROWDED", crowded)
    leasing.put_many([b"1", b"2", b"3"])
    apply, left = leasing._channel._order.apply, iter([False])
    monkeypatch.setattr(leasing._channel._order, "apply", lambda *given: apply(*given) if next(left, True) else fail())
    tokens = [each.token for each in leasing._channel.try_lease_many(1, 3, None)]
    assert leasing._channel.settle(tokens[:2], ipcq.backend.Verdict.REJECT, 0.0, b"no") == []
    assert leasing._channel.counts() == (0, 1, 0, 2)
    assert [each.data for each in leasing._channel.peek_dead(0, 3)] == [b"1", b"2"]
    assert leasing._channel.settle(tokens[2:], ipcq.backend.Verdict.ACK, 0.0, b"") == []


def test_a_close_without_memory_leaves_its_leases_to_the_kernel(
    leasing: Handle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clause 31: they return as those of a dead process."""
    leasing.put(b"job")
    with attach(name) as other:
        other._channel.try_lease(1, None)
        monkeypatch.setattr(other._channel, "_leave", fail)
    with leasing.lease(timeout=20) as job:
        assert job.deliveries == 2


def test_a_batch_that_fails_after_a_commit_has_what_was_committed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C9, C36: the rest stays ready."""
    monkeypatch.setattr(_staged, "_CROWDED", 2)
    with create(name, leases=True, max_messages=20, priorities=True) as queue:
        queue.put_many([b"%d" % number for number in range(20)])
        lease, left = queue._channel._order.lease, iter([True] * 5)
        monkeypatch.setattr(
            queue._channel._order, "lease", lambda *given: lease(*given) if next(left, False) else fail()
        )
        taken = queue._channel.try_lease_many(1, 20, None)
        assert 0 < len(taken) <= 5
        assert queue._channel.counts()[:2] == (20 - len(taken), len(taken))
