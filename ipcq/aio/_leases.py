"""Leases for tasks: the same as in `ipcq`, with `await`.

In shared memory, settling a lease never waits, so a settlement that is cancelled has not begun. On a server or a disk,
a thread settles it, and completes that even if the task is cancelled.
"""

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from anyio import CancelScope
from anyio.lowlevel import checkpoint_if_cancelled

import ipcq
from ipcq._handle.interface import LeaseLoop, finish_body, next_lease, skip_message

T = TypeVar("T")
R = TypeVar("R")


class Run(Protocol):
    """Makes a call that does not wait, in a thread if it may block."""

    async def __call__(self, call: Callable[[], R]) -> R: ...


class Lease(Generic[T]):
    """A message on loan, from `ipcq.aio.Queue.lease`; as `ipcq.Lease`, with ``async with``.

    A task that is cancelled in the block gives the message back, and that is no failure.
    """

    __slots__ = ("_inner", "_run")

    def __init__(self, lease: "ipcq.Lease[T]", run: Run) -> None:
        self._inner = lease
        self._run = run

    @property
    def item(self) -> T:
        """The item that was put."""
        return self._inner.item

    @property
    def priority(self) -> int:
        """Its priority, from 0 to 32767."""
        return self._inner.priority

    @property
    def deliveries(self) -> int:
        """How many times the message has been leased, including this time."""
        return self._inner.deliveries

    @property
    def failures(self) -> int:
        """How many of these times have failed: `max_deliveries` bounds them, and `requeue` forgets them."""
        return self._inner.failures

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._inner.name

    @property
    def lost(self) -> bool:
        """Whether the lease has ended without being settled here; as `ipcq.Lease.lost`."""
        return self._inner.lost

    async def ack(self) -> None:
        """Acknowledge the message; as `ipcq.Lease.ack`."""
        await checkpoint_if_cancelled()
        await self._run(self._inner.ack)

    async def release(self, delay: float = 0) -> None:
        """Give the message back without counting a failure; as `ipcq.Lease.release`."""
        await checkpoint_if_cancelled()
        await self._run(partial(self._inner.release, delay))

    async def fail(self, reason: str = "", delay: float = 0) -> None:
        """Give the message back as a failure; as `ipcq.Lease.fail`."""
        await checkpoint_if_cancelled()
        await self._run(partial(self._inner.fail, reason, delay))

    async def reject(self, reason: str = "") -> None:
        """Make the message a dead letter at once; as `ipcq.Lease.reject`."""
        await checkpoint_if_cancelled()
        await self._run(partial(self._inner.reject, reason))

    async def extend(self, seconds: float) -> None:
        """Let the lease end that many seconds from now; as `ipcq.Lease.extend`."""
        await checkpoint_if_cancelled()
        await self._run(partial(self._inner.extend, seconds))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await _leave(self._inner, self._run, kind, error, trace)

    def __repr__(self) -> str:
        return repr(self._inner).replace("ipcq.Lease", "ipcq.aio.Lease", 1)


async def _leave(
    lease: "ipcq.Lease[Any]",
    run: Run,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """Settle a lease at the end of its block, also in a cancelled task."""
    with CancelScope(shield=True):
        await run(partial(lease.__exit__, kind, error, trace))


class LeaseCall(Generic[T]):
    """The result of `ipcq.aio.Queue.lease`: await it to get a lease, or use ``async with`` to lease and settle."""

    def __init__(self, call: Callable[[], Coroutine[Any, Any, "ipcq.Lease[T]"]], run: Run) -> None:
        self._call = call
        self._run = run
        self._inner: ipcq.Lease[T]

    async def _taken(self) -> Lease[T]:
        return Lease(await self._call(), self._run)

    def __await__(self) -> Generator[Any, Any, Lease[T]]:
        return self._taken().__await__()

    async def __aenter__(self) -> Lease[T]:
        self._inner = await self._call()
        return Lease(self._inner, self._run)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await _leave(self._inner, self._run, kind, error, trace)


class Leases(Generic[T]):
    """An asynchronous iterator over leases, from `ipcq.aio.Queue.leases`."""

    def __init__(
        self,
        loop: LeaseLoop[T],
        serve: Callable[[Callable[[], "ipcq.Lease[T]"]], Coroutine[Any, Any, "ipcq.Lease[T]"]],
        run: Run,
    ) -> None:
        self._loop = loop
        self._serve = serve
        self._run = run

    def stop(self) -> None:
        """End the loop after the message in hand; as the iterator of `ipcq.Queue.leases`."""
        self._loop.stop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Lease[T]:
        await self._run(partial(finish_body, self._loop))
        while True:
            try:
                return Lease(await self._serve(partial(next_lease, self._loop)), self._run)
            except ipcq.DecodeError as error:
                skip_message(self._loop, error)
            except self._loop.ENDS:
                raise StopAsyncIteration from None
