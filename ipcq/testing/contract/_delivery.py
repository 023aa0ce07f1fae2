"""C1, C2, C5 to C8, C21: each message arrives once, complete and in order."""

import itertools
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import ipcq
from ipcq.testing._answers import until_answered
from ipcq.testing.contract._bench import HANG, Bench

ITEMS: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**63, -(2**63), 1.5, float("inf"), "", "text", "Grüße\0\n", b"", b"\xc1\xff\0"),
    *([], [1, [2, [3]]], {}, {"key": {"nested": [None]}}, {1: "one", b"two": 2}),
)


def _deep() -> list[Any]:
    nest: list[Any] = []
    for _ in range(5000):
        nest = [nest]
    return nest


def _loop() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


#: Items that MessagePack cannot represent, each for a different reason.
UNENCODABLE: dict[str, Any] = {
    "object": object(),
    "function": print,
    "class": int,
    "set": {1},
    "too_large_an_integer": 2**64,
    "too_small_an_integer": -(2**63) - 1,
    "complex": 1j,
    "lone_surrogate": "\ud800",
    "too_deep": _deep(),
    "endless": _loop(),
    "generator": (number for number in range(3)),
    "hidden_inside": {"list": [1, 2, object()]},
}

#: Messages that cannot be decoded, each broken in a different way.
POISON = {
    "empty": b"",
    "mark_alone": b"\xc1",
    "mark_without_end": b"\xc1\xff\xff\xff\xff\xff\xff",
    "mark_of_pickle": b"\xc1\x01cos\nsystem\n(S'true'\ntR.",
    "mark_of_nobody": b"\xc1\x02payload",
    "mark_of_a_user": b"\xc1\xe9\x07payload",
    "mark_of_broken_msgpack": b"\xc1\x00\x92\x01",
    "short_string": b"\xa5abc",
    "short_bytes": b"\xc4\x05abc",
    "short_integer": b"\xcd\x01",
    "short_float": b"\xcb\x00\x00",
    "short_array": b"\x93\x01\x02",
    "short_map": b"\x82\x01\x02\x03",
    "huge_array": b"\xdd\xff\xff\xff\xff",
    "huge_map": b"\xdf\xff\xff\xff\xff",
    "huge_bytes": b"\xc6\xff\xff\xff\xffx",
    "huge_string": b"\xdb\xff\xff\xff\xffx",
    "huge_extension": b"\xc9\xff\xff\xff\xff\x01x",
    "not_utf8": b"\xa2\xff\xfe",
    "trailing_bytes": b"\x01\x02",
    "array_as_key_without_value": b"\x81\x90",
    "nested_without_end": b"\x91" * 400,
}


@contextmanager
def switching_often() -> Iterator[None]:
    """Make threads switch some 500 times more often than by default."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


def ascends(numbers: list[int]) -> bool:
    """Return whether each number is greater than the one before."""
    return all(earlier < later for earlier, later in itertools.pairwise(numbers))


class Delivery(Bench):
    """Single messages."""

    @pytest.mark.parametrize("item", ITEMS, ids=repr)
    def test_an_item_comes_back_as_it_was_put(self, item: Any) -> None:
        """C25: every backend carries all items that MessagePack can represent."""
        queue = self.create()
        queue.put(item)
        assert queue.get(timeout=HANG) == item

    def test_a_message_stays_when_its_producer_is_killed_right_after_put(self) -> None:
        """C1, clause 8: an item whose put has returned survives its producer."""
        self.needs_processes()
        queue = self.create()
        for number in range(3):
            child = self.launch(
                """
                queue = attach()
                queue.put(int(sys.argv[1]))
                os.kill(os.getpid(), signal.SIGKILL)
                """,
                number,
            )
            assert child.wait() == -signal.SIGKILL
        assert [queue.get(timeout=HANG) for _ in range(3)] == [0, 1, 2]

    def test_a_message_is_there_when_put_returns(self) -> None:
        """C1, clause 8: another handle can get it at once."""
        queue, other = self.create(), self.attach()
        for number in range(50):
            queue.put(number)
            assert other.get_nowait() == number

    def test_no_message_is_delivered_twice_or_lost_among_threads(self) -> None:
        """C2, C21, clauses 9, 10: each message of four producer threads reaches exactly one of four consumers."""
        queue = self.create()
        each = 100

        def produce(producer: int) -> None:
            for number in range(each):
                queue.put([producer, number], timeout=HANG)

        def consume() -> list[list[int]]:
            taken = []
            while (item := queue.get(timeout=5)) is not None:
                taken.append(item)
            return taken

        with switching_often():
            consumers = [self.start(consume) for _ in range(4)]
            for producer in [self.start(produce, producer) for producer in range(4)]:
                producer.outcome()
            for _ in consumers:
                queue.put(None, timeout=HANG)
            taken = sorted(item for consumer in consumers for item in consumer.outcome())
        assert taken == [[producer, number] for producer in range(4) for number in range(each)]

    def test_no_message_is_delivered_twice_or_lost_among_processes(self) -> None:
        """C2, clauses 9, 10: each message reaches exactly one of three consumer processes."""
        self.needs_processes()
        queue = self.create()
        consumers = [
            self.launch(
                """
                queue = attach()
                while (item := queue.get(timeout=10)) is not None:
                    say(item)
                """
            )
            for _ in range(3)
        ]
        for number in range(300):
            queue.put(number, timeout=HANG)
        for _ in consumers:
            queue.put(None, timeout=HANG)
        taken = [list(map(int, consumer.rest())) for consumer in consumers]
        assert all(map(ascends, taken))
        assert sorted(itertools.chain(*taken)) == list(range(300))

    def test_a_killed_consumer_loses_one_message_at_most(self) -> None:
        """C2: SIGKILL at any instant of a get loses at most one message, and duplicates none."""
        self.needs_processes()
        queue = self.create()
        consumer = self.launch(
            """
            queue = attach()
            while True:
                say(queue.get())
            """
        )
        producer = self.start(queue.put_many, range(300), timeout=HANG)
        taken = [int(consumer.hear()) for _ in range(50)]
        consumer.send(signal.SIGKILL)
        taken += map(int, consumer.rest())
        while producer.running() or not queue.empty():
            with suppress(ipcq.QueueEmpty):
                taken.append(until_answered(lambda seconds: queue.get(timeout=seconds), 0.1))
        assert producer.outcome() == 300
        assert ascends(taken)
        assert len(taken) >= 299

    def test_a_put_that_found_no_space_queued_nothing(self) -> None:
        """C5, clause 11: after QueueFull the item is not in the queue."""
        queue = self.create()
        count = self.fill(queue)
        with pytest.raises(ipcq.QueueFull):
            until_answered(lambda seconds: queue.put("refused", timeout=seconds), 0.05)
        assert self.drain(queue) == list(range(count))

    def test_a_get_that_found_nothing_took_nothing(self) -> None:
        """C5, clause 11: after QueueEmpty, the next get finds what was put since."""
        queue = self.create()
        with pytest.raises(ipcq.QueueEmpty):
            until_answered(lambda seconds: queue.get(timeout=seconds), 0.05)
        queue.put("next")
        assert queue.get(timeout=HANG) == "next"

    @pytest.mark.parametrize("kind", UNENCODABLE)
    def test_an_item_that_cannot_be_encoded_queues_nothing(self, kind: str) -> None:
        """C6: put raises EncodeError and leaves the queue unchanged."""
        queue = self.create()
        with pytest.raises(ipcq.EncodeError):
            queue.put(UNENCODABLE[kind])
        assert queue.empty()

    @pytest.mark.parametrize("kind", POISON)
    def test_a_message_that_cannot_be_decoded_is_told_and_passed(self, kind: str) -> None:
        """C6: DecodeError has the message's bytes, and the next get works."""
        queue = self.create()
        queue.put("before")
        self.attach(serializer="raw").put(POISON[kind])
        queue.put("after")
        assert queue.get(timeout=HANG) == "before"
        with pytest.raises(ipcq.DecodeError) as caught:
            queue.get(timeout=HANG)
        assert caught.value.data == POISON[kind]
        assert queue.get(timeout=HANG) == "after"

    def test_a_zero_length_message_arrives_as_one(self) -> None:
        """C7, clause 10: every backend carries zero-length messages."""
        queue = self.create(serializer="raw")
        queue.put(b"")
        queue.put(b"next")
        assert (queue.get(timeout=HANG), queue.get(timeout=HANG)) == (b"", b"next")

    @pytest.mark.parametrize("below", [511, 510, 256, 1, 0])
    def test_a_message_up_to_the_limit_arrives_whole(self, below: int) -> None:
        """C7, clause 10: messages of up to max_message_size bytes fit, and arrive unchanged."""
        queue = self.create(serializer="raw")
        message = bytes(number % 251 for number in range(max(0, self.limit - below)))
        queue.put(message)
        assert queue.get(timeout=HANG) == message

    def test_every_byte_may_stand_everywhere(self) -> None:
        """C7, clause 10: messages may contain any bytes."""
        queue = self.create(serializer="raw")
        for byte in range(256):
            message = bytes((byte,)) * 3
            queue.put(message)
            assert queue.get(timeout=HANG) == message

    def test_a_message_one_byte_over_the_limit_is_refused(self) -> None:
        """C7: every handle raises MessageTooLarge with the size and the limit, and queues nothing."""
        queue, other = self.create(serializer="raw"), self.attach(serializer="raw")
        for handle in (queue, other):
            with pytest.raises(ipcq.MessageTooLarge) as caught:
                handle.put(bytes(self.limit + 1))
            assert (caught.value.size, caught.value.limit) == (self.limit + 1, self.limit)
            assert str(self.limit) in str(caught.value)
            assert str(self.limit + 1) in str(caught.value)
        assert queue.empty()

    def test_the_limit_counts_the_encoded_bytes(self) -> None:
        """C7: max_message_size limits the size of the encoded message."""
        queue = self.create()
        # MessagePack adds a header of three bytes to 256 bytes and more.
        queue.put(bytes(self.limit - 3))
        with pytest.raises(ipcq.MessageTooLarge):
            queue.put(bytes(self.limit - 2))
        assert len(queue.get(timeout=HANG)) == self.limit - 3

    def test_a_message_that_can_never_fit_is_refused_without_waiting(self) -> None:
        """C7: MessageTooLarge comes within 1 ms, even if the queue is full."""
        queue = self.create(serializer="raw")
        for _ in range(self.capacity):
            queue.put(b"")
        message = bytes(1 << 20)
        seconds = []
        for _ in range(5):
            began = time.monotonic()
            with pytest.raises(ipcq.MessageTooLarge):
                queue.put(message, timeout=HANG)
            seconds.append(time.monotonic() - began)
        assert min(seconds) < 0.01

    def test_messages_come_in_the_order_in_which_they_were_put(self) -> None:
        """C8, clause 9: FIFO order holds, also when the backend's storage wraps around."""
        queue = self.create()
        taken = []
        for number in range(50):
            queue.put_nowait(2 * number)
            queue.put_nowait(2 * number + 1)
            taken += [queue.get(timeout=HANG), queue.get(timeout=HANG)]
        assert taken == list(range(100))

    def test_messages_that_wait_together_keep_their_order(self) -> None:
        """C8, clause 9: a full queue is drained in FIFO order."""
        queue = self.create()
        count = self.fill(queue)
        assert self.drain(queue) == list(range(count))

    def test_each_process_finds_its_messages_in_order(self) -> None:
        """C8: with several producer processes, the messages of each keep their order."""
        self.needs_processes()
        queue = self.create()
        for producer in range(3):
            self.launch(
                """
                queue = attach()
                for number in range(100):
                    queue.put([int(sys.argv[1]), number], timeout=10)
                """,
                producer,
            )
        taken = [queue.get(timeout=HANG) for _ in range(300)]
        for producer in range(3):
            assert [number for which, number in taken if which == producer] == list(range(100))

    def test_each_thread_finds_its_messages_in_order(self) -> None:
        """C8, C21: with several producer threads, the messages of each keep their order."""
        queue = self.create()

        def produce(producer: int) -> None:
            for number in range(100):
                queue.put([producer, number], timeout=HANG)

        with switching_often():
            producers = [self.start(produce, producer) for producer in range(3)]
            taken = [queue.get(timeout=HANG) for _ in range(300)]
        for producer in producers:
            producer.outcome()
        for which in range(3):
            assert [number for producer, number in taken if producer == which] == list(range(100))

    def test_messages_of_several_threads_are_never_mixed(self) -> None:
        """C21, clause 10: with several producer threads, each message has the bytes of one of them."""
        queue = self.create(serializer="raw")

        def produce(byte: int) -> None:
            for _ in range(100):
                queue.put(bytes((byte,)) * self.limit, timeout=HANG)

        with switching_often():
            producers = [self.start(produce, byte) for byte in range(4)]
            taken = [queue.get(timeout=HANG) for _ in range(400)]
        for producer in producers:
            producer.outcome()
        assert {(len(message), len(set(message))) for message in taken} == {(self.limit, 1)}

    def test_messages_of_several_processes_are_never_mixed(self) -> None:
        """C8, clause 10: with several producer processes, each message has the bytes of one of them."""
        self.needs_processes()
        queue = self.create(serializer="raw")
        for byte in range(3):
            self.launch(
                """
                queue = attach(serializer="raw")
                for _ in range(100):
                    queue.put(bytes((int(sys.argv[1]),)) * queue.max_message_size, timeout=10)
                """,
                byte,
            )
        taken = [queue.get(timeout=HANG) for _ in range(300)]
        assert {(len(message), len(set(message))) for message in taken} == {(self.limit, 1)}

    def test_threads_that_open_and_use_the_queue_by_themselves_meet(self) -> None:
        """C21: several handles in one process work like handles in several processes."""
        self.create()
        gate = threading.Barrier(4)

        def take_part(number: int) -> Any:
            queue = self.attach()
            gate.wait(HANG)
            queue.put(number, timeout=HANG)
            return queue.get(timeout=HANG)

        workers = [self.start(take_part, number) for number in range(4)]
        assert sorted(worker.outcome() for worker in workers) == [0, 1, 2, 3]
