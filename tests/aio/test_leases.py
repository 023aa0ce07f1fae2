"""C3, C22: leases of tasks. A cancelled task gives its message back, and that is no failure."""

import gc
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

import ipcq.aio
from aio.conftest import Run
from ipcq.testing.processes import fresh_name

pytestmark = pytest.mark.needs("memory")

Handle = ipcq.Queue[Any]


@pytest.fixture
def leasing() -> Iterator[Handle]:
    """Return a handle to a new queue with leases, for two messages, of which one failure makes a dead letter."""
    options = {"exclusive": True, "max_messages": 2, "max_message_size": 512, "max_deliveries": 1}
    with ipcq.open(fresh_name(), "memory", **options) as handle:
        yield handle
        handle.unlink()


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await anyio.sleep(0.001)


def test_the_end_of_the_block_acknowledges(leasing: Handle, run: Run) -> None:
    """As in `ipcq`."""

    async def main() -> Any:
        queue = ipcq.aio.Queue(leasing)
        await queue.put("job")
        async with queue.lease() as job:
            assert (job.item, job.priority, job.deliveries, job.failures) == ("job", 0, 1, 0)
            assert (job.name, job.lost) == (queue.name, False)
            assert repr(job).startswith("<ipcq.aio.Lease on")
        await queue.join()
        return job.lost

    assert run(main) is False


@pytest.mark.parametrize("settle", ["ack", "release", "fail", "reject"])
def test_a_lease_can_be_awaited_and_settled(leasing: Handle, run: Run, settle: str) -> None:
    """With the methods of `ipcq.Lease`."""

    async def main() -> None:
        queue = ipcq.aio.Queue(leasing)
        await queue.put("job")
        job = await queue.lease()
        await job.extend(100)
        await getattr(job, settle)()
        with pytest.raises(ipcq.LeaseLost):
            await job.ack()

    run(main)
    counts = (leasing.qsize(), leasing.dead().qsize())
    assert counts == {"ack": (0, 0), "release": (1, 0), "fail": (0, 1), "reject": (0, 1)}[settle]


@pytest.mark.parametrize("way", ["block", "await"])
def test_a_task_that_is_cancelled_gives_its_message_back(leasing: Handle, run: Run, way: str) -> None:
    """Clause 28: at any await in its block."""

    async def main() -> None:
        queue = ipcq.aio.Queue(leasing)
        await queue.put("job")
        async with anyio.create_task_group() as group:

            async def work() -> None:
                if way == "block":
                    async with queue.lease():
                        await anyio.sleep_forever()
                async with await queue.lease():
                    await anyio.sleep_forever()

            group.start_soon(work)
            await until(queue.empty)
            group.cancel_scope.cancel()

    run(main)
    assert leasing.get(timeout=0) == "job"


def test_a_cancelled_wait_leases_nothing(leasing: Handle, run: Run) -> None:
    """C22: the next message is there for others."""

    async def main() -> None:
        queue = ipcq.aio.Queue(leasing)
        with anyio.move_on_after(0.05):
            async with queue.lease():
                raise AssertionError
        with anyio.move_on_after(0.05):
            async for _ in queue.leases():
                raise AssertionError
        await queue.put("job")

    run(main)
    assert leasing.stats().leased == 0
    assert leasing.get(timeout=0) == "job"


def test_leases_are_iterated(leasing: Handle, run: Run) -> None:
    """The end of the body acknowledges, undecodable messages are skipped, and stop ends the loop."""

    async def main() -> list[Any]:
        queue = ipcq.aio.Queue(leasing)
        with ipcq.open(leasing.name, "memory", serializer="raw") as raw:
            raw.put(b"\xc1")
        await queue.put("job")
        jobs, seen = queue.leases(), []
        async for job in jobs:
            seen.append(job.item)
            jobs.stop()
        return seen

    assert run(main) == ["job"]
    assert (leasing.qsize(), leasing.dead().qsize()) == (0, 1)


def test_leaving_the_loop_is_a_failure(leasing: Handle, run: Run) -> None:
    """Clause 28: as in `ipcq`."""

    async def main() -> None:
        queue = ipcq.aio.Queue(leasing)
        await queue.put("poison")
        async for _ in queue.leases():
            break

    run(main)
    gc.collect()
    assert leasing.dead().peek() == "poison"


def test_an_iteration_ends_with_the_queue(leasing: Handle, run: Run) -> None:
    """Clause 33: it waits while something is leased."""

    async def main() -> list[Any]:
        queue = ipcq.aio.Queue(leasing)
        await queue.put("job")
        queue.shutdown()
        return [job.item async for job in queue.leases()]

    assert run(main) == ["job"]


def test_many_are_leased_and_acknowledged(leasing: Handle, run: Run) -> None:
    """C9: in one step each."""

    async def main() -> list[Any]:
        queue = ipcq.aio.Queue(leasing)
        await queue.put_many([1, 2])
        jobs = await queue.lease_many(5)
        await queue.ack_many(jobs)
        for mistake in ([None], None):
            with pytest.raises(ipcq.InvalidArgument):
                await queue.ack_many(mistake)  # type: ignore[arg-type]  # the mistake
        return [job.item for job in jobs]

    assert run(main) == [1, 2]
    assert leasing.stats().gets == 2


def test_a_delay_counts_from_the_call(leasing: Handle, run: Run) -> None:
    """Clause 26: also if the put waits for space meanwhile."""

    async def main() -> None:
        queue = ipcq.aio.Queue(leasing)
        await queue.put_many([1, 2])
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(lambda: queue.put("later", delay=0.1))
            await anyio.sleep(0.15)
            assert [queue.get_nowait(), queue.get_nowait()] == [1, 2]
        assert [queue.get_nowait(), queue.get_nowait()] == ["later", "later"]

    run(main)


def test_a_bad_delay_is_refused(leasing: Handle, run: Run) -> None:
    """C25: with the name of the queue."""

    async def main() -> None:
        with pytest.raises(ipcq.InvalidArgument, match=leasing.name):
            await ipcq.aio.Queue(leasing).put("item", delay=-1)

    run(main)


def test_join_times_out(leasing: Handle, run: Run) -> None:
    """C10: while other tasks run."""

    async def main() -> None:
        queue = ipcq.aio.Queue(leasing)
        await queue.put("job")
        with pytest.raises(ipcq.TimedOutError):
            await queue.join(0.05)

    run(main)


def test_the_dead_letters_are_those_of_the_queue(leasing: Handle, run: Run) -> None:
    """They need no await."""
    leasing.put("bad")
    leasing.lease().reject()

    async def main() -> Any:
        queue = ipcq.aio.Queue(leasing)
        return queue.dead().get(block=False), queue.max_deliveries

    assert run(main) == ("bad", 1)
