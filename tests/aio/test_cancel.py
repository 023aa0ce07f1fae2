"""C22: a cancelled call has taken and put nothing, whichever await it was cancelled at."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import ipcq.aio
from aio.conftest import Run
from ipcq.testing.processes import own_seed
from processes.sizes import size

#: Cancelled calls per storm.
CANCELS = size(1_000, 100_000)

WORKERS = 4

Call = Callable[[], Any]


class Scoped:
    """Cancels a call through its cancel scope, as anyio and trio do."""

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()

    async def attempt(self, call: Call) -> bool:
        with anyio.CancelScope() as self._scope:
            await call()
        return not self._scope.cancelled_caught

    def cancel(self) -> None:
        self._scope.cancel()


class Native:
    """Cancels the task of a call, as programs for asyncio do."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None

    async def attempt(self, call: Call) -> bool:
        self._task = asyncio.create_task(call())
        try:
            await self._task
        except asyncio.CancelledError:
            return False
        finally:
            self._task = None
        return True

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class Storm:
    """Producers and consumers that share one handle and whose calls are cancelled at random."""

    def __init__(self, queue: "ipcq.aio.Queue[Any]", way: type[Scoped | Native], seed: int) -> None:
        self._queue = queue
        self._ways = [way() for _ in range(2 * WORKERS)]
        self._random = Random(seed)
        self._cancelled = 0
        self.stored: list[str] = []
        self.taken: list[str] = []

    async def rage(self) -> None:
        async with anyio.create_task_group() as group:
            for number in range(WORKERS):
                group.start_soon(self._produce, number, self._ways[number])
                group.start_soon(self._consume, self._ways[WORKERS + number])
            while self._cancelled < CANCELS:
                self._random.choice(self._ways).cancel()
                for _ in range(self._random.randrange(4)):
                    await checkpoint()
                if self._random.random() < 0.2:
                    await anyio.sleep(self._random.random() / 1000)
        with suppress(ipcq.QueueEmpty):  # items that a producer put after the consumers had ended
            while True:
                self.taken.append(self._queue.get_nowait())

    @property
    def _over(self) -> bool:
        return self._cancelled >= CANCELS

    async def _produce(self, producer: int, way: Scoped | Native) -> None:
        count = 0
        while not self._over:
            item = f"{producer}-{count}"

            async def put() -> None:
                await self._queue.put(item)  # noqa: B023 - it is only called in this iteration
                self.stored.append(item)  # noqa: B023

            if await way.attempt(put):
                count += 1
            else:
                self._cancelled += 1

    async def _consume(self, way: Scoped | Native) -> None:
        async def get() -> None:
            self.taken.append(await self._queue.get(timeout=0.5))

        while not self._over or len(self.taken) < len(self.stored):
            try:
                if not await way.attempt(get):
                    self._cancelled += 1
            except ipcq.QueueEmpty:
                pass


@pytest.mark.parametrize(
    ("loop", "way"), [("asyncio", Scoped), ("asyncio", Native), ("trio", Scoped)], indirect=["loop"]
)
def test_cancelling_neither_loses_nor_duplicates_items(
    handle: "ipcq.Queue[Any]", run: Run, way: type[Scoped | Native]
) -> None:
    """Each item that was put is taken once, whichever calls are cancelled."""

    async def rage() -> Storm:
        queue = ipcq.aio.Queue(handle)
        storm = Storm(queue, way, own_seed())
        with anyio.CancelScope(shield=True):
            await storm.rage()
        assert not queue._getters.busy
        assert not queue._putters.busy
        return storm

    storm = run(rage)
    assert Counter(storm.taken) == Counter(storm.stored)
    assert storm.stored
    assert handle.empty()
