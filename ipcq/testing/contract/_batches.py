"""C9: batches say what happened."""

import itertools
import time

import pytest

import ipcq
from ipcq.testing.contract._bench import HANG, LATE, Bench
from ipcq.testing.contract._delivery import switching_often


class Batches(Bench):
    """`put_many` and `get_many`."""

    def test_a_batch_is_stored_in_order_and_counted(self) -> None:
        """C9: put_many returns how many it stored."""
        queue = self.create()
        assert queue.put_many([1, 2, 3]) == 3
        assert self.drain(queue) == [1, 2, 3]

    def test_a_batch_may_come_from_any_iterable(self) -> None:
        """C9: a generator is a batch too."""
        queue = self.create()
        assert queue.put_many(number for number in range(3)) == 3

    def test_an_empty_batch_stores_nothing(self) -> None:
        """C9: no items are stored and none is missing."""
        queue = self.create()
        assert queue.put_many([]) == 0
        assert queue.empty()

    def test_as_much_of_a_batch_as_fits_is_stored(self) -> None:
        """C9: the stored items are a prefix, and the count says how long."""
        queue = self.create()
        count = queue.put_many(list(range(self.capacity + 3)), block=False)
        assert count == self.capacity
        assert self.drain(queue) == list(range(count))

    def test_a_batch_of_which_nothing_fits_is_queue_full(self) -> None:
        """C9: QueueFull only for zero."""
        queue = self.create()
        count = self.fill(queue)
        with pytest.raises(ipcq.QueueFull):
            queue.put_many(["refused", "refused"], block=False)
        assert self.drain(queue) == list(range(count))

    def test_a_batch_waits_until_its_time_is_over(self) -> None:
        """C9, C10: what fits in the time is stored, and the count comes when it is over, not before."""
        queue = self.create()
        began = time.monotonic()
        count = queue.put_many(list(range(self.capacity + 1)), timeout=0.2)
        seconds = time.monotonic() - began
        assert count == self.capacity
        assert 0.2 <= seconds < 0.2 + LATE

    def test_a_batch_larger_than_the_queue_goes_through_while_somebody_takes(self) -> None:
        """C9: without a timeout put_many returns when all is stored."""
        queue = self.create()
        producer = self.start(queue.put_many, list(range(50)))
        assert [queue.get(timeout=HANG) for _ in range(50)] == list(range(50))
        assert producer.outcome() == 50

    def test_a_batch_with_a_bad_item_stores_nothing(self) -> None:
        """C9, C6: all is encoded before anything is stored."""
        queue = self.create()
        with pytest.raises(ipcq.EncodeError):
            queue.put_many([1, 2, object()])
        assert queue.empty()

    def test_a_batch_with_an_item_too_large_stores_nothing(self) -> None:
        """C9, C7: what can never fit is refused before anything is stored."""
        queue = self.create()
        with pytest.raises(ipcq.MessageTooLarge):
            queue.put_many([1, 2, bytes(self.limit + 1)])
        assert queue.empty()

    def test_a_batch_is_taken_in_order(self) -> None:
        """C9, C8: get_many gives what is there, oldest first."""
        queue = self.create()
        count = self.fill(queue)
        assert queue.get_many(timeout=HANG) == list(range(count))
        assert queue.empty()

    def test_a_batch_is_taken_up_to_its_size(self) -> None:
        """C9: max_items bounds what is taken; the rest stays."""
        queue = self.create()
        queue.put_many([1, 2, 3])
        assert queue.get_many(2) == [1, 2]
        assert queue.get_many(2) == [3]

    def test_taking_a_batch_waits_for_its_first_item_only(self) -> None:
        """C9: at least one item, then what is there."""
        queue = self.create()
        consumer = self.start_waiting(queue.get_many, 10, timeout=HANG)
        queue.put("only")
        assert consumer.outcome() == ["only"]

    def test_taking_a_batch_from_an_empty_queue_is_queue_empty(self) -> None:
        """C9: there is no batch without an item."""
        queue = self.create()
        with pytest.raises(ipcq.QueueEmpty):
            queue.get_many(block=False)

    def test_a_bad_message_ends_the_batch_before_it(self) -> None:
        """C9, C6: the good messages before it are given, then it is told, then the others."""
        queue = self.create()
        queue.put_many(["first", "second"])
        self.attach(serializer="raw").put(b"\xc1")
        queue.put("third")
        assert queue.get_many() == ["first", "second"]
        with pytest.raises(ipcq.DecodeError) as caught:
            queue.get_many()
        assert caught.value.data == b"\xc1"
        assert queue.get_many() == ["third"]

    def test_a_bad_message_told_late_comes_before_what_was_behind_it(self) -> None:
        """C6, C8: after a batch that it ended, a single get meets the bad message first."""
        queue = self.create()
        queue.put("first")
        self.attach(serializer="raw").put(b"\xc1")
        queue.put("second")
        assert queue.get_many() == ["first"]
        with pytest.raises(ipcq.DecodeError):
            queue.get(timeout=HANG)
        assert queue.get(timeout=HANG) == "second"

    def test_a_batch_of_each_thread_keeps_its_order(self) -> None:
        """C9, C8: batches of several writers may interleave, each stays in order."""
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
        """C9, clause 12: no other writer's message stands inside what one try stored."""
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
                    taken.append(queue.get(timeout=0.05))
                except ipcq.QueueEmpty:
                    pass
        expected = {
            (which, batch): count
            for which, producer in enumerate(producers)
            for batch, count in producer.outcome().items()
        }
        runs = [(tuple(key), len(list(run))) for key, run in itertools.groupby(taken)]
        assert len(runs) == len(expected)
        assert dict(runs) == expected
