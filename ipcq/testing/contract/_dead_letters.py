"""Clauses 28, 29 and 32: what counts as a failure, and the messages that failed too often or were rejected."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import ipcq
from ipcq.testing.contract._bench import HANG, WOKEN
from ipcq.testing.contract._leasing import Leasing, unsettled

#: Every way in which a lease ends without a failure.
POLITE: dict[str, Callable[["ipcq.Queue[Any]"], object]] = {
    "release": lambda queue: queue.lease(timeout=HANG).release(),
    "close": lambda queue: close_unsettled(queue),
    "KeyboardInterrupt": lambda queue: leave_by(queue, KeyboardInterrupt),
    "SystemExit": lambda queue: leave_by(queue, SystemExit),
}


def close_unsettled(queue: "ipcq.Queue[Any]") -> None:
    """Lease a message, and close the handle."""
    job = queue.lease(timeout=HANG)
    queue.close()
    assert job.lost


def leave_by(queue: "ipcq.Queue[Any]", kind: type[BaseException]) -> None:
    """Lease a message, and leave the block by an exception."""
    with suppress(kind), queue.lease(timeout=HANG):
        raise kind("no")


class DeadLetters(Leasing):
    """Failures, and dead letters."""

    # Failures

    def test_a_message_that_failed_too_often_is_a_dead_letter(self) -> None:
        """Clause 28: after max_deliveries failures, with the reason of the last; it is not taken any more."""
        queue = self.create_leasing(max_deliveries=2)
        queue.put("poison")
        for reason in ("first", "last"):
            queue.lease(timeout=HANG).fail(reason)
        with pytest.raises(ipcq.QueueEmpty):
            queue.get(timeout=0)
        letter = queue.dead().peek_message()
        assert (letter.item, letter.reason, letter.deliveries) == ("poison", "last", 2)

    def test_without_a_bound_no_number_of_failures_is_too_many(self) -> None:
        """Clause 28: max_deliveries is None by default."""
        queue = self.create_leasing()
        queue.put("job")
        for _ in range(20):
            queue.lease(timeout=HANG).fail()
        assert queue.get(timeout=HANG) == "job"

    @pytest.mark.parametrize("way", POLITE)
    def test_a_polite_return_is_no_failure(self, way: str) -> None:
        """Clause 28: no number of restarts makes a dead letter."""
        name = self.create_leasing(max_deliveries=1).name
        self.attach(name).put("job")
        for _ in range(3):
            with unsettled():
                POLITE[way](self.attach(name))
        with self.attach(name).lease(timeout=HANG) as job:
            assert (job.item, job.deliveries) == ("job", 4)

    def test_a_message_settled_in_its_block_stays_settled(self) -> None:
        """C3: neither the end of the block nor an exception changes that."""
        queue = self.create_leasing()
        queue.put_many([1, 2])
        with queue.lease(timeout=HANG) as job:
            job.reject()
        with pytest.raises(ZeroDivisionError), queue.lease(timeout=HANG) as job:
            job.ack()
            raise ZeroDivisionError
        assert (self.drain(queue), queue.dead().qsize()) == ([], 1)

    def test_an_exception_out_of_the_block_is_a_failure(self) -> None:
        """Clause 28: it passes unchanged, and is the reason."""
        queue = self.create_leasing(max_deliveries=1)
        queue.put("poison")
        with pytest.raises(ZeroDivisionError), queue.lease(timeout=HANG):
            raise ZeroDivisionError("by zero")
        assert queue.dead().peek_message().reason == "ZeroDivisionError: by zero"

    def test_an_exception_out_of_the_block_is_kept_even_if_the_lease_is_lost(self) -> None:
        """C4: LeaseLost does not replace it."""
        queue = self.create_leasing()
        queue.put("job")
        with pytest.raises(ZeroDivisionError), queue.lease(timeout=HANG):
            queue.close()
            raise ZeroDivisionError

    def test_the_end_of_a_hold_is_a_failure(self) -> None:
        """Clause 29: with that reason."""
        queue = self.create_leasing(max_deliveries=1)
        queue.put("slow")
        with unsettled():
            job = queue.lease(timeout=HANG, hold=0.05)
            letter = queue.dead().get_message(timeout=WOKEN)
            assert (letter.item, letter.reason, job.lost) == ("slow", "its hold ended", True)

    def test_an_undecodable_message_is_given_back_and_ends_as_a_dead_letter(self) -> None:
        """C6: it is a failure each time, and DecodeError has its bytes."""
        queue = self.create_leasing(max_deliveries=2)
        self.attach(serializer="raw").put(b"\xc1")
        queue.put("good")
        for _ in range(2):
            with pytest.raises(ipcq.DecodeError) as caught:
                queue.lease(timeout=HANG)
            assert caught.value.data == b"\xc1"
        with queue.lease(timeout=HANG) as job:
            assert job.item == "good"
        assert queue.dead().peek_message().data == b"\xc1"

    @pytest.mark.parametrize("bound", [None, 2])
    def test_an_undecodable_message_does_not_stop_a_loop(self, bound: int | None) -> None:
        """C6: the loop gives it back until it is dead, at once without a bound."""
        self.needs("shutdown")
        queue = self.create_leasing(max_deliveries=bound)
        self.attach(serializer="raw").put(b"\xc1")
        queue.put("good")
        queue.shutdown()
        assert [job.item for job in queue.leases()] == ["good"]
        assert queue.dead().qsize() == 1

    def test_an_undecodable_message_is_left_out_of_a_batch(self) -> None:
        """C6: and counts as a failure."""
        queue = self.create_leasing(max_deliveries=1)
        queue.put(1)
        self.attach(serializer="raw").put(b"\xc1")
        queue.put(2)
        jobs = queue.lease_many(3)
        assert [job.item for job in jobs] == [1, 2]
        queue.ack_many(jobs)
        assert queue.dead().qsize() == 1

    # Dead letters

    def test_a_rejected_message_is_a_dead_letter_at_once(self) -> None:
        """Clause 28: with the reason."""
        queue = self.create_leasing()
        queue.put("bad")
        queue.lease(timeout=HANG).reject("not a number")
        letter = queue.dead().peek_message()
        assert (letter.item, letter.reason, letter.deliveries) == ("bad", "not a number", 1)

    def test_a_long_reason_is_cut(self) -> None:
        """Clause 28: to whole characters of at most 64 bytes."""
        queue = self.create_leasing()
        queue.put("bad")
        queue.lease(timeout=HANG).reject("€" * 100)
        assert queue.dead().peek_message().reason == "€" * 21

    def test_dead_letters_are_taken_in_the_order_of_putting(self) -> None:
        """Clause 32: whatever the order of their deaths; then their place is free."""
        queue = self.create_leasing()
        queue.put_many([1, 2, 3])
        for job in reversed(queue.lease_many(3)):
            job.reject()
        dead = queue.dead()
        assert [letter.item for letter in dead.peek_all()] == [1, 2, 3]
        assert [dead.get(timeout=0) for _ in range(dead.qsize())] == [1, 2, 3]
        with pytest.raises(ipcq.QueueEmpty):
            dead.get(timeout=0)
        assert self.fill(queue) == self.capacity

    def test_requeued_dead_letters_start_anew(self) -> None:
        """Clause 32: at their old place, without failures, with all their deliveries."""
        queue = self.create_leasing(max_deliveries=2)
        queue.put_many([1, 2])
        queue.lease(timeout=HANG).reject()
        assert queue.dead().requeue() == 1
        queue.lease(timeout=HANG).fail()
        job = queue.lease(timeout=HANG)
        assert (job.item, job.deliveries, job.failures, queue.dead().qsize()) == (1, 3, 1, 0)
        job.ack()

    def test_some_dead_letters_can_be_requeued(self) -> None:
        """Clause 32: the oldest first."""
        queue = self.create_leasing()
        queue.put_many([1, 2, 3])
        for job in queue.lease_many(3):
            job.reject()
        assert queue.dead().requeue(2) == 2
        assert (self.drain(queue), queue.dead().peek()) == ([1, 2], 3)

    def test_clearing_the_dead_letters_leaves_the_rest(self) -> None:
        """Clause 32: and clearing the queue leaves dead letters and leases."""
        queue = self.create_leasing()
        queue.put_many([1, 2, 3])
        queue.lease(timeout=HANG).reject()
        job = queue.lease(timeout=HANG)
        assert (queue.clear(), queue.dead().clear(), queue.dead().clear(), job.lost) == (1, 1, 0, False)
        job.release()
        assert self.drain(queue) == [2]
