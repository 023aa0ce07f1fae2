"""A handle for tasks: it awaits what may wait, and passes all other calls to the handle that it wraps."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Final, Generic, Literal, Self, TypeVar, overload

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

import ipcq
from ipcq._handle.interface import (
    asking,
    check_max_items,
    copy_into,
    count_wait,
    decoded,
    encode,
    encode_all,
    keep,
    may_block,
    on_channel,
    out_of_time,
    put_encoded,
    slice_of,
    stop_lingering,
    take,
    take_latest,
    take_more,
    viewed,
    waits,
    wake,
    writable,
)
from ipcq._handle.waits import Descriptor, message_fileno, space_fileno
from ipcq._process.deadline import NEVER, PASSED, deadline_of, nap, seconds_of
from ipcq.aio._in_place import Reservation, ViewCall
from ipcq.aio._leases import Lease, LeaseCall, Leases
from ipcq.aio._threads import nothing, run_in_thread
from ipcq.aio._waiters import WaitersByLoop, duplicate_descriptor
from ipcq.backend import Capabilities, Lifetime, Received, Stats
from ipcq.errors import MessageQueueError, QueueEmpty, QueueFull, QueueShutDown, TimedOutError

T = TypeVar("T")
R = TypeVar("R")

#: The longest time for which calls that do not wait may keep other tasks from running.
_BUSY_SECONDS: Final = 0.001


class Queue(Generic[T]):
    """A handle to a named queue of objects, for asyncio and trio, returned by `ipcq.aio.open`.

    Any number of tasks may use one handle, in any number of event loops; synchronous code can use its `queue`. Methods,
    arguments and exceptions are those of `ipcq.Queue`. Methods that may wait are coroutine functions, all others are
    ordinary methods, as in `asyncio.Queue`. A cancelled call has taken and stored nothing. The waiting calls of one
    event loop are served in FIFO order.

    If the queue is on a server or a disk, the coroutine functions make their calls in threads, and a put that is
    cancelled may store its item. An ordinary method asks the server in the thread that calls it, and blocks every task
    there until the answer comes. So call it in another thread: ``await anyio.to_thread.run_sync(q.qsize)``.

    Args:
        queue: The handle that it wraps, and closes.
    """

    def __init__(self, queue: "ipcq.Queue[T]") -> None:
        self._queue = queue
        # Copied inside a call on the channel: after a close the number may already belong to another file.
        messages, space = (
            partial(on_channel, queue, partial(duplicate_descriptor, fileno_of))
            for fileno_of in (message_fileno, space_fileno)
        )
        self._may_block = may_block(queue)
        seconds = slice_of(queue)
        self._getters = WaitersByLoop(Descriptor(messages), anyio.wait_readable, self._pause_getter, seconds)
        self._putters = WaitersByLoop(Descriptor(space), anyio.wait_writable, self._pause_putter, seconds)
        self._busy_until = 0.0

    @property
    def queue(self) -> "ipcq.Queue[T]":
        """The same handle for synchronous code."""
        return self._queue

    # Putting

    @overload
    async def put(
        self,
        item: T,
        block: bool = True,
        timeout: float | None = None,
        *,
        priority: int = 0,
        delay: float = 0,
        drop_oldest: Literal[False] = False,
    ) -> None: ...

    @overload
    async def put(self, item: T, *, priority: int = 0, drop_oldest: Literal[True]) -> int: ...

    async def put(
        self,
        item: T,
        block: bool = True,
        timeout: float | None = None,
        *,
        priority: int = 0,
        delay: float = 0,
        drop_oldest: bool = False,
    ) -> int | None:
        """Put an item, and return when it is stored; as `ipcq.Queue.put`."""
        deadline = self._deadline(block, timeout)
        due = monotonic() + self._seconds(delay, "delay") if delay else 0.0
        await self._checkpoint()
        if drop_oldest:
            put: Callable[..., Any] = self._queue.put
            options = {"timeout": timeout, "priority": priority, "delay": delay, "drop_oldest": True}
            dropped: int = await self._run(partial(put, item, **options))
            return dropped
        tried = not (self._putters.busy or self._may_block)
        if tried:
            try:
                self._queue.put(item, False, priority=priority, delay=delay)
            except QueueFull:
                if deadline == PASSED:
                    raise
            else:
                return None
        # Encode once for all attempts. Nothing was awaited since the first attempt, so the item is unchanged.
        data = encode(self._queue, item, priority)

        def attempt() -> None:
            put_encoded(self._queue, data, priority, PASSED, max(0.0, due - monotonic()) if delay else 0)

        if self._may_block:
            await self._serve(self._putters, attempt, deadline)
        else:
            await self._wait(self._putters, attempt, deadline, tried)
        return None

    def put_nowait(self, item: T) -> None:
        """Put an item if there is space now; as `ipcq.Queue.put_nowait`.

        On a server or a disk, call it in a thread.
        """
        self._queue.put_nowait(item)

    async def put_many(
        self, items: Iterable[T], block: bool = True, timeout: float | None = None, *, priority: int = 0
    ) -> int:
        """Put the items until all are stored or the time is over, and return the number; as `ipcq.Queue.put_many`.

        If it is cancelled, it may have stored the first items. Use a timeout instead to get their number.
        """
        deadline = self._deadline(block, timeout)
        await self._checkpoint()
        batch = encode_all(self._queue, items, priority)
        also = (priority,) if priority else ()
        stored = 0

        def store() -> int:
            nonlocal stored
            try:
                stored += on_channel(self._queue, lambda channel: channel.try_put_many(batch[stored:], *also))
            except MessageQueueError:
                if not stored:  # otherwise the caller needs the number of stored messages
                    raise
                return stored
            if stored < len(batch):
                raise self._with_location(out_of_time(self._queue, QueueFull))
            return stored

        try:
            return await self._serve(self._putters, store, deadline)
        except QueueFull:
            if not stored:
                raise
            return stored

    # Getting

    async def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the next item; as `ipcq.Queue.get`."""
        deadline = self._deadline(block, timeout)
        await self._checkpoint()
        if self._may_block:
            return decoded(self._queue, await self._take(1, deadline))[0]
        return await self._serve(self._getters, self._queue.get_nowait, deadline)

    def get_nowait(self) -> T:
        """Take the next item if there is one now; as `ipcq.Queue.get_nowait`.

        On a server or a disk, call it in a thread.
        """
        return self._queue.get_nowait()

    async def get_many(
        self, max_items: int | None = None, block: bool = True, timeout: float | None = None, *, linger: float = 0
    ) -> list[T]:
        """Wait for one item, then take all items that are in the queue; as `ipcq.Queue.get_many`."""
        deadline = self._deadline(block, timeout)
        seconds = self._seconds(linger, "linger")
        await self._checkpoint()
        if self._may_block or seconds:
            on_channel(self._queue, lambda _: check_max_items(max_items))
            messages = await self._take(max_items, deadline)
            if seconds:
                await self._linger(messages, max_items, monotonic() + seconds)
            return decoded(self._queue, messages)
        return await self._serve(self._getters, partial(self._queue.get_many, max_items, False), deadline)

    async def get_message(self, block: bool = True, timeout: float | None = None) -> "ipcq.Message[T]":
        """Take the next item and its priority; as `ipcq.Queue.get_message`."""
        deadline = self._deadline(block, timeout)
        await self._checkpoint()
        if self._may_block:
            messages = await self._take(1, deadline)
            priority = messages[0][1]
            return ipcq.Message(decoded(self._queue, messages)[0], priority)
        return await self._serve(self._getters, partial(self._queue.get_message, False), deadline)

    async def get_latest(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the newest item and drop the older ones; as `ipcq.Queue.get_latest`."""
        deadline = self._deadline(block, timeout)
        await self._checkpoint()
        if not self._may_block:
            return await self._serve(self._getters, partial(self._queue.get_latest, False), deadline)
        attempt, undo = partial(take_latest, self._queue), partial(keep, self._queue)
        return decoded(self._queue, await self._serve(self._getters, attempt, deadline, undo))[0]

    async def _linger(self, messages: list[Received], max_items: int | None, until: float) -> None:
        """Add the messages that arrive until then; if the call is cancelled, keep all for the next get."""
        attempt, undo = partial(take_more, self._queue, messages, max_items), partial(keep, self._queue)
        rest: list[Received] = []
        try:
            while rest := await self._serve(self._getters, attempt, until, undo):
                messages += rest
        except MessageQueueError:
            pass  # the time is over, or the queue ended after the first message
        except BaseException as error:
            stop_lingering(self._queue, error, messages, rest)

    async def _take(self, max_items: int | None, deadline: float) -> list[Received]:
        """Take messages in a thread; those that a cancelled call takes are kept for the next get."""
        attempt, undo = partial(take, self._queue, max_items), partial(keep, self._queue)
        return await self._serve(self._getters, attempt, deadline, undo)

    # In place

    def reserve(self, size: int, block: bool = True, timeout: float | None = None, *, priority: int = 0) -> Reservation:
        """Return memory for a message, for ``async with``; as `ipcq.Queue.reserve`."""
        deadline_of_put = partial(self._deadline, block, timeout)
        deadline_of_put()  # checks them

        async def put(attempt: Callable[[], None]) -> None:
            deadline = deadline_of_put()
            await self._checkpoint()
            await self._serve(self._putters, attempt, deadline)

        return Reservation(self._queue.reserve(size, False, priority=priority), put)

    def view(self, block: bool = True, timeout: float | None = None, *, hold: float | None = None) -> ViewCall[T]:
        """Take the next message, to be read in its memory in ``async with``; as `ipcq.Queue.view`."""

        async def take() -> "ipcq.View[T]":
            deadline = self._deadline(block, timeout)
            await self._checkpoint()
            if self._may_block and hold is None and not self.capabilities.leases:
                return viewed(self._queue, (await self._take(1, deadline))[0])
            return await self._serve(self._getters, partial(self._queue.view, False, hold=hold), deadline, end_view)

        return ViewCall(take, self._run)

    async def get_into(self, buffer: Any, block: bool = True, timeout: float | None = None) -> int:
        """Take the next message, and copy its bytes into a buffer; as `ipcq.Queue.get_into`."""
        deadline = self._deadline(block, timeout)
        await self._checkpoint()
        if self._may_block:
            with on_channel(self._queue, lambda _: writable(buffer)) as target:
                return copy_into(self._queue, (await self._take(1, deadline))[0], target)
        return await self._serve(self._getters, partial(self._queue.get_into, buffer, False), deadline)

    # Leasing

    def lease(self, block: bool = True, timeout: float | None = None, *, hold: float | None = None) -> LeaseCall[T]:
        """Take the next message on loan; as `ipcq.Queue.lease`.

        ``async with q.lease() as job:`` also settles it; after ``job = await q.lease()`` you do.
        """

        async def take() -> "ipcq.Lease[T]":
            deadline = self._deadline(block, timeout)
            await self._checkpoint()
            attempt = partial(self._queue.lease, False, hold=hold)
            return await self._serve(self._getters, attempt, deadline, give_back)

        return LeaseCall(take, self._run)

    async def lease_many(
        self, max_items: int, block: bool = True, timeout: float | None = None, *, hold: float | None = None
    ) -> list[Lease[T]]:
        """Wait for one message, then take all that are ready on loan; as `ipcq.Queue.lease_many`."""
        deadline = self._deadline(block, timeout)
        await self._checkpoint()
        attempt = partial(self._queue.lease_many, max_items, False, hold=hold)
        leases = await self._serve(self._getters, attempt, deadline, give_back_all)
        return [Lease(each, self._run) for each in leases]

    async def ack_many(self, leases: Iterable[Lease[T]]) -> None:
        """Acknowledge any number of leases of this handle in one step; as `ipcq.Queue.ack_many`."""
        await self._checkpoint()
        given: Any = leases
        if isinstance(given, Iterable):
            given = [getattr(each, "_inner", each) for each in given]
        await self._run(partial(self._queue.ack_many, given))

    def leases(self, *, hold: float | None = None) -> Leases[T]:
        """Iterate over leases until the queue has ended, with ``async for``; as `ipcq.Queue.leases`."""

        async def serve(attempt: Callable[[], "ipcq.Lease[T]"]) -> "ipcq.Lease[T]":
            await self._checkpoint()
            return await self._serve(self._getters, attempt, NEVER, give_back)

        return Leases(self._queue.leases(hold=hold), serve, self._run)

    async def join(self, timeout: float | None = None) -> None:
        """Wait until nothing in the queue is ready, leased or delayed; as `ipcq.Queue.join`."""
        deadline, since = self._deadline(True, timeout), monotonic()
        while True:
            await self._checkpoint()
            try:
                return await self._run(partial(self._queue.join, 0))
            except TimedOutError:
                if monotonic() >= deadline:
                    raise
            await anyio.sleep(nap(since, deadline))

    def dead(self) -> "ipcq.DeadLetters[T]":
        """Return the dead letters; as `ipcq.Queue.dead`. Pass ``block=False`` or a thread to their `get`."""
        return self._queue.dead()

    def __aiter__(self) -> Self:
        """Take items until the queue is shut down and empty."""
        return self

    async def __anext__(self) -> T:
        try:
            return await self.get()
        except QueueShutDown:
            raise StopAsyncIteration from None

    # Waiting

    def _deadline(self, block: bool, timeout: float | None) -> float:
        try:
            return deadline_of(block, timeout)
        except MessageQueueError as error:
            raise self._with_location(error)

    def _seconds(self, value: float, argument: str) -> float:
        try:
            return seconds_of(value, argument)
        except MessageQueueError as error:
            raise self._with_location(error)

    def _with_location(self, error: MessageQueueError) -> MessageQueueError:
        return error.at(self.name, self.backend)

    async def _checkpoint(self) -> None:
        """Raise if the task was cancelled, and let other tasks run from time to time."""
        if monotonic() < self._busy_until:
            await checkpoint_if_cancelled()
        else:
            await checkpoint()
            self._busy_until = monotonic() + _BUSY_SECONDS

    async def _serve(
        self,
        waiters: WaitersByLoop,
        attempt: Callable[[], R],
        deadline: float,
        undo: Callable[[R], object] = nothing,
    ) -> R:
        """Attempt until there is no `QueueEmpty` or `QueueFull`; `undo` gets the result of a cancelled attempt."""
        tried = not waiters.busy
        if tried:
            try:
                return await self._attempt(attempt, deadline, undo) if self._may_block else attempt()
            except (QueueEmpty, QueueFull):
                if deadline == PASSED:
                    raise
        return await self._wait(waiters, attempt, deadline, tried, undo)

    async def _wait(
        self,
        waiters: WaitersByLoop,
        attempt: Callable[[], R],
        deadline: float,
        tried: bool,
        undo: Callable[[R], object] = nothing,
    ) -> R:
        succeeded = False
        call = partial(self._attempt, attempt, deadline, undo)
        try:
            result = await waiters.of_this_loop().serve(call, deadline, tried)
            succeeded = True
            return result
        finally:
            count_wait(self._queue, succeeded)

    async def _attempt(self, attempt: Callable[[], R], deadline: float, undo: Callable[[R], object]) -> R:
        if not self._may_block:
            return attempt()

        def attempt_until_deadline() -> R:
            return asking(self._queue, deadline).run(attempt)

        return await run_in_thread(attempt_until_deadline, undo)

    async def _run(self, call: Callable[[], R]) -> R:
        """Make a call that does not wait, in a thread if it may block."""
        return await run_in_thread(call, nothing) if self._may_block else call()

    async def _pause_getter(self, since: float, until: float) -> None:
        await self._pause(since, until, lambda: waits(self._queue).wait_readable(since, until))

    async def _pause_putter(self, since: float, until: float) -> None:
        await self._pause(since, until, lambda: waits(self._queue).wait_writable(0, since, until))

    async def _pause(self, since: float, until: float, wait: Callable[[], None]) -> None:
        """Wait where there is no descriptor."""
        if not self._may_block:
            await anyio.sleep(nap(since, until))
            return
        try:
            await run_in_thread(partial(on_channel, self._queue, lambda _: wait()), nothing)
        except BaseException:
            wake(self._queue)  # the thread must not outlast a cancelled task
            raise

    # Looking

    def peek(self) -> T:
        """Return the next item without taking it; as `ipcq.Queue.peek`.

        On a server or a disk, call it in a thread.
        """
        return self._queue.peek()

    def peek_message(self) -> "ipcq.Message[T]":
        """Return the next item and its priority without taking it; as `ipcq.Queue.peek_message`.

        On a server or a disk, call it in a thread.
        """
        return self._queue.peek_message()

    def clear(self) -> int:
        """Drop all messages in the queue; as `ipcq.Queue.clear`.

        On a server or a disk, call it in a thread.
        """
        return self._queue.clear()

    def qsize(self) -> int:
        """Return the number of messages in the queue; as `ipcq.Queue.qsize`.

        On a server or a disk, call it in a thread.
        """
        return self._queue.qsize()

    def empty(self) -> bool:
        """Return whether a get would have had to wait.

        On a server or a disk, call it in a thread.
        """
        return self._queue.empty()

    def full(self) -> bool:
        """Return whether a put of the smallest message would have had to wait.

        On a server or a disk, call it in a thread.
        """
        return self._queue.full()

    def stats(self) -> Stats:
        """Return the queue's statistics over all processes; as `ipcq.Queue.stats`.

        On a server or a disk, call it in a thread.
        """
        return self._queue.stats()

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._queue.name

    @property
    def backend(self) -> str:
        """Name of the queue's backend."""
        return self._queue.backend

    @property
    def capabilities(self) -> Capabilities:
        """What this queue can do."""
        return self._queue.capabilities

    @property
    def mode(self) -> int:
        """The queue's permission bits."""
        return self._queue.mode

    @property
    def max_messages(self) -> int | None:
        """Capacity in messages; None if it is limited in bytes only."""
        return self._queue.max_messages

    @property
    def max_message_size(self) -> int:
        """Largest encoded message, in bytes."""
        return self._queue.max_message_size

    @property
    def buffer_size(self) -> int | None:
        """Capacity in bytes; None if it is limited in messages only."""
        return self._queue.buffer_size

    @property
    def priorities(self) -> bool:
        """Whether messages have priorities."""
        return self._queue.priorities

    @property
    def max_deliveries(self) -> int | None:
        """Failed deliveries that make a message a dead letter; None: any number."""
        return self._queue.max_deliveries

    @property
    def lifetime(self) -> Lifetime:
        """When the queue is removed: ``"persistent"`` or ``"last-close"``."""
        return self._queue.lifetime

    @property
    def options(self) -> Mapping[str, Any]:
        """The backend-specific options with which the queue was created."""
        return self._queue.options

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return self._queue.closed

    def fileno(self) -> int:
        """Return a descriptor that is readable while the queue is not empty; as `ipcq.Queue.fileno`.

        On a server or a disk, call it in a thread.
        """
        return self._queue.fileno()

    def notify(self, callback: Callable[[], object] | None = None, *, signal: int | None = None) -> None:
        """Register for one notice when a message arrives in the empty queue; as `ipcq.Queue.notify`.

        On a server or a disk, call it in a thread.
        """
        self._queue.notify(callback, signal=signal)

    # Ends

    def shutdown(self, immediate: bool = False) -> None:
        """Shut down the queue for every process that has it open; as `ipcq.Queue.shutdown`.

        On a server or a disk, call it in a thread.
        """
        self._queue.shutdown(immediate)

    async def aclose(self) -> None:
        """Close this handle and the one that it wraps; the queue and its messages stay.

        Calls of other tasks that wait in this handle raise `QueueClosed`. It also works in a cancelled task. Like
        `ipcq.Queue.close`, it blocks until calls of other threads on the wrapped handle end.
        """
        if self._may_block:
            with anyio.CancelScope(shield=True):
                await run_in_thread(self._queue.close, nothing)
        else:
            self._queue.close()
        self._getters.end()
        self._putters.end()

    async def unlink(self) -> None:
        """Remove the queue's name, in a thread, because it may wait for other processes; as `ipcq.Queue.unlink`."""
        await run_in_thread(self._queue.unlink, lambda _: None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return repr(self._queue).replace("ipcq.Queue", "ipcq.aio.Queue", 1)

    def __reduce__(self) -> tuple[Any, ...]:
        return Queue, (self._queue,)


def give_back(lease: "ipcq.Lease[Any]") -> None:
    """Release a lease that its caller did not get."""
    with suppress(MessageQueueError):  # it is over, or ends by its hold
        lease.release()


def end_view(view: "ipcq.View[Any]") -> None:
    """Give back the message of a view that a cancelled call took."""
    if view.lease is not None:
        give_back(view.lease)
    view.release()


def give_back_all(leases: "list[ipcq.Lease[Any]]") -> None:
    """Release leases that their caller did not get."""
    for each in leases:
        give_back(each)
