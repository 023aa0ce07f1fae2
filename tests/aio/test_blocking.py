"""C22: where calls may block, as on a server, they run in threads: other tasks go on, and nothing taken is lost."""

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
import pytest

import ipcq.aio
from aio.conftest import PATIENCE, Run
from ipcq.aio._queue import end_view
from ipcq.aio._threads import _MOST_THREADS
from ipcq.backend import Operation, ask
from ipcq.testing.processes import fresh_name

pytestmark = pytest.mark.needs("memory")


class Gate:
    """Makes a function of a channel stand still, as a server that does not answer."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.done = threading.Event()

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def stand_still(*arguments: Any) -> Any:
            self.entered.set()
            assert self.open.wait(PATIENCE)
            try:
                return function(*arguments)
            finally:
                self.done.set()

        return stand_still


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def handle() -> Iterator["ipcq.Queue[Any]"]:
    """Return a handle to a queue with leases and priorities whose calls may block."""
    name = fresh_name()
    with ipcq.open(name, "memory", leases=True, priorities=True, max_messages=4, max_message_size=512) as handle:
        handle._channel.may_block = True
        yield handle
    ipcq.unlink(name, "memory")


def block(handle: "ipcq.Queue[Any]", gate: Gate, function: str) -> None:
    """Let a function of the channel stand still, or one of the handle that replaces it."""
    owner: Any = handle if function.startswith("_") else handle._channel
    setattr(owner, function, gate.before(getattr(owner, function)))


async def until(event: threading.Event) -> None:
    """Wait for an event of a thread, and let other tasks run."""
    while not event.is_set():
        await anyio.sleep(0.001)


async def lease(queue: "ipcq.aio.Queue[Any]") -> None:
    await (await queue.lease()).release()


async def lease_many(queue: "ipcq.aio.Queue[Any]") -> None:
    for each in await queue.lease_many(1):
        await each.release()


async def view(queue: "ipcq.aio.Queue[Any]") -> None:
    end_view(await queue.view())


async def reserve(queue: "ipcq.aio.Queue[Any]") -> None:
    async with queue.reserve(4):
        pass


CALLS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "put": ("_try_put", lambda q: q.put("item")),
    "put_many": ("try_put_many", lambda q: q.put_many(["item"])),
    "get": ("_try_get", lambda q: q.get()),
    "get_many": ("_try_get", lambda q: q.get_many()),
    "get_message": ("_try_get", lambda q: q.get_message()),
    "get_into": ("_try_get", lambda q: q.get_into(bytearray(10))),
    "reserve": ("_try_put", reserve),
    "view": ("try_lease", view),
    "lease": ("try_lease", lease),
    "lease_many": ("try_lease_many", lease_many),
    "join": ("counts", lambda q: q.join(0)),
}


@pytest.mark.parametrize("call", CALLS)
def test_other_tasks_go_on(handle: "ipcq.Queue[Any]", gate: Gate, run: Run, call: str) -> None:
    """The event loop's thread does not make the call."""
    function, make = CALLS[call]
    if call not in ("put", "put_many", "reserve", "join"):
        handle.put(b"first")
    block(handle, gate, function)

    async def use() -> None:
        queue = ipcq.aio.Queue(handle)
        async with anyio.create_task_group() as group:
            group.start_soon(make, queue)
            await until(gate.entered)
            gate.open.set()

    run(use)


CANCELLED = {
    name: CALLS[name] for name in ("get", "get_many", "get_message", "get_into", "view", "lease", "lease_many")
}


@pytest.mark.parametrize("call", CANCELLED)
@pytest.mark.parametrize("native", [False, True])
def test_a_cancelled_call_loses_no_message(
    handle: "ipcq.Queue[Any]", gate: Gate, run: Run, loop: str, call: str, native: bool
) -> None:
    """What its thread takes afterwards is returned by the next get, in the old order."""
    function, make = CANCELLED[call]
    handle.put("first", priority=3)
    block(handle, gate, function)

    async def cancel() -> None:
        queue = ipcq.aio.Queue(handle)
        if native and loop == "asyncio":  # trio has no other way than anyio's
            task = asyncio.create_task(make(queue))
            await until(gate.entered)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(make, queue)
                await until(gate.entered)
                group.cancel_scope.cancel()
        gate.open.set()
        await until(gate.done)

    run(cancel)
    handle.put("second")
    assert handle.get_message(timeout=PATIENCE) == ipcq.Message("first", 3)
    assert handle.get(timeout=PATIENCE) == "second"


def test_a_cancelled_wait_ends_its_thread(handle: "ipcq.Queue[Any]", run: Run) -> None:
    """Clause 42: by `wake`."""
    channel: Any = handle._channel
    woken, waiting = threading.Event(), threading.Event()

    def wait_readable(since: float, until: float) -> None:
        waiting.set()
        assert woken.wait(PATIENCE)

    channel.wait_readable, channel.wake = wait_readable, woken.set
    channel.slice = PATIENCE

    def no_descriptor() -> int:
        raise ipcq.Unsupported

    channel.fileno = no_descriptor

    async def cancel() -> None:
        queue = ipcq.aio.Queue(handle)
        async with anyio.create_task_group() as group:
            group.start_soon(queue.get)
            await until(waiting)
            group.cancel_scope.cancel()
        await until(woken)

    run(cancel)


def test_a_wait_for_space_runs_in_a_thread(handle: "ipcq.Queue[Any]", run: Run) -> None:
    """As a wait for a message does."""
    channel: Any = handle._channel
    handle.put_many(range(4))

    def wait_writable(size: int, since: float, until: float) -> None:
        assert threading.current_thread() is not threading.main_thread()
        handle.get()

    channel.wait_writable = wait_writable
    channel.space_fileno = lambda: None

    async def put() -> None:
        await ipcq.aio.Queue(handle).put("last", timeout=PATIENCE)

    run(put)
    assert handle.get_many() == [1, 2, 3, "last"]


def test_a_cancelled_block_settles_its_lease(handle: "ipcq.Queue[Any]", run: Run) -> None:
    """The message is given back in a thread, before the block is left."""
    handle.put("job")

    async def work() -> None:
        queue = ipcq.aio.Queue(handle)
        with anyio.CancelScope() as scope:
            async with queue.lease():
                scope.cancel()
                await anyio.sleep(PATIENCE)
        assert handle.stats().leased == 0

    run(work)
    with handle.lease() as job:
        assert (job.item, job.deliveries, job.failures) == ("job", 2, 0)


def test_leases_are_settled_in_threads(handle: "ipcq.Queue[Any]", gate: Gate, run: Run) -> None:
    """Each settlement asks the server."""
    handle.put_many(["a", "b"])
    channel: Any = handle._channel
    settle, threads = channel.settle, []

    def settled(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return settle(*arguments)

    channel.settle = settled

    async def work() -> None:
        queue = ipcq.aio.Queue(handle)
        await (await queue.lease()).ack()
        await queue.ack_many(await queue.lease_many(1))
        await queue.put("c")
        queue.shutdown()
        async for job in queue.leases():
            assert job.item == "c"

    run(work)
    assert len(threads) == 3
    assert threading.main_thread() not in threads


def test_a_wrong_limit_is_refused_before_anything_is_taken(handle: "ipcq.Queue[Any]", run: Run) -> None:
    """As on other queues."""
    handle.put("kept")

    async def get() -> None:
        with pytest.raises(ipcq.InvalidArgument, match="max_items"):
            await ipcq.aio.Queue(handle).get_many(0)

    run(get)
    assert handle.get_nowait() == "kept"


def test_aclose_lets_other_tasks_go_on(handle: "ipcq.Queue[Any]", gate: Gate, run: Run) -> None:
    """It waits for the calls of other threads."""
    handle.put("item")
    block(handle, gate, "qsize")

    async def close() -> None:
        queue = ipcq.aio.Queue(handle)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, queue.qsize)
            await until(gate.entered)
            group.start_soon(queue.aclose)
            await anyio.sleep(0.01)
            gate.open.set()
        assert queue.closed

    run(close)


def test_its_threads_are_not_those_of_the_program(handle: "ipcq.Queue[Any]", gate: Gate, run: Run) -> None:
    """While a server is silent, the program's own calls in threads still run."""
    handle.put_many(range(4))
    block(handle, gate, "_try_get")

    async def use() -> None:
        queue = ipcq.aio.Queue(handle)
        async with anyio.create_task_group() as group:
            for _ in range(_MOST_THREADS + 1):
                group.start_soon(queue.get, False)
            await until(gate.entered)
            assert await anyio.to_thread.run_sync(lambda: "own") == "own"
            group.cancel_scope.cancel()
        gate.open.set()

    run(use)
    while handle._calls:
        threading.Event().wait(0.001)
    assert sorted(handle.get_nowait() for _ in range(4)) == [0, 1, 2, 3]


def test_a_close_ends_a_call_without_a_timeout_to_a_silent_server(
    handle: "ipcq.Queue[Any]", gate: Gate, run: Run
) -> None:
    """Clause 38: it is not repeated, so `aclose` does not wait for the server."""
    channel: Any = handle._channel

    def lose(operation: Operation) -> Any:
        gate.entered.set()
        raise ipcq.ConnectionLost(outcome="not done")

    handle._try_get = channel.try_get = lambda: ask(lose)

    async def use() -> None:
        queue = ipcq.aio.Queue(handle)

        async def get() -> None:
            with pytest.raises(ipcq.QueueClosed):
                await queue.get()

        async with anyio.create_task_group() as group:
            group.start_soon(get)
            await until(gate.entered)
            await queue.aclose()

    run(use)


@pytest.mark.parametrize(
    "method",
    [
        *("put_nowait", "get_nowait", "peek", "peek_message", "clear", "qsize", "empty", "full", "stats"),
        *("fileno", "notify", "shutdown"),
    ],
)
def test_an_ordinary_method_says_that_it_may_block(method: str) -> None:
    """C22: it cannot be awaited, so its user has to call it in a thread."""
    function = getattr(ipcq.aio.Queue, method)
    assert not inspect.iscoroutinefunction(function)
    assert "On a server or a disk, call it in a thread." in function.__doc__


@pytest.mark.parametrize("method", ["qsize", "stats"])
def test_an_ordinary_method_in_a_thread_lets_other_tasks_go_on(
    method: str, handle: "ipcq.Queue[Any]", gate: Gate, run: Run
) -> None:
    """C22: as the docstrings advise."""
    block(handle, gate, method)
    queue = ipcq.aio.Queue(handle)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, getattr(queue, method))
            while not gate.entered.is_set():
                await anyio.sleep(0.001)
            gate.open.set()

    run(main)
    assert gate.done.is_set()


@pytest.mark.parametrize("blocks", [False, True])
def test_the_oldest_are_dropped_and_the_newest_is_taken(
    handle: "ipcq.Queue[Any]", run: Run, gate: Gate, blocks: bool
) -> None:
    """Clauses 43, 44: in a thread if the calls may block."""
    handle._channel.may_block = blocks

    async def main() -> tuple[int, object, object]:
        queue = ipcq.aio.Queue(handle)
        dropped = sum([await queue.put(number, drop_oldest=True) for number in range(6)])
        newest = await queue.get_latest()
        async with anyio.create_task_group() as group:
            group.start_soon(queue.put, "item")
            return dropped, newest, await queue.get_latest(timeout=PATIENCE)

    assert run(main) == (2, 5, "item")


def test_a_newest_message_that_a_cancelled_call_took_is_kept(handle: "ipcq.Queue[Any]", run: Run, gate: Gate) -> None:
    """C22: the next get returns it."""
    handle.put("item")
    block(handle, gate, "try_get_latest")

    async def main() -> object:
        queue = ipcq.aio.Queue(handle)
        async with anyio.create_task_group() as group:
            group.start_soon(queue.get_latest)
            await until(gate.entered)
            group.cancel_scope.cancel()
            gate.open.set()
        await until(gate.done)
        return await queue.get(timeout=PATIENCE)

    assert run(main) == "item"
