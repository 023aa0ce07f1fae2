"""Opening and unlinking do not block the event loop, end when they are cancelled, and leave no handle."""

import asyncio
import errno
import importlib
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import Any

import anyio
import pytest

import ipcq.aio
from aio.conftest import Run
from ipcq._opening.name_lock import name_lock
from ipcq._process.deadline import NEVER
from ipcq.aio._threads import run_in_thread

#: Seconds after which a cancelled call has ended: ten times the longest pause.
SOON = 0.5


def test_a_block_opens_and_closes_a_handle(name: str, backend: str, run: Run) -> None:
    """`async with` opens a handle and closes it."""

    async def main() -> Any:
        async with ipcq.aio.open(name, backend, max_messages=4, max_message_size=512) as queue:
            await queue.put("item")
            assert await queue.get() == "item"
            await queue.unlink()
        return queue

    assert run(main).closed


def test_a_handle_may_be_opened_without_a_block(name: str, backend: str, run: Run) -> None:
    """`await` returns a handle that the program closes."""

    async def main() -> tuple[bool, bool]:
        queue = await ipcq.aio.open(name, backend, max_messages=4, max_message_size=512)
        opened = queue.closed
        await queue.unlink()
        await queue.aclose()
        await queue.aclose()
        return opened, queue.closed

    assert run(main) == (False, True)


@pytest.mark.parametrize("backend", ["shm"], indirect=True)
def test_opening_can_wait_for_a_missing_queue(name: str, backend: str, run: Run) -> None:
    """wait= lets other tasks run, one of which creates the queue."""

    async def main() -> str:
        async with anyio.create_task_group() as group:

            async def make() -> None:
                await anyio.sleep(0.05)
                with ipcq.open(name, backend) as queue:
                    queue.put("item")

            group.start_soon(make)
            async with ipcq.aio.open(name, backend, create=False, wait=30) as queue:
                return str(await queue.get())

    assert run(main) == "item"


@pytest.mark.parametrize("backend", ["shm"], indirect=True)
def test_opening_raises_the_errors_of_ipcq_open(name: str, backend: str, run: Run) -> None:
    """They are raised when it is awaited."""

    async def main() -> None:
        with pytest.raises(ipcq.QueueNotFound):
            await ipcq.aio.open(name, backend, create=False)
        with pytest.raises(ipcq.InvalidArgument, match="did you mean"):
            async with ipcq.aio.open(name, backend, max_message=3):
                pass

    run(main)


def is_opening() -> bool:
    """Return whether some thread is inside `ipcq.open`; event loops keep idle threads."""
    stacks = map(traceback.walk_stack, sys._current_frames().values())
    return any(frame.f_code is ipcq.open.__code__ for stack in stacks for frame, _ in stack)


@pytest.mark.parametrize("backend", ["shm"], indirect=True)
@pytest.mark.parametrize("what", ["a queue", "a lock"])
def test_a_cancelled_opening_ends_soon(name: str, backend: str, run: Run, what: str) -> None:
    """It also ends in the thread, and creates nothing, whether it waits for a queue or a lock."""
    options = {"create": False, "wait": 3600} if what == "a queue" else {"open_timeout": 3600}

    async def begin() -> None:
        await ipcq.aio.open(name, backend, **options)

    async def main() -> float:
        async with anyio.create_task_group() as group:
            group.start_soon(begin)
            while not is_opening():
                await anyio.sleep(0.01)
            began = time.monotonic()
            group.cancel_scope.cancel()
        return time.monotonic() - began

    with name_lock(name, NEVER):
        assert run(main) < SOON
        until = time.monotonic() + 10 * SOON
        while is_opening() and time.monotonic() < until:
            time.sleep(0.01)
        assert not is_opening()
    assert not ipcq.exists(name, backend)


def test_the_result_of_a_cancelled_call_is_undone(run: Run) -> None:
    """The call itself cannot be interrupted."""
    going, made = threading.Event(), threading.Event()
    undone: list[str] = []

    def make() -> str:
        going.set()
        made.wait()
        return "it"

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(run_in_thread, make, undone.append)
            while not going.is_set():
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()
        made.set()
        while not undone:
            await anyio.sleep(0.001)

    run(main)
    assert undone == ["it"]


@pytest.mark.parametrize("loop", ["asyncio"], indirect=True)
def test_a_result_that_was_not_delivered_before_the_cancellation_is_undone(run: Run) -> None:
    """The thread has finished, but the event loop has not seen it yet."""
    undone: list[str] = []
    threads: list[threading.Thread] = []

    def make() -> str:
        threads.append(threading.current_thread())
        return "it"

    async def main() -> None:
        task = asyncio.create_task(run_in_thread(make, undone.append))
        while not threads:
            await asyncio.sleep(0)
        time.sleep(0.05)  # noqa: ASYNC251 - the loop must not see that the thread has finished
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    run(main)
    assert undone == ["it"]


def test_without_anyio_the_error_has_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the extra."""
    monkeypatch.setitem(sys.modules, "anyio", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ipcq-queue\[aio\]'"):
        importlib.reload(ipcq.aio)


@pytest.mark.parametrize("backend", ["shm"], indirect=True)
def test_a_block_that_was_not_entered_closes_nothing(name: str, backend: str, run: Run) -> None:
    """Opening has failed."""

    async def main() -> None:
        opening = ipcq.aio.open(name, backend, create=False)
        with pytest.raises(ipcq.QueueNotFound):
            await opening.__aenter__()
        await opening.__aexit__(None, None, None)

    run(main)


@pytest.mark.parametrize("backend", ["shm"], indirect=True)
def test_without_a_thread_opening_names_the_limit(
    name: str, backend: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C24: the error of the event loop's library is translated."""

    async def no_thread(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        await ipcq.aio.open(name, backend)

    monkeypatch.setattr(anyio.to_thread, "run_sync", no_thread)
    with pytest.raises(ipcq.LimitExceeded, match="so that a thread can be started"):
        run(main)


def test_opening_without_a_descriptor_for_anyio_names_the_limit(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """C24: anyio imports its module for an event loop when the loop first runs."""
    pytest.importorskip("resource", reason="could not import 'resource', which only POSIX has")

    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def opened() -> None:
        await ipcq.aio.open(name, "memory")

    monkeypatch.setattr("ipcq.aio._open.current_token", refuse)
    with pytest.raises(ipcq.LimitExceeded, match="RLIMIT_NOFILE"):
        asyncio.run(opened())
