"""Clauses 23 to 34: leases and delays; C3, C4, and the parts of other promises that concern leases."""

import gc
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

import ipcq
from ipcq import serializers
from ipcq.testing._answers import until_answered
from ipcq.testing.contract._abilities import readable
from ipcq.testing.contract._bench import HANG, LATE, NOTICED, WOKEN
from ipcq.testing.contract._dead_letters import DeadLetters
from ipcq.testing.contract._holders import Holders
from ipcq.testing.contract._leasing import unsettled

Job = ipcq.Lease[Any]

#: Every way to settle a lease.
SETTLEMENTS: dict[str, Callable[[Job], object]] = {
    "ack": lambda job: job.ack(),
    "release": lambda job: job.release(),
    "fail": lambda job: job.fail(),
    "reject": lambda job: job.reject(),
}
#: Durations that no method accepts.
NO_DURATIONS = [-1, -0.001, math.nan, "1", True, None]


#: Every call that needs leases.
VERBS: dict[str, Callable[["ipcq.Queue[Any]"], object]] = {
    "lease": lambda queue: queue.lease(timeout=0),
    "lease_many": lambda queue: queue.lease_many(1, timeout=0),
    "ack_many": lambda queue: queue.ack_many([]),
    "leases": lambda queue: next(queue.leases()),
    "join": lambda queue: queue.join(timeout=0),
    "dead": lambda queue: queue.dead().get(timeout=0),
    "dead.peek": lambda queue: queue.dead().peek(),
    "dead.qsize": lambda queue: queue.dead().qsize(),
    "dead.requeue": lambda queue: queue.dead().requeue(),
    "dead.clear": lambda queue: queue.dead().clear(),
    "put": lambda queue: queue.put("item", delay=1),
}

#: Exceptions that the next calls of `decode_or_interrupt` raise.
interrupts: list[type[BaseException]] = []


def decode_or_interrupt(data: bytes) -> bytes:
    """Raise, as a signal handler may do after a message was leased."""
    if interrupts:
        raise interrupts.pop()
    return data


class Leases(Holders, DeadLetters):
    """`lease` and what follows from it."""

    # One holder

    def test_a_leased_message_is_with_one_consumer(self) -> None:
        """Clause 23: neither a lease nor a get returns it, to any handle, and qsize does not count it."""
        queue = self.create_leasing()
        other = self.attach()
        queue.put("job")
        with queue.lease(timeout=HANG) as job:
            assert job.item == "job"
            for handle in (queue, other):
                assert (handle.qsize(), handle.empty()) == (0, True)
                for take in (handle.lease, handle.get):
                    with pytest.raises(ipcq.QueueEmpty):
                        take(timeout=0)

    def test_an_acknowledged_message_is_gone(self) -> None:
        """Clause 27: it does not return, even if its handle is closed."""
        queue = self.create_leasing()
        other = self.attach()
        queue.put("job")
        queue.lease(timeout=HANG).ack()
        queue.close()
        assert other.stats().leased in (0, None)
        with pytest.raises(ipcq.QueueEmpty):
            other.get(timeout=0)

    def test_a_look_shows_what_is_ready(self) -> None:
        """Clause 23: peek skips what is leased or dead."""
        self.needs("peek")
        queue = self.create_leasing()
        queue.put_many([1, 2, 3])
        queue.lease(timeout=HANG).reject()
        with queue.lease(timeout=HANG):
            assert queue.peek() == 3
            assert queue.get(timeout=HANG) == 3
            with pytest.raises(ipcq.QueueEmpty):
                queue.peek()

    def test_a_lease_tells_what_it_is(self) -> None:
        """Clause 24: it has item, priority, the number of deliveries, and the queue's name."""
        queue = self.create_leasing(priorities=self.can.priorities)
        priority = 7 if self.can.priorities else 0
        queue.put("job", priority=priority)
        with queue.lease(timeout=HANG) as job:
            assert (job.item, job.priority, job.deliveries, job.name) == ("job", priority, 1, self.name)

    def test_leases_come_in_the_order_of_get(self) -> None:
        """Clause 24: in FIFO order."""
        queue = self.create_leasing()
        queue.put_many([1, 2, 3])
        jobs = [queue.lease(timeout=HANG) for _ in range(3)]
        assert [job.item for job in jobs] == [1, 2, 3]
        queue.ack_many(jobs)

    def test_get_takes_a_message_for_good(self) -> None:
        """Clause 24: get on a queue with leases is a lease and its acknowledgement."""
        queue = self.create_leasing()
        queue.put("item")
        assert queue.get(timeout=HANG) == "item"
        queue.close()
        assert self.attach().empty()

    def test_each_delivery_is_counted(self) -> None:
        """C3, clause 24: whatever ended the delivery before."""
        queue = self.create_leasing()
        queue.put("job")
        counts = []
        for settle in (SETTLEMENTS["release"], SETTLEMENTS["fail"], SETTLEMENTS["ack"]):
            job = queue.lease(timeout=HANG)
            counts.append(job.deliveries)
            settle(job)
        assert counts == [1, 2, 3]

    def test_each_failure_is_counted(self) -> None:
        """C3, clause 24: of the deliveries before, and a release is none."""
        queue = self.create_leasing()
        queue.put("job")
        counts = []
        for way in ("fail", "release", "fail", "ack"):
            job = queue.lease(timeout=HANG)
            counts.append(job.failures)
            SETTLEMENTS[way](job)
        assert counts == [0, 1, 1, 2]

    # Limits

    @pytest.mark.parametrize("state", ["leased", "delayed", "dead"])
    def test_a_message_keeps_its_place_in_the_limits(self, state: str) -> None:
        """Clause 23, C7: so its return cannot fail."""
        queue = self.create_leasing()
        if state == "delayed":
            self.needs("delays")
            while not queue.full():
                queue.put("later", delay=HANG)
        else:
            self.fill(queue)
        jobs = [] if state == "delayed" else queue.lease_many(self.capacity)
        if state == "dead":
            for job in jobs:
                job.reject()
        assert queue.full()
        with pytest.raises(ipcq.QueueFull):
            queue.put("refused", timeout=0)
        if state == "leased":
            queue.ack_many(jobs)

    def test_an_acknowledgement_frees_the_place(self) -> None:
        """Clause 34: and wakes a producer that waits for it."""
        queue = self.create_leasing()
        self.fill(queue)
        jobs = queue.lease_many(self.capacity)
        producer = self.start_waiting(queue.put, "next", timeout=HANG)
        jobs[0].ack()
        producer.outcome(WOKEN)
        queue.ack_many(jobs[1:])
        assert self.drain(queue) == ["next"]

    def test_a_full_queue_says_what_fills_it(self) -> None:
        """C7: QueueFull gives the counts, and names the command that shows the dead letters if there are some."""
        queue = self.create_leasing()
        self.fill(queue)
        queue.lease(timeout=HANG).reject()
        with pytest.raises(ipcq.QueueFull, match=f"{self.capacity - 1} ready, 0 leased, 0 delayed, 1 dead.*ipcq dead"):
            queue.put("refused", timeout=0)

    # Return

    @pytest.mark.parametrize("settle", ["release", "fail"])
    def test_a_message_that_returns_comes_before_all_later_ones(self, settle: str) -> None:
        """C8, clause 24: it comes back to its old place."""
        queue = self.create_leasing()
        queue.put_many([1, 2])
        job = queue.lease(timeout=HANG)
        queue.put(3)
        SETTLEMENTS[settle](job)
        assert self.drain(queue) == [1, 2, 3]

    def test_messages_return_in_their_old_order(self) -> None:
        """C8, clause 24: whatever the order of their releases."""
        queue = self.create_leasing()
        queue.put_many([1, 2, 3])
        for job in reversed(queue.lease_many(3)):
            job.release()
        assert self.drain(queue) == [1, 2, 3]

    def test_a_message_returns_within_its_priority(self) -> None:
        """C8, clause 24: after those of a higher priority, and before those of a lower one."""
        self.needs("priorities")
        queue = self.create_leasing(priorities=True)
        queue.put("middle", priority=5)
        job = queue.lease(timeout=HANG)
        queue.put("low", priority=1)
        queue.put("high", priority=9)
        job.release()
        assert self.drain(queue) == ["high", "middle", "low"]

    def test_a_message_that_returns_wakes_a_consumer(self) -> None:
        """C13, clause 34: as a put does."""
        queue = self.create_leasing()
        queue.put("job")
        job = queue.lease(timeout=HANG)
        consumer = self.start_waiting(self.attach().get, timeout=HANG)
        job.release()
        assert consumer.outcome(WOKEN) == "job"

    def test_closing_returns_all_leases(self) -> None:
        """Clause 31: in their old order."""
        queue = self.create_leasing()
        other = self.attach()
        queue.put_many([1, 2, 3])
        jobs = queue.lease_many(2)
        queue.close()
        assert (self.drain(other), [job.lost for job in jobs]) == ([1, 2, 3], [True, True])

    def test_closing_leaves_the_leases_of_others_alone(self) -> None:
        """Clause 31: a lease belongs to one handle."""
        queue = self.create_leasing()
        queue.put("job")
        job = queue.lease(timeout=HANG)
        self.attach().close()
        assert not job.lost
        job.ack()

    def test_a_dropped_lease_is_given_back_with_a_warning(self) -> None:
        """C3: a forgotten settlement does not keep the message until the handle is closed."""
        queue = self.create_leasing()
        queue.put("job")

        def forget() -> None:
            queue.lease(timeout=HANG)
            gc.collect()

        with pytest.warns(ResourceWarning, match=self.name):
            forget()
        assert queue.get(timeout=HANG) == "job"

    def test_an_interrupted_lease_gives_its_message_back(self) -> None:
        """C12, clause 25: an exception that arrives after the message was leased does not keep it."""
        with suppress(ipcq.InvalidArgument):  # registered already
            serializers.register(4294967294, "contract-interrupted", bytes, decode_or_interrupt)
        queue = self.create_leasing(serializer="contract-interrupted")
        queue.put(b"job")
        interrupts[:] = [KeyboardInterrupt]
        try:
            with pytest.raises(KeyboardInterrupt):
                queue.lease(timeout=HANG)
        finally:
            interrupts.clear()  # one that was not raised would end a later run of this test, and all of pytest with it
        assert queue.get(timeout=WOKEN) == b"job"

    # Fencing

    @pytest.mark.parametrize("late", SETTLEMENTS)
    def test_a_late_settlement_changes_nothing(self, late: str) -> None:
        """C4, clause 27: after the hold ended and another consumer leased the message."""
        queue = self.create_leasing()
        queue.put("job")
        first = queue.lease(timeout=HANG, hold=0.05)
        second = self.attach().lease(timeout=HANG)
        with pytest.raises(ipcq.LeaseLost):
            SETTLEMENTS[late](first)
        assert (first.lost, second.lost, second.deliveries) == (True, False, 2)
        second.ack()

    def test_a_late_settlement_by_the_handle_that_has_it_again_changes_nothing(self) -> None:
        """C4, clause 27: a lease is one delivery, not the message."""
        queue = self.create_leasing()
        queue.put("job")
        first = queue.lease(timeout=HANG, hold=0.05)
        second = queue.lease(timeout=HANG)
        with pytest.raises(ipcq.LeaseLost):
            first.ack()
        assert not second.lost
        second.ack()

    @pytest.mark.parametrize("settle", SETTLEMENTS)
    def test_a_lease_is_settled_once(self, settle: str) -> None:
        """C4: a second settlement raises LeaseLost, says what the first was, and changes nothing."""
        queue = self.create_leasing()
        queue.put("job")
        job = queue.lease(timeout=HANG)
        SETTLEMENTS[settle](job)
        before = queue.stats()
        for again in SETTLEMENTS.values():
            with pytest.raises(ipcq.LeaseLost, match="already"):
                again(job)
        assert (queue.stats(), job.lost) == (before, False)

    def test_a_lease_of_a_closed_handle_is_lost(self) -> None:
        """C4: the close gave it back."""
        queue = self.create_leasing()
        queue.put("job")
        job = queue.lease(timeout=HANG)
        queue.close()
        assert job.lost
        with pytest.raises(ipcq.LeaseLost):
            job.ack()

    def test_another_thread_may_settle(self) -> None:
        """C21: any thread of the process."""
        queue = self.create_leasing()
        queue.put("job")
        self.start(queue.lease(timeout=HANG).ack).outcome()
        assert queue.stats().leased in (0, None)

    # Holds

    def test_a_lease_ends_with_its_hold(self) -> None:
        """Clause 29: the message returns to a consumer that waits, not earlier and hardly later."""
        queue = self.create_leasing()
        queue.put("job")
        began = time.monotonic()
        with unsettled():
            job = queue.lease(timeout=HANG, hold=0.3)
            with self.attach().lease(timeout=HANG) as again:
                seconds = time.monotonic() - began
            assert (again.item, again.deliveries, job.lost) == ("job", 2, True)
        assert 0.3 <= seconds < 0.3 + WOKEN

    def test_a_settlement_after_the_end_of_the_hold_is_refused(self) -> None:
        """C4, clause 29: even if nobody has taken the message."""
        queue = self.create_leasing()
        queue.put("job")
        job = queue.lease(timeout=HANG, hold=0.05)
        with pytest.raises(ipcq.TimedOutError):
            until_answered(queue.join, 0.1)  # counts, and so passes the time
        with pytest.raises(ipcq.LeaseLost):
            job.ack()
        assert queue.get(timeout=0) == "job"

    def test_an_extended_lease_ends_later(self) -> None:
        """Clause 27: extend counts from its call."""
        queue = self.create_leasing()
        queue.put("job")
        job = queue.lease(timeout=HANG, hold=0.5)
        job.extend(HANG)
        with pytest.raises(ipcq.QueueEmpty):
            until_answered(lambda seconds: queue.lease(timeout=seconds), 0.7)
        job.ack()

    def test_an_extension_may_be_shorter_than_the_hold(self) -> None:
        """Clause 27: the lease ends then."""
        queue = self.create_leasing()
        queue.put("job")
        with unsettled():
            job = queue.lease(timeout=HANG)
            job.extend(0.05)
            assert queue.get(timeout=WOKEN) == "job"
            assert job.lost

    def test_a_lease_that_is_over_cannot_be_extended(self) -> None:
        """C4, clause 27: extend raises LeaseLost."""
        queue = self.create_leasing()
        queue.put("job")
        with unsettled():
            job = queue.lease(timeout=HANG, hold=0.05)
            assert queue.get(timeout=WOKEN) == "job"
            with pytest.raises(ipcq.LeaseLost):
                job.extend(HANG)

    # Delays

    def test_a_delayed_message_comes_when_its_time_has_come(self) -> None:
        """Clause 26: to a consumer that waits, not earlier and hardly later."""
        self.needs("delays")
        queue = self.create_leasing()
        began = time.monotonic()
        queue.put("later", delay=0.3)
        assert queue.get(timeout=HANG) == "later"
        seconds = time.monotonic() - began
        assert 0.3 <= seconds < 0.3 + WOKEN

    def test_what_is_due_together_comes_in_the_order_of_putting(self) -> None:
        """C8, clause 24: also what was put without a delay."""
        self.needs("delays")
        queue = self.create_leasing()
        queue.put(1, delay=0.1)
        queue.put(2, delay=0.05)
        queue.put(3)
        until = time.monotonic() + HANG
        while queue.qsize() < 3 and time.monotonic() < until:
            time.sleep(0.01)
        assert self.drain(queue) == [1, 2, 3]

    def test_a_delayed_message_blocks_nobody(self) -> None:
        """Clause 26: later messages are taken meanwhile."""
        self.needs("delays")
        queue = self.create_leasing()
        queue.put("later", delay=HANG)
        queue.put("now")
        assert self.drain(queue) == ["now"]

    @pytest.mark.parametrize("settle", ["release", "fail"])
    def test_a_message_can_be_given_back_for_later(self, settle: str) -> None:
        """Clause 28: release and fail take a delay."""
        queue = self.create_leasing()
        queue.put("job")
        began = time.monotonic()
        getattr(queue.lease(timeout=HANG), settle)(delay=0.2)
        assert queue.get(timeout=HANG) == "job"
        assert time.monotonic() - began >= 0.2

    # Batches

    def test_many_are_leased_and_acknowledged_at_once(self) -> None:
        """C9: lease_many takes what is ready, in order, and ack_many settles all."""
        queue = self.create_leasing()
        queue.put_many([1, 2, 3])
        jobs = queue.lease_many(2)
        assert [job.item for job in jobs] == [1, 2]
        queue.ack_many(jobs)
        assert (queue.stats().leased in (0, None), self.drain(queue)) == (True, [3])

    def test_a_lost_lease_does_not_prevent_the_others(self) -> None:
        """C4, clause 27: ack_many raises LeaseLost, and acknowledges all others."""
        queue = self.create_leasing()
        queue.put_many([1, 2, 3])
        jobs = queue.lease_many(3)
        jobs[1].extend(0.05)
        assert self.attach().get(timeout=HANG) == 2
        with pytest.raises(ipcq.LeaseLost, match="1 of 3"):
            queue.ack_many(jobs)
        assert [job.lost for job in jobs] == [False, True, False]
        queue.close()
        assert self.attach().empty()

    def test_the_leases_of_another_handle_are_refused(self) -> None:
        """C4: ack_many raises InvalidArgument and settles nothing."""
        queue = self.create_leasing()
        queue.put_many([1, 2])
        mine, others = queue.lease(timeout=HANG), self.attach().lease(timeout=HANG)
        with pytest.raises(ipcq.InvalidArgument):
            queue.ack_many([mine, others])
        assert not (mine.lost or others.lost)
        mine.ack()
        others.ack()

    # Loops

    def test_the_end_of_the_body_acknowledges(self) -> None:
        """C3: and the loop ends at the end of the queue."""
        self.needs("shutdown")
        queue = self.create_leasing()
        queue.put_many([1, 2, 3])
        queue.shutdown()
        assert [job.item for job in queue.leases()] == [1, 2, 3]
        assert self.attach().stats().gets in (3, None)

    def test_leaving_the_body_gives_back_as_a_failure(self) -> None:
        """C3, clause 28: what was not done is not lost."""
        queue = self.create_leasing(max_deliveries=1)
        queue.put("poison")
        with pytest.raises(ZeroDivisionError):
            for _ in queue.leases():  # pragma: no branch - the body raises
                raise ZeroDivisionError
        gc.collect()
        assert queue.dead().peek() == "poison"

    def test_a_settled_message_stays_settled_at_the_end_of_the_body(self) -> None:
        """C3: the body may decide otherwise."""
        queue = self.create_leasing()
        queue.put("job")
        jobs = queue.leases()
        for job in jobs:
            job.reject()
            jobs.stop()
        assert queue.dead().peek() == "job"

    def test_a_stopped_loop_finishes_the_message_in_hand(self) -> None:
        """C3: it is acknowledged, and the rest stays."""
        queue = self.create_leasing()
        queue.put_many([1, 2])
        jobs = queue.leases()
        for _ in jobs:
            jobs.stop()
        assert self.drain(queue) == [2]

    def test_a_waiting_loop_can_be_stopped(self) -> None:
        """C14: from another thread."""
        queue = self.create_leasing()
        jobs = queue.leases()
        consumer = self.start_waiting(list, jobs)
        jobs.stop()
        assert consumer.outcome(WOKEN) == []

    # Ends

    @pytest.mark.parametrize("verb", VERBS)
    def test_a_closed_handle_refuses_leases(self, verb: str) -> None:
        """C14: it raises QueueClosed."""
        queue = self.create_leasing()
        queue.close()
        with pytest.raises(ipcq.QueueClosed):
            VERBS[verb](queue)

    @pytest.mark.parametrize("verb", VERBS)
    def test_an_unlinked_queue_refuses_leases(self, verb: str) -> None:
        """C14, clause 4: every handle raises QueueGone."""
        queue = self.create_leasing()
        queue.unlink()
        self.eventually(ipcq.QueueGone, lambda: VERBS[verb](queue), NOTICED)

    def test_a_settlement_after_the_unlink_says_so(self) -> None:
        """C14, clause 4: the lease went with its queue."""
        queue = self.create_leasing()
        queue.put("job")
        job = queue.lease(timeout=HANG)
        queue.unlink()
        self.eventually(ipcq.QueueGone, lambda: job.extend(HANG), NOTICED)
        assert job.lost

    def test_a_queue_ends_when_nothing_is_leased(self) -> None:
        """Clause 33: until then gets wait, because the message may return."""
        self.needs("shutdown")
        queue = self.create_leasing()
        other = self.attach()
        queue.put("job")
        job = queue.lease(timeout=HANG)
        queue.shutdown()
        for take in (other.get, other.lease):
            with pytest.raises(ipcq.QueueEmpty):
                take(timeout=0)
        consumer = self.start_waiting(other.get, timeout=HANG)
        job.ack()
        assert isinstance(consumer.error(NOTICED), ipcq.QueueShutDown)

    def test_a_queue_that_is_shut_down_takes_nothing_for_later(self) -> None:
        """Clause 33: a put with a delay raises QueueShutDown."""
        self.needs("delays")
        self.needs("shutdown")
        queue = self.create_leasing()
        queue.shutdown()
        with pytest.raises(ipcq.QueueShutDown):
            queue.put("later", delay=1)
        assert queue.stats().delayed in (0, None)

    def test_a_message_that_returns_after_the_shutdown_is_taken(self) -> None:
        """Clause 33: and then the queue has ended."""
        self.needs("shutdown")
        queue = self.create_leasing()
        queue.put("job")
        job = queue.lease(timeout=HANG)
        queue.shutdown()
        job.release()
        assert queue.get(timeout=HANG) == "job"
        with pytest.raises(ipcq.QueueShutDown):
            queue.get(timeout=HANG)

    def test_an_immediate_shutdown_drops_all_but_the_dead_letters(self) -> None:
        """Clause 33: a later acknowledgement is LeaseLost."""
        self.needs("shutdown")
        queue = self.create_leasing()
        queue.put_many([1, 2, 3])
        queue.lease(timeout=HANG).reject()
        job = queue.lease(timeout=HANG)
        queue.shutdown(immediate=True)
        with pytest.raises(ipcq.QueueShutDown):
            queue.get(timeout=HANG)
        with pytest.raises(ipcq.LeaseLost):
            job.ack()
        assert queue.dead().get(timeout=0) == 1

    def test_dead_letters_of_a_queue_that_is_shut_down_are_not_requeued(self) -> None:
        """Clause 32: nobody puts into it any more."""
        self.needs("shutdown")
        queue = self.create_leasing()
        queue.put("bad")
        queue.lease(timeout=HANG).reject()
        queue.shutdown()
        with pytest.raises(ipcq.QueueShutDown):
            queue.dead().requeue()
        assert queue.dead().peek() == "bad"

    def test_join_waits_until_all_work_is_done(self) -> None:
        """C3: nothing is ready, leased or delayed; dead letters do not count."""
        queue = self.create_leasing()
        queue.put_many([1, 2])
        jobs = queue.lease_many(2)
        waiter = self.start_waiting(self.attach().join, timeout=HANG)
        jobs[0].reject()
        assert waiter.running()
        jobs[1].ack()
        waiter.outcome(WOKEN)

    @pytest.mark.parametrize("state", ["ready", "leased", "delayed"])
    def test_join_times_out_if_work_is_left(self, state: str) -> None:
        """C10: TimedOutError says what is left, not earlier and hardly later."""
        queue = self.create_leasing()
        queue.put("job")
        job = None if state == "ready" else queue.lease(timeout=HANG)
        if job is not None and state == "delayed":
            job.release(delay=HANG)

        def wait(seconds: float) -> None:
            began = time.monotonic()
            with pytest.raises(ipcq.TimedOutError, match=f"1 {state}"):
                queue.join(timeout=seconds)
            assert seconds <= time.monotonic() - began < seconds + LATE

        until_answered(wait, 0.1)
        if state == "leased" and job is not None:
            job.ack()

    # Looking

    def test_the_figures_count_each_state(self) -> None:
        """C25: each message is in one of them."""
        queue = self.create_leasing()
        queue.put_many([1, 2, 3])
        queue.lease(timeout=HANG).reject()
        queue.lease(timeout=HANG).release(delay=HANG)
        job = queue.lease(timeout=HANG)
        queue.put(4)
        stats = self.attach().stats()
        for figure, right in {"depth": 1, "leased": 1, "delayed": 1, "dead": 1, "returned": 1, "puts": 4}.items():
            assert getattr(stats, figure) in (right, None), figure
        job.ack()

    @pytest.mark.parametrize("after", ["hold", "delay", "release"])
    def test_the_descriptor_tells_when_a_message_is_ready_again(self, after: str) -> None:
        """C32, clause 34: although nobody writes to the queue when a hold or a delay ends."""
        self.needs("pollable")
        queue = self.create_leasing()
        queue.put("job")
        descriptor = self.attach().fileno()
        with unsettled():
            job = queue.lease(timeout=HANG, hold=0.3 if after == "hold" else None)
            if after != "hold":
                assert not readable(descriptor)
                job.release(0.3 if after == "delay" else 0)
            assert readable(descriptor, WOKEN)
            assert queue.get(timeout=HANG) == "job"

    @pytest.mark.parametrize("after", ["hold", "delay", "release"])
    def test_a_notice_comes_when_a_message_is_ready_again(self, after: str) -> None:
        """Clause 34: as if it had been put then."""
        self.needs("notify")
        queue = self.create_leasing()
        queue.put("job")
        called = threading.Event()
        with unsettled():
            job = queue.lease(timeout=HANG, hold=0.3 if after == "hold" else None)
            self.attach().notify(called.set)
            if after != "hold":
                job.release(0.3 if after == "delay" else 0)
            assert called.wait(WOKEN)
            assert queue.get(timeout=HANG) == "job"

    def test_the_descriptor_tells_the_end_when_nothing_is_leased(self) -> None:
        """C32, clause 33: not before the last acknowledgement."""
        self.needs("ends_on_fileno")
        self.needs("shutdown")
        queue = self.create_leasing()
        queue.put("job")
        descriptor = self.attach().fileno()
        job = queue.lease(timeout=HANG)
        queue.shutdown()
        assert not readable(descriptor)
        job.ack()
        assert readable(descriptor, WOKEN)

    # Options

    def test_leases_are_a_property_of_the_queue(self) -> None:
        """Clause 6: every handle has them, whether it asks or not."""
        self.create_leasing(max_deliveries=3)
        for handle in (self.attach(), self.attach(leases=True, max_deliveries=3)):
            assert (handle.capabilities.leases, handle.max_deliveries) == (True, 3)

    @pytest.mark.parametrize("options", [{}, {"leases": True, "max_deliveries": 4}])
    def test_other_leases_than_those_of_the_queue_are_a_mismatch(self, options: dict[str, Any]) -> None:
        """Clause 6: leases and max_deliveries are compared."""
        self.needs("leases")
        self.create(**options)
        with pytest.raises(ipcq.QueueMismatch):
            self.attach(leases=True, max_deliveries=5)

    def test_leases_are_refused_at_creation_where_they_cannot_be(self) -> None:
        """Clause 20: open raises Unsupported, names a backend that can if there is one, and creates nothing."""
        self.lacks("leases")
        with pytest.raises(ipcq.Unsupported, match="leases") as caught:
            self.create(leases=True)
        usable = {info.name: info.capabilities for info in ipcq.backends() if info.usable}
        for name in caught.value.alternatives:
            able = usable[name]
            assert able is not None and able.leases and repr(caught.value.alternatives[0]) in str(caught.value)
        assert not ipcq.exists(self.name, self.backend)

    # Bad input

    @pytest.mark.parametrize("hold", [0, *NO_DURATIONS[:-1]], ids=repr)
    def test_a_bad_hold_is_refused(self, hold: Any) -> None:
        """C25: InvalidArgument, and nothing is leased."""
        queue = self.create_leasing()
        queue.put("job")
        for take in (queue.lease, lambda **hold: queue.lease_many(1, **hold)):
            with pytest.raises(ipcq.InvalidArgument):
                take(hold=hold)
        assert queue.qsize() == 1

    @pytest.mark.parametrize("delay", NO_DURATIONS[:-1], ids=repr)
    def test_a_bad_delay_is_refused(self, delay: Any) -> None:
        """C25: InvalidArgument, and nothing is changed."""
        queue = self.create_leasing()
        with pytest.raises(ipcq.InvalidArgument):
            queue.put("item", delay=delay)
        assert queue.empty()
        queue.put("job")
        with queue.lease(timeout=HANG) as job:
            for settle in (job.release, lambda delay: job.fail("", delay)):
                with pytest.raises(ipcq.InvalidArgument):
                    settle(delay)
            assert not job.lost

    @pytest.mark.parametrize("seconds", [0, *NO_DURATIONS], ids=repr)
    def test_a_bad_extension_is_refused(self, seconds: Any) -> None:
        """C25: InvalidArgument, and the lease stays as it is."""
        queue = self.create_leasing()
        queue.put("job")
        with queue.lease(timeout=HANG) as job:
            with pytest.raises(ipcq.InvalidArgument):
                job.extend(seconds)
            assert not job.lost

    @pytest.mark.parametrize("number", [0, -1, True, 1.0, "1", None], ids=repr)
    def test_a_bad_number_is_refused(self, number: Any) -> None:
        """C25: lease_many and requeue raise InvalidArgument and change nothing."""
        queue = self.create_leasing()
        queue.put_many([1, 2])
        queue.lease(timeout=HANG).reject()
        with pytest.raises(ipcq.InvalidArgument):
            queue.lease_many(number)
        if number is not None:
            with pytest.raises(ipcq.InvalidArgument):
                queue.dead().requeue(number)
        assert (queue.qsize(), queue.dead().qsize()) == (1, 1)

    def test_a_bad_reason_is_refused(self) -> None:
        """C25: InvalidArgument, and the lease stays as it is."""
        queue = self.create_leasing()
        queue.put("job")
        with queue.lease(timeout=HANG) as job:
            for settle in (job.reject, job.fail):
                with pytest.raises(ipcq.InvalidArgument):
                    settle(b"bytes")  # type: ignore[arg-type]  # the mistake
            assert not job.lost

    def test_a_handle_that_does_not_read_leases_nothing(self) -> None:
        """C27: PermissionDenied, as for get."""
        queue = self.create_leasing()
        queue.put("job")
        writer = self.attach(read=False)
        for call in (writer.lease, lambda: writer.lease_many(1), writer.dead().clear, writer.dead().peek):
            with pytest.raises(ipcq.PermissionDenied):
                call()
        assert queue.qsize() == 1
