"""C39: messages that are built and read in place, and what refers to their memory afterwards."""

import pytest

import ipcq
from ipcq.testing.contract._bench import Bench
from ipcq.testing.contract._leasing import Leasing

BYTES = bytes(range(200))


class InPlace(Bench):
    """`reserve`, `view` and `get_into`."""

    @pytest.mark.parametrize("serializer", ["raw", "msgpack"])
    def test_a_reservation_is_put_at_the_end_of_its_block(self, serializer: str) -> None:
        """C39: until then nothing is in the queue, and it enters the order behind what was put meanwhile."""
        queue = self.create(serializer=serializer)
        with queue.reserve(len(BYTES)) as reservation:
            reservation.buffer[:] = BYTES
            queue.put(b"meanwhile")
        assert self.drain(queue) == [b"meanwhile", BYTES]

    def test_an_exception_in_its_block_gives_a_reservation_up(self) -> None:
        """C39: nothing is put, and the exception stays."""
        queue = self.create()
        with pytest.raises(ZeroDivisionError), queue.reserve(8):
            _ = 1 / 0
        assert queue.empty()

    def test_a_full_queue_refuses_a_reservation_that_can_be_committed_later(self) -> None:
        """C39: commit raises QueueFull, and what was filled is kept."""
        queue = self.create(serializer="raw")
        with queue.reserve(4, block=False) as reservation:
            reservation.buffer[:] = b"last"
            while not queue.full():
                queue.put(b"")
            with pytest.raises(ipcq.QueueFull):
                reservation.commit()
            self.drain(queue)
            reservation.commit(3)
        assert self.drain(queue) == [b"las"]

    @pytest.mark.parametrize("serializer", ["raw", "msgpack"])
    def test_a_view_takes_the_message(self, serializer: str) -> None:
        """C39: bytes are read-only in place, and the memory ends with the block."""
        queue = self.create(serializer=serializer)
        queue.put(BYTES)
        with queue.view(block=False) as view:
            assert view.item == view.buffer == BYTES
            assert view.buffer.readonly
            assert queue.empty()
        with pytest.raises(ValueError, match="released"):
            view.buffer[0]
        with pytest.raises(ipcq.QueueEmpty):
            queue.view(timeout=0)

    def test_what_refers_to_the_memory_of_a_view_is_told(self) -> None:
        """C39: the end of the block raises BufferError, and the memory can still be read."""
        queue = self.create(serializer="raw")
        queue.put(BYTES)
        with pytest.raises(BufferError, match="refers to the memory"), queue.view() as view:
            part = view.buffer[:100]
        assert part == BYTES[:100]

    def test_a_message_is_copied_into_a_buffer(self) -> None:
        """C39: get_into returns the size; a message that does not fit stays for the next get."""
        queue = self.create()
        queue.put(BYTES)
        with pytest.raises(ipcq.MessageTooLarge):
            queue.get_into(bytearray(len(BYTES) - 1))
        target = bytearray(len(BYTES) + 1)
        assert queue.get_into(target) == len(BYTES)
        assert target == BYTES + b"\0"
        assert queue.empty()


class InPlaceOnLoan(Leasing):
    """`view` on a queue with leases."""

    def test_the_end_of_the_block_acknowledges_the_message_of_a_view(self) -> None:
        """C39: as for a lease."""
        queue = self.create_leasing()
        queue.put({"a": 1})
        with queue.view(hold=60) as view:
            assert view.item == {"a": 1}
        queue.join(timeout=0)

    def test_an_exception_in_the_block_gives_the_message_of_a_view_back(self) -> None:
        """C39: it is a failure, as for a lease."""
        queue = self.create_leasing()
        queue.put("item")
        with pytest.raises(ZeroDivisionError), queue.view():
            _ = 1 / 0
        with queue.lease() as job:
            assert (job.item, job.failures) == ("item", 1)
