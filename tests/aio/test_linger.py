"""Batches that wait for more after their first item, in event loops."""

from typing import Any

import anyio
import pytest

import ipcq.aio
from aio.conftest import Run


@pytest.fixture(params=[False, True], ids=["", "may block"])
def queue(handle: "ipcq.Queue[Any]", request: pytest.FixtureRequest) -> "ipcq.aio.Queue[Any]":
    """Return a handle that makes its calls here, or in threads as for a server or a disk."""
    handle._channel.may_block = request.param
    return ipcq.aio.Queue(handle)


def test_a_batch_lingers_for_max_items(queue: "ipcq.aio.Queue[Any]", run: Run) -> None:
    """C22: it returns as soon as it has them; other tasks run meanwhile."""

    async def main() -> list[Any]:
        async with queue, anyio.create_task_group() as tasks:
            await queue.put(1)

            async def put_later() -> None:
                while not queue.empty():
                    await anyio.sleep(0.001)
                await queue.put_many([2, 3, 4])

            tasks.start_soon(put_later)
            return await queue.get_many(3, linger=60)

    assert run(main) == [1, 2, 3]


def test_a_batch_lingers_for_its_time(queue: "ipcq.aio.Queue[Any]", run: Run) -> None:
    """C22, C10: without max_items it takes what arrives in that time."""

    async def main() -> list[Any]:
        async with queue:
            await queue.put_many([1, 2])
            return await queue.get_many(linger=0.01)

    assert run(main) == [1, 2]


def test_a_cancelled_batch_has_taken_nothing(queue: "ipcq.aio.Queue[Any]", run: Run) -> None:
    """C22: the next gets return what it took, in order."""

    async def main() -> list[Any]:
        async with queue:
            await queue.put_many([1, 2])
            with anyio.move_on_after(0.05):
                await queue.get_many(3, linger=60)
            await queue.put(3)
            return [await queue.get() for _ in range(3)]

    assert run(main) == [1, 2, 3]


def test_a_close_completes_a_batch(queue: "ipcq.aio.Queue[Any]", run: Run) -> None:
    """C22: the items that were taken are returned."""

    async def main() -> list[Any]:
        async with queue, anyio.create_task_group() as tasks:
            await queue.put(1)

            async def close_later() -> None:
                while not queue.empty():
                    await anyio.sleep(0.001)
                await queue.aclose()

            tasks.start_soon(close_later)
            return await queue.get_many(3, linger=60)

    assert run(main) == [1]
