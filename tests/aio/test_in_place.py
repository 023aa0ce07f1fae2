"""C22, C39: reservations and views of tasks."""

from collections.abc import Iterator
from typing import Any

import anyio
import pytest

import ipcq.aio
from aio.conftest import Run
from ipcq.aio._queue import end_view
from ipcq.testing.processes import fresh_name

pytestmark = pytest.mark.needs("memory")

Handle = ipcq.Queue[Any]


@pytest.fixture(params=[{}, {"leases": True}], ids=["without leases", "with leases"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the options of a queue."""
    return dict(request.param)


@pytest.fixture(params=[False, True], ids=["at once", "in threads"])
def handle(request: pytest.FixtureRequest, options: dict[str, Any]) -> Iterator[Handle]:
    """Return a handle to a queue of two messages; its calls may block, or not."""
    with ipcq.open(fresh_name(), "memory", serializer="raw", max_messages=2, max_message_size=64, **options) as handle:
        handle._channel.may_block = request.param
        yield handle
        handle.unlink()


def test_the_end_of_the_block_waits_for_space_and_puts(handle: Handle, run: Run) -> None:
    """C22: while other tasks take messages."""

    async def main() -> list[bytes]:
        queue = ipcq.aio.Queue(handle)
        await queue.put_many([b"1", b"2"])

        async def reserve() -> None:
            async with queue.reserve(1) as reservation:
                assert (len(reservation.buffer), reservation.size) == (1, 1)
                reservation.array(1, "u1")[:] = ord("3")
                assert repr(reservation).startswith("<ipcq.aio.Reservation of 1 bytes")

        async with anyio.create_task_group() as group:
            group.start_soon(reserve)
            return [await queue.get() for _ in range(3)]

    assert run(main) == [b"1", b"2", b"3"]


def test_a_reservation_ends_without_a_put(handle: Handle, run: Run) -> None:
    """C22: if it is cancelled, if the block raises, or if the time is over."""

    async def main() -> None:
        queue = ipcq.aio.Queue(handle)
        with pytest.raises(ipcq.InvalidArgument, match="timeout"):
            queue.reserve(1, timeout=-1)
        async with queue.reserve(1) as reservation:
            reservation.cancel()
        with pytest.raises(ZeroDivisionError):
            async with queue.reserve(1):
                _ = 1 / 0
        await queue.put_many([b"1", b"2"])
        with pytest.raises(ipcq.QueueFull):
            async with queue.reserve(1, timeout=0.01):
                pass
        async with queue.reserve(1) as reservation:
            with pytest.raises(BufferError):
                part = reservation.buffer[:]
                await reservation.commit()
            assert part is not None
            reservation.cancel()
        assert await queue.get_many() == [b"1", b"2"]

    run(main)


def test_a_view_is_taken_by_async_with_or_await(handle: Handle, run: Run) -> None:
    """C22: as a lease."""

    async def main() -> None:
        queue = ipcq.aio.Queue(handle)
        await queue.put_many([b"1", b"2"])
        async with queue.view() as view:
            assert view.item == b"1"
        view = await queue.view(timeout=1)
        with view:
            assert view.item == b"2"
        with pytest.raises(ipcq.QueueEmpty):
            async with queue.view(timeout=0.01):
                pass
        if not queue.capabilities.leases:
            with pytest.raises(ipcq.Unsupported):
                await queue.view(hold=1)

    run(main)


def test_a_message_is_copied_into_a_buffer(handle: Handle, run: Run) -> None:
    """C22: and stays for the next get if it is too large."""

    async def main() -> None:
        queue = ipcq.aio.Queue(handle)
        await queue.put(b"item")
        with pytest.raises(ipcq.InvalidArgument):
            await queue.get_into(b"")
        with pytest.raises(ipcq.MessageTooLarge):
            await queue.get_into(bytearray(1))
        target = bytearray(5)
        assert await queue.get_into(target) == 4
        assert target == b"item\0"

    run(main)


def test_the_view_of_a_cancelled_call_is_ended(handle: Handle) -> None:
    """C22: on a queue with leases its message comes back."""
    handle.put(b"item")
    view = handle.view()
    end_view(view)
    assert "ended" in repr(view)
    assert handle.qsize() == handle.capabilities.leases
