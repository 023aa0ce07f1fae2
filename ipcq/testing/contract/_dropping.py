"""Clauses 43 and 44: a put drops the oldest messages, and a get takes the newest and drops the older ones."""

from contextlib import suppress
from typing import Any

import pytest

import ipcq
from ipcq.testing.contract._bench import HANG, WOKEN, Bench
from ipcq.testing.contract._delivery import ascends, switching_often

#: Kinds of queues, by the options that make them.
KINDS: tuple[str, ...] = ("plain", "priorities", "leases")


class Dropping(Bench):
    """Puts with `drop_oldest`, and `get_latest`."""

    def create_dropping(self, kind: str = "plain", **options: Any) -> "ipcq.Queue[Any]":
        """Create the test's queue."""
        self.needs("drop_oldest")
        if kind != "plain":
            self.needs(kind)
            options[kind] = True
        return self.create(**options)

    def _filled(self, kind: str = "plain", **options: Any) -> "ipcq.Queue[Any]":
        queue = self.create_dropping(kind, **options)
        assert queue.put_many(list(range(self.capacity)), block=False) == self.capacity
        return queue

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_put_drops_the_oldest_and_says_how_many(self, kind: str) -> None:
        """C7, clause 43: only if there is no space, and no more than necessary; `stats` counts it."""
        queue = self._filled(kind)
        assert queue.put("first", drop_oldest=True) == 1
        assert queue.get(timeout=HANG) == 1
        assert queue.put("second", drop_oldest=True) == 0
        assert self.attach().stats().dropped in (1, None)
        assert self.drain(queue) == [*range(2, self.capacity), "first", "second"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_put_drops_as_many_as_are_in_its_way(self, kind: str) -> None:
        """Clause 43: with a limit in bytes that may be several, but never all, and they are the oldest."""
        queue = self.create_dropping(kind, max_messages=None, max_message_size=2048, buffer_size=4096)
        put = 0
        while True:
            try:
                queue.put([put, bytes(100)], block=False)
            except ipcq.QueueFull:
                break
            put += 1
        dropped = queue.put([put, bytes(1000)], drop_oldest=True)
        assert 1 < dropped < put
        assert [number for number, _ in self.drain(queue)] == list(range(dropped, put + 1))

    @pytest.mark.parametrize("leases", [False, True])
    def test_a_put_drops_the_lowest_priority_and_none_above_its_own(self, leases: bool) -> None:
        """Clause 43: if only higher ones are there, it drops nothing and raises QueueFull."""
        if leases:
            self.needs("leases")
        queue = self.create_dropping("priorities", leases=leases)
        queue.put("old", priority=2)
        queue.put("high", priority=9)
        for _ in range(2, self.capacity):
            queue.put("low", priority=1)
        for number in range(2, self.capacity):
            assert queue.put(f"new {number}", priority=3, drop_oldest=True) == 1
        assert queue.put("last", priority=3, drop_oldest=True) == 1
        left = [f"new {number}" for number in range(2, self.capacity)]
        with pytest.raises(ipcq.QueueFull):
            queue.put("none", priority=2, drop_oldest=True)
        assert self.drain(queue) == ["high", *left, "last"]

    def test_a_put_drops_only_what_is_ready(self) -> None:
        """Clause 43: what is leased, delayed or dead stays, and if nothing else is there the put raises QueueFull."""
        queue = self._filled("leases")
        queue.lease(timeout=HANG).reject()
        queue.lease(timeout=HANG).release(delay=HANG)
        jobs = [queue.lease(timeout=HANG)]
        for number in range(3, self.capacity):
            assert queue.put("new", drop_oldest=True) == 1, number
            jobs.append(queue.lease(timeout=HANG))
        with pytest.raises(ipcq.QueueFull):
            queue.put("none", drop_oldest=True)
        assert (queue.stats().dead, queue.stats().delayed) == (1, 1)
        queue.ack_many(jobs)
        assert queue.put("fits", drop_oldest=True) == 0

    def test_a_put_that_cannot_fit_drops_nothing(self) -> None:
        """C7, clause 43: a message over the limit raises MessageTooLarge; a timeout or a delay beside it is refused."""
        queue = self._filled()
        with pytest.raises(ipcq.MessageTooLarge):
            queue.put(bytes(queue.max_message_size + 1), drop_oldest=True)
        for options in ({"timeout": 1}, {"delay": 1}):
            with pytest.raises(ipcq.InvalidArgument):
                queue.put("item", drop_oldest=True, **options)
        assert self.drain(queue) == list(range(self.capacity))

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_newest_is_taken_and_the_older_ones_are_dropped(self, kind: str) -> None:
        """Clause 44: and only those that were there count as dropped."""
        queue = self._filled(kind)
        assert self.attach().get_latest(timeout=HANG) == self.capacity - 1
        assert queue.stats().dropped in (self.capacity - 1, None)
        with pytest.raises(ipcq.QueueEmpty):
            queue.get_latest(block=False)
        queue.put("one")
        assert queue.get_latest(block=False) == "one"
        assert queue.stats().dropped in (self.capacity - 1, None)

    @pytest.mark.parametrize("leases", [False, True])
    def test_the_newest_of_the_highest_priority_is_taken(self, leases: bool) -> None:
        """Clause 44: messages of other priorities stay."""
        if leases:
            self.needs("leases")
        queue = self.create_dropping("priorities", leases=leases)
        queue.put("high", priority=2)
        queue.put("higher", priority=2)
        queue.put("low", priority=1)
        assert queue.get_latest(timeout=HANG) == "higher"
        assert queue.get_latest(timeout=HANG) == "low"
        assert queue.empty()

    def test_dropping_wakes_who_waits(self) -> None:
        """C13, clauses 43, 44: a put that drops wakes a consumer, and a get of the latest wakes a producer."""
        queue = self.create_dropping()
        getter = self.start_waiting(self.attach().get_latest, timeout=HANG)
        queue.put("item", drop_oldest=True)
        assert getter.outcome(WOKEN) == "item"
        self.fill(queue)
        putter = self.start_waiting(self.attach().put, "more", timeout=HANG)
        queue.get_latest(timeout=HANG)
        putter.outcome(WOKEN)
        assert queue.get(timeout=HANG) == "more"

    @pytest.mark.parametrize("end", ["shutdown", "unlink"])
    def test_dropping_ends_with_the_queue(self, end: str) -> None:
        """C14, clauses 4, 15: both calls raise what put and get raise."""
        queue = self._filled()
        other = self.attach()
        if end == "shutdown":
            self.needs("shutdown")
            queue.shutdown()
            error: type[ipcq.MessageQueueError] = ipcq.QueueShutDown
        else:
            queue.unlink()
            error = ipcq.QueueGone
        self.eventually(error, lambda: other.put("item", drop_oldest=True), 1.0)
        if end == "shutdown":
            assert other.get_latest(timeout=HANG) == self.capacity - 1
        self.eventually(error, lambda: other.get_latest(block=False), 1.0)

    @pytest.mark.parametrize("kind", KINDS)
    def test_among_threads_each_message_is_taken_or_dropped(self, kind: str) -> None:
        """C2, C21, clauses 43, 44: none is taken twice, those of each producer come in order, and the counts add up."""
        queue = self.create_dropping(kind)
        each = 50

        def produce(producer: int) -> int:
            handle, dropped, refused = self.attach(), 0, each
            for number in range(each):
                with suppress(ipcq.QueueFull):  # it is busy
                    dropped += handle.put([producer, number], drop_oldest=True)
                    refused -= 1
            return dropped + refused

        def consume() -> list[list[int]]:
            handle, taken = self.attach(), []
            while (item := handle.get(timeout=HANG)) is not None:
                taken.append(item)
            return taken

        with switching_often():
            consumer = self.start(consume)
            producers = [self.start(produce, producer) for producer in range(2)]
            dropped = sum(producer.outcome() for producer in producers)
            queue.put(None, timeout=HANG)
            taken = consumer.outcome()
        assert len(taken) + dropped == 2 * each
        for producer in range(2):
            assert ascends([number for which, number in taken if which == producer])
