"""C22, C10, C14: awaited calls are served in order, end at their timeout, and end when the handle is closed."""

import gc
import math
import os
import pickle
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import ipcq.aio
from aio.conftest import Run
from ipcq.testing.processes import Peers, fresh_name, say
from processes.sizes import size

#: Seconds for what has to happen at once: ten times the bound of its promise.
SOON = 2.5

#: Tasks that wait on one handle. The cost of a task is that of the event loop, so one backend is tested with the most.
TASKS = 2_000
MOST_TASKS = size(2_000, 1_000_000)

Handle = ipcq.Queue[Any]


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await anyio.sleep(0.001)


def test_items_come_in_order(handle: Handle, run: Run) -> None:
    """A producer and a consumer share one handle to a queue that is often full and often empty."""

    async def main() -> list[int]:
        queue = ipcq.aio.Queue(handle)
        async with anyio.create_task_group() as group:

            async def produce() -> None:
                for number in range(300):
                    await queue.put(number)

            group.start_soon(produce)
            return [await queue.get() for _ in range(300)]

    assert run(main) == list(range(300))


def test_waiting_tasks_are_served_in_order(handle: Handle, run: Run) -> None:
    """The task that has waited longest gets the first message, even if a new task calls get."""

    async def main() -> list[tuple[int, str]]:
        queue = ipcq.aio.Queue(handle)
        served: list[tuple[int, str]] = []

        async def get(number: int) -> None:
            served.append((number, await queue.get()))

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(get, number)
                await checkpoint()
                await checkpoint()
            for item in "abc":
                queue.put_nowait(item)
            group.start_soon(get, 4)
            await until(lambda: len(served) == 3)
            queue.put_nowait("d")
            queue.put_nowait("e")
        return served

    assert run(main) == [(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e")]


def test_a_put_waits_for_space(handle: Handle, run: Run) -> None:
    """Items of waiting puts keep their order."""

    async def main() -> list[int]:
        queue = ipcq.aio.Queue(handle)
        async with anyio.create_task_group() as group:

            async def produce() -> None:
                for number in range(12):
                    await queue.put(number)

            group.start_soon(produce)
            await until(lambda: handle.full())
            await anyio.sleep(0.05)
            return [await queue.get() for _ in range(12)]

    assert run(main) == list(range(12))


def test_a_batch_has_a_priority(loop: str) -> None:
    """C22, C8: it comes before what was put without one; a queue without priorities refuses it."""

    async def main() -> list[Any]:
        async with ipcq.aio.open(fresh_name(), "memory", priorities=True, max_messages=4) as queue:
            await queue.put_many([1, 2])
            await queue.put_many([3, 4], priority=1)
            taken = await queue.get_many()
            await queue.unlink()
        async with ipcq.aio.open(fresh_name(), "memory", max_messages=4) as queue:
            with pytest.raises(ipcq.Unsupported):
                await queue.put_many([1], priority=1)
            await queue.unlink()
        return taken

    assert anyio.run(main, backend=loop) == [3, 4, 1, 2]


@pytest.mark.parametrize("verb", ["get", "get_many", "get_message", "put", "put_many"])
def test_a_call_behind_others_ends_at_its_timeout(handle: Handle, run: Run, verb: str) -> None:
    """C10: tasks that wait before it do not delay it."""

    async def main() -> float:
        queue = ipcq.aio.Queue(handle)
        arguments = () if verb.startswith("get") else ([1],)
        if arguments:
            queue.put_nowait(0), queue.put_nowait(0), queue.put_nowait(0), queue.put_nowait(0)
        async with anyio.create_task_group() as group:
            group.start_soon(getattr(queue, verb), *arguments)
            await checkpoint()
            await checkpoint()
            began = time.monotonic()
            with pytest.raises(ipcq.TimedOutError, match=queue.name):
                await getattr(queue, verb)(*arguments, timeout=0.2)
            group.cancel_scope.cancel()
        return time.monotonic() - began

    assert 0.2 <= run(main) < 0.7


def test_a_call_that_does_not_block_does_not_wait_in_line(handle: Handle, run: Run) -> None:
    """block=False raises at once, even if other tasks wait."""

    async def main() -> None:
        queue = ipcq.aio.Queue(handle)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(queue.get)
            await anyio.sleep(0.02)
            with pytest.raises(ipcq.QueueEmpty):
                await queue.get(block=False)
            group.cancel_scope.cancel()

    run(main)


def test_a_put_that_is_cancelled_in_line_does_not_block_those_behind_it(handle: Handle, run: Run) -> None:
    """They are served in order."""

    async def main() -> list[Any]:
        queue = ipcq.aio.Queue(handle)
        for number in range(4):
            queue.put_nowait(number)
        async with anyio.create_task_group() as group:
            group.start_soon(queue.put, "first")
            await checkpoint()
            await checkpoint()
            with anyio.move_on_after(0.05):
                await queue.put("given up")
            group.start_soon(queue.put, "last")
            return [await queue.get() for _ in range(6)]

    assert run(main) == [0, 1, 2, 3, "first", "last"]


def test_a_cancelled_task_takes_nothing(handle: Handle, run: Run) -> None:
    """If it is cancelled before the call, the message stays in the queue."""

    async def main() -> None:
        queue = ipcq.aio.Queue(handle)
        queue.put_nowait("kept")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await queue.get()
        assert scope.cancelled_caught

    run(main)
    assert handle.get_nowait() == "kept"


def test_a_task_that_never_waits_lets_others_run(handle: Handle, run: Run) -> None:
    """A task that always finds a message yields to the event loop now and then."""

    async def main() -> None:
        queue = ipcq.aio.Queue(handle)
        over = anyio.Event()
        async with anyio.create_task_group() as group:

            async def end() -> None:
                over.set()

            group.start_soon(end)
            while not over.is_set():
                await queue.put("item")
                await queue.get()

    run(main)


def test_iteration_ends_with_the_queue(handle: Handle, run: Run) -> None:
    """`async for` ends when the queue is shut down and empty."""

    async def main() -> list[str]:
        queue = ipcq.aio.Queue(handle)
        for item in "abc":
            await queue.put(item)
        queue.shutdown()
        return [item async for item in queue]

    assert run(main) == ["a", "b", "c"]


@pytest.mark.parametrize("waiting", [1, 50])
def test_a_close_wakes_every_task(handle: Handle, run: Run, waiting: int) -> None:
    """C14: each raises `QueueClosed` at once."""

    async def main() -> float:
        queue = ipcq.aio.Queue(handle)
        async with anyio.create_task_group() as group:

            async def get() -> None:
                with pytest.raises(ipcq.QueueClosed):
                    await queue.get()

            for _ in range(waiting):
                group.start_soon(get)
            await anyio.sleep(0.02)
            began = time.monotonic()
            await queue.aclose()
        return time.monotonic() - began

    assert run(main) < SOON


def test_a_close_between_a_try_and_its_wait_is_noticed(name: str, handle: Handle, run: Run) -> None:
    """C14: another thread may close then, and the descriptor to wait for is gone."""

    async def main() -> None:
        queue = ipcq.aio.Queue(ipcq.open(name, handle.backend, create=False))
        with pytest.raises(ipcq.QueueEmpty):
            await queue.get(timeout=0.01)
        line = queue._getters.of_this_loop()
        await queue.aclose()
        with pytest.raises(ipcq.QueueClosed):
            await line.serve(queue.get_nowait, math.inf, tried=True)

    run(main)


@pytest.mark.parametrize("end", ["close", "shutdown", "unlink"])
def test_a_close_or_end_by_another_thread_is_noticed(handle: Handle, run: Run, end: str) -> None:
    """C14: the waiting get and all behind it raise."""
    kind = {"close": ipcq.QueueClosed, "shutdown": ipcq.QueueShutDown, "unlink": ipcq.QueueGone}[end]

    async def main() -> None:
        queue = ipcq.aio.Queue(handle)
        ending = threading.Timer(0.1, getattr(handle, end))
        async with anyio.create_task_group() as group:

            async def get() -> None:
                with pytest.raises(kind):
                    await queue.get()

            for _ in range(3):
                group.start_soon(get)
            ending.start()
        ending.join()

    run(main)


def test_putting_a_batch_returns_the_number(handle: Handle, run: Run) -> None:
    """C9: it counts the items that were put in time; `QueueFull` means that there were none."""

    async def main() -> tuple[int, int]:
        queue = ipcq.aio.Queue(handle)
        stored = await queue.put_many(range(6), timeout=0.05), await queue.put_many([])
        with pytest.raises(ipcq.QueueFull):
            await queue.put_many([7], timeout=0.05)
        return stored

    assert run(main) == (4, 0)


def test_putting_a_batch_returns_the_number_if_the_queue_ends_meanwhile(handle: Handle, run: Run) -> None:
    """C9: it counts the items that were put before the shutdown."""

    async def main() -> int:
        queue = ipcq.aio.Queue(handle)
        async with anyio.create_task_group() as group:

            async def end() -> None:
                await until(lambda: handle.full())
                queue.shutdown()

            group.start_soon(end)
            return await queue.put_many(range(6))

    assert run(main) == 4


def test_an_item_does_not_change_while_its_put_waits(handle: Handle, run: Run) -> None:
    """The item is encoded before the call waits."""

    async def main() -> Any:
        queue = ipcq.aio.Queue(handle)
        for _ in range(4):
            queue.put_nowait(None)
        item = ["before"]
        async with anyio.create_task_group() as group:
            group.start_soon(queue.put, item)
            await until(lambda: bool(queue._putters.busy))
            item.append("after")
            for _ in range(4):
                await queue.get()
        return await queue.get()

    assert run(main) == ["before"]


def test_an_item_that_can_never_fit_is_refused_at_once(handle: Handle, run: Run) -> None:
    """C7: even if other tasks wait to put."""

    async def main() -> None:
        queue = ipcq.aio.Queue(handle)
        for _ in range(4):
            queue.put_nowait(None)
        async with anyio.create_task_group() as group:
            group.start_soon(queue.put, None)
            await anyio.sleep(0.02)
            with pytest.raises(ipcq.MessageTooLarge):
                await queue.put(bytes(4096))
            group.cancel_scope.cancel()

    run(main)


def test_two_wrappers_of_one_handle_do_not_block_each_other(handle: Handle, run: Run) -> None:
    """Both wait in one event loop."""

    async def main() -> set[str]:
        wrappers = [ipcq.aio.Queue(handle) for _ in range(2)]
        items: set[str] = set()
        async with anyio.create_task_group() as group:

            async def get(wrapper: "ipcq.aio.Queue[str]") -> None:
                items.add(await wrapper.get())

            for wrapper in wrappers:
                group.start_soon(get, wrapper)
            await anyio.sleep(0.02)
            handle.put("a")
            handle.put("b")
        return items

    assert run(main) == {"a", "b"}


def test_a_handle_can_be_used_from_two_event_loops(handle: Handle, loop: str) -> None:
    """The loops run at the same time, in two threads."""
    queue = ipcq.aio.Queue(handle)
    taken: list[int] = []

    async def consume() -> None:
        taken.extend([item async for item in queue])

    threads = [threading.Thread(target=anyio.run, args=(consume,), kwargs={"backend": loop}) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(200):
        handle.put(number, timeout=SOON)
    handle.shutdown()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(200))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no /dev/fd")
def test_a_handle_outlives_its_event_loop(handle: Handle, run: Run) -> None:
    """It works in the next loop, and the first leaves no descriptor."""
    queue = ipcq.aio.Queue(handle)

    async def wait() -> None:
        with pytest.raises(ipcq.QueueEmpty):
            await queue.get(timeout=0.01)

    run(wait)
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        run(wait)
    gc.collect()
    assert len(os.listdir("/dev/fd")) <= before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no /dev/fd")
def test_closing_leaves_no_descriptor(name: str, handle: Handle, run: Run) -> None:
    """This holds even if a task has waited."""

    async def main() -> tuple[int, int]:
        await checkpoint()
        before = len(os.listdir("/dev/fd"))
        queue = ipcq.aio.Queue(ipcq.open(name, handle.backend, create=False))
        with pytest.raises(ipcq.QueueEmpty):
            await queue.get(timeout=0.01)
        await queue.aclose()
        return before, len(os.listdir("/dev/fd"))

    before, after = run(main)
    assert after <= before


def test_waiting_uses_no_processor_time(handle: Handle, run: Run) -> None:
    """Any number of tasks that wait on one handle cause as many wake-ups as one."""

    tasks = MOST_TASKS if handle.backend == "shm" else TASKS

    async def main() -> float:
        queue = ipcq.aio.Queue(handle)
        async with anyio.create_task_group() as group:
            for _ in range(tasks):
                group.start_soon(queue.get)
            await until(lambda: sum(len(line._turns) for line in queue._getters.busy) == tasks - 1)
            gc.collect()
            gc.freeze()
            used = time.process_time()
            await anyio.sleep(1)
            used = time.process_time() - used
            gc.unfreeze()
            group.cancel_scope.cancel()
        return used

    assert run(main) < 0.2


@pytest.mark.parametrize("backend", ["memory", "pyshm", "shm"], indirect=True)
def test_a_wait_is_counted(handle: Handle, run: Run) -> None:
    """Synchronous waits are counted too, if the backend counts."""

    async def main() -> None:
        queue = ipcq.aio.Queue(handle)
        with pytest.raises(ipcq.QueueEmpty):
            await queue.get(timeout=0.2)

    run(main)
    assert (handle.stats().waits, handle.stats().timeouts) == (1, 1)


def test_waiting_uses_no_thread(handle: Handle, run: Run) -> None:
    """This holds on all bundled backends."""

    async def main() -> set[threading.Thread]:
        queue = ipcq.aio.Queue(handle)
        before = threading.enumerate()  # the thread of another test may end meanwhile
        async with anyio.create_task_group() as group:
            group.start_soon(queue.get)
            await anyio.sleep(0.05)
            more = {*threading.enumerate()} - {*before}
            group.cancel_scope.cancel()
        return more

    assert not run(main)


def test_without_a_free_descriptor_a_call_polls(handle: Handle, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """C24: a call can wait even if no descriptor is left."""
    import socket

    def refuse(number: int) -> int:
        raise OSError(24, "Too many open files")

    async def main() -> str:
        queue = ipcq.aio.Queue(handle)
        monkeypatch.setattr(socket, "dup", refuse)
        async with anyio.create_task_group() as group:

            async def put() -> None:
                await anyio.sleep(0.02)
                await queue.put("item")

            group.start_soon(put)
            return str(await queue.get())

    assert run(main) == "item"


def test_calls_that_do_not_wait_are_those_of_the_handle(handle: Handle) -> None:
    """Properties are those of the wrapped handle, too."""
    queue = ipcq.aio.Queue(handle)
    assert queue.queue is handle
    limits = "max_messages", "max_message_size", "buffer_size"
    facts = "name", "backend", "capabilities", "mode", *limits, "priorities", "lifetime", "options", "closed"
    assert [getattr(queue, each) for each in facts] == [getattr(handle, each) for each in facts]
    assert repr(queue) == repr(handle).replace("ipcq.Queue", "ipcq.aio.Queue")
    queue.put_nowait("item")
    assert (queue.qsize() > 0, queue.empty(), queue.full(), queue.stats().depth) == (
        True,
        False,
        False,
        handle.stats().depth,
    )
    assert queue.get_nowait() == "item"
    assert queue.clear() == 0


@pytest.mark.needs("memory")
def test_peek_fileno_and_notify_are_those_of_the_handle() -> None:
    """The backend has these capabilities."""
    with ipcq.open(fresh_name(), "memory") as handle:
        queue = ipcq.aio.Queue(handle)
        told = threading.Event()
        queue.notify(told.set)
        queue.put_nowait("item")
        assert (queue.peek(), queue.peek_message().item, queue.fileno()) == ("item", "item", handle.fileno())
        assert told.wait(SOON)
        handle.unlink()


@pytest.mark.needs("pyshm")
def test_a_handle_is_pickled_by_name(run: Run) -> None:
    """Unpickling attaches to the queue."""
    name = fresh_name()
    with ipcq.open(name, "pyshm") as handle:
        handle.put("item")
        queue = pickle.loads(pickle.dumps(ipcq.aio.Queue(handle)))

        async def main() -> Any:
            async with queue:
                return await queue.get()

        assert run(main) == "item"
        handle.unlink()


def echo(there: str, back: str, backend: str, loop: str) -> None:
    """Send items back until the queue is shut down."""

    async def main() -> None:
        async with ipcq.aio.open(there, backend) as requests, ipcq.aio.open(back, backend) as replies:
            say("ready")
            async for item in requests:
                await replies.put(item)

    anyio.run(main, backend=loop)


@pytest.mark.parametrize("backend", ["mqueue", "pyshm", "shm", "socketpair"], indirect=True)
@pytest.mark.parametrize("other", ["asyncio", "trio"])
def test_processes_with_different_event_loops_share_queues(name: str, backend: str, run: Run, other: str) -> None:
    """A request goes to a process with another event loop, and comes back."""
    limits = {"max_messages": 4, "max_message_size": 512}
    with (
        ipcq.open(name, backend, exclusive=True, **limits) as there,
        ipcq.open(f"{name}-back", backend, exclusive=True, **limits) as back,
        Peers() as peers,
    ):
        try:
            peer = peers.spawn(echo, name, f"{name}-back", backend, other)
            assert peer.hear() == "ready"

            async def main() -> list[int]:
                requests, replies = ipcq.aio.Queue(there), ipcq.aio.Queue(back)
                came = []
                for number in range(50):
                    await requests.put(number)
                    came.append(await replies.get())
                requests.shutdown()
                return came

            assert run(main) == list(range(50))
            assert peer.wait() == 0
        finally:
            back.unlink()


def get_in_a_child(name: str, backend: str, loop: str) -> None:
    """Wait in an event loop, fork, and let the child wait in another; report whether it got the item."""
    queue = ipcq.aio.Queue(ipcq.open(name, backend, create=False))

    async def wait() -> None:
        with pytest.raises(ipcq.QueueEmpty):
            await queue.get(timeout=0.01)

    async def get() -> Any:
        return await queue.get(timeout=SOON)

    anyio.run(wait, backend=loop)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads; none of them is in a call
        child = os.fork()
    if not child:
        os._exit(anyio.run(get, backend=loop) != "for the child")
    queue.put_nowait("for the child")
    _, status = os.waitpid(child, 0)
    queue.put_nowait("for the parent")
    say([status, anyio.run(get, backend=loop)])
    queue.queue.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
@pytest.mark.parametrize("backend", ["mqueue", "pyshm", "shm", "socketpair"], indirect=True)
def test_a_forked_child_can_wait_in_its_own_event_loop(handle: Handle, loop: str) -> None:
    """C20: it uses the inherited handle, which the parent goes on using."""
    with Peers() as peers:
        peer = peers.spawn(get_in_a_child, handle.name, handle.backend, loop)
        assert peer.hear() == [0, "for the parent"]
        assert peer.wait() == 0
