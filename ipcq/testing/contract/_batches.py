"""C9: batches report how many messages they moved."""

import itertools
import time

import pytest

import ipcq
from ipcq.testing._answers import until_answered
from ipcq.testing.contract._bench import HANG, LATE, WOKEN, Bench
from ipcq.testing.contract._delivery import switching_often


class Batches(Bench):
    """`put_many` and `get_many`."""

    def test_a_batch_is_stored_in_order_and_counted(self) -> None:
        """C9: put_many returns the number of items that it stored."""
        queue = self.create()
        assert queue.put_many([1, 2, 3]) == 3
        assert self.drain(queue) == [1, 2, 3]

    def test_a_batch_may_come_from_any_iterable(self) -> None:
        """C9: put_many accepts any iterable, such as a generator."""
        queue = self.create()
        assert queue.put_many(number for number in range(3)) == 3

    def test_an_empty_batch_stores_nothing(self) -> None:
        """C9: put_many of no items returns 0."""
        queue = self.create()
        assert queue.put_many([]) == 0
        assert queue.empty()

    def test_as_much_of_a_batch_as_fits_is_stored(self) -> None:
        """C9: the stored items are a prefix of the batch, whose length is returned."""
        queue = self.create()
        count = queue.put_many(list(range(self.capacity + 3)), block=False)
        assert count == self.capacity
        assert self.drain(queue) == list(range(count))

    def test_a_batch_of_which_nothing_fits_is_queue_full(self) -> None:
        """C9: QueueFull is raised only if nothing was stored."""
        queue = self.create()
        count = self.fill(queue)
        with pytest.raises(ipcq.QueueFull):
            queue.put_many(["refused", "refused"], block=False)
        assert self.drain(queue) == list(range(count))

    def test_a_batch_waits_until_its_time_is_over(self) -> None:
        """C9, C10: put_many stores what fits until the timeout, and then returns the count, not earlier."""
        queue = self.create()

        def wait(seconds: float) -> None:
            queue.clear()
            began = time.monotonic()
            count = queue.put_many(list(range(self.capacity + 1)), timeout=seconds)
            passed = time.monotonic() - began
            assert count == self.capacity
            assert seconds <= passed < seconds + LATE

        until_answered(wait, 0.2)

    def test_a_batch_larger_than_the_queue_goes_through_while_somebody_takes(self) -> None:
        """C9: without a timeout, put_many returns when all items are stored."""
        queue = self.create()
        producer = self.start(queue.put_many, list(range(50)))
        assert [queue.get(timeout=HANG) for _ in range(50)] == list(range(50))
        assert producer.outcome() == 50

    def test_a_batch_with_a_bad_item_stores_nothing(self) -> None:
        """C9, C6: all items are encoded before any is stored."""
        queue = self.create()
        with pytest.raises(ipcq.EncodeError):
            queue.put_many([1, 2, object()])
        assert queue.empty()

    def test_a_batch_with_an_item_too_large_stores_nothing(self) -> None:
        """C9, C7: an item that can never fit is refused before any is stored."""
        queue = self.create()
        with pytest.raises(ipcq.MessageTooLarge):
            queue.put_many([1, 2, bytes(self.limit + 1)])
        assert queue.empty()

    def test_a_batch_is_taken_in_order(self) -> None:
        """C9, C8: get_many returns the items in the queue, oldest first."""
        queue = self.create()
        count = self.fill(queue)
        assert queue.get_many(timeout=HANG) == list(range(count))
        assert queue.empty()

    def test_a_batch_is_taken_up_to_its_size(self) -> None:
        """C9: get_many takes at most max_items; the others stay."""
        queue = self.create()
        queue.put_many([1, 2, 3])
        assert queue.get_many(2) == [1, 2]
        assert queue.get_many(2) == [3]

    def test_taking_a_batch_waits_for_its_first_item_only(self) -> None:
        """C9: get_many waits for one item, and takes further ones without waiting."""
        queue = self.create()
        consumer = self.start_waiting(queue.get_many, 10, timeout=HANG)
        queue.put("only")
        assert consumer.outcome() == ["only"]

    def test_taking_a_batch_from_an_empty_queue_is_queue_empty(self) -> None:
        """C9: get_many never returns an empty batch."""
        queue = self.create()
        with pytest.raises(ipcq.QueueEmpty):
            queue.get_many(block=False)

    @pytest.mark.parametrize("verb", ["get", "get_many", "get_message"])
    def test_a_bad_message_in_a_batch_is_told_by_the_next_call(self, verb: str) -> None:
        """C9, C6: get_many returns the valid messages, the next call raises DecodeError, and the one after it works."""
        queue = self.create()
        queue.put("before")
        self.attach(serializer="raw").put(b"\xc1")
        queue.put("behind")
        assert queue.get_many() == ["before", "behind"]
        queue.put("after")
        with pytest.raises(ipcq.DecodeError) as caught:
            getattr(queue, verb)(timeout=HANG)
        assert caught.value.data == b"\xc1"
        assert queue.get(timeout=HANG) == "after"

    def test_a_batch_of_bad_messages_is_told_one_by_one(self) -> None:
        """C9, C6: if no message is valid, each call raises the DecodeError of one message."""
        queue, raw = self.create(), self.attach(serializer="raw")
        raw.put_many([b"\xc1", b"\xc1\x02"])
        for data in (b"\xc1", b"\xc1\x02"):
            with pytest.raises(ipcq.DecodeError) as caught:
                queue.get_many(timeout=HANG)
            assert caught.value.data == data
        queue.put("after")
        assert queue.get_many(timeout=HANG) == ["after"]

    def test_a_bad_message_that_nobody_was_told_of_is_told_at_the_end(self) -> None:
        """C6, C7: no message is dropped silently; closing the handle warns with the message's bytes."""
        queue, other = self.create(), self.attach()
        self.attach(serializer="raw").put_many([b"\xa1x", b"\xc1"])
        assert queue.get_many() == ["x"]
        with pytest.warns(UserWarning, match="xc1"):
            queue.close()
        other.put("after")
        assert other.get(timeout=WOKEN) == "after"

    def test_a_batch_of_each_thread_keeps_its_order(self) -> None:
        """C9, C8: batches of several producers may interleave, but each keeps its order."""
        queue = self.create()
        with switching_often():
            producers = [
                self.start(queue.put_many, [[which, number] for number in range(60)], timeout=HANG)
                for which in range(3)
            ]
            taken: list[list[int]] = []
            while len(taken) < 180:
                taken += queue.get_many(timeout=HANG)
        assert [producer.outcome() for producer in producers] == [60, 60, 60]
        for which in range(3):
            assert [number for producer, number in taken if producer == which] == list(range(60))

    def test_what_a_batch_stores_at_a_time_appears_in_one_step(self) -> None:
        """C9, clause 12: the messages that one attempt stores are contiguous, without those of other producers."""
        self.needs("atomic_batch")
        queue = self.create()
        rounds, size = 60, 3

        def produce(which: int) -> dict[int, int]:
            stored = {}
            for batch in range(rounds):
                while batch not in stored:
                    try:
                        stored[batch] = queue.put_many([[which, batch]] * size, block=False)
                    except ipcq.QueueFull:
                        time.sleep(0)
            return stored

        with switching_often():
            producers = [self.start(produce, which) for which in range(3)]
            taken: list[list[int]] = []
            while any(producer.running() for producer in producers) or not queue.empty():
                try:
                    taken.append(until_answered(lambda seconds: queue.get(timeout=seconds), 0.5))
                except ipcq.QueueEmpty:  # pragma: no cover - only if the last producer ends just then
                    pass
        expected = {
            (which, batch): count
            for which, producer in enumerate(producers)
            for batch, count in producer.outcome().items()
        }
        runs = [(tuple(key), len(list(run))) for key, run in itertools.groupby(taken)]
        assert len(runs) == len(expected)
        assert dict(runs) == expected
