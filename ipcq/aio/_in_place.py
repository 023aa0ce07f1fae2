"""Reservations and views for tasks: the same as in `ipcq`, with ``async with``."""

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from anyio import CancelScope

import ipcq
from ipcq.aio._leases import Run

T = TypeVar("T")

#: Serves the attempts of one put until the deadline of the reservation.
Put = Callable[[Callable[[], None]], Coroutine[Any, Any, None]]


class Reservation:
    """Memory for a message, from `ipcq.aio.Queue.reserve`; as `ipcq.Reservation`, with ``async with``."""

    __slots__ = ("_inner", "_put")

    def __init__(self, reservation: "ipcq.Reservation", put: Put) -> None:
        self._inner = reservation
        self._put = put

    @property
    def buffer(self) -> memoryview:
        """The memory: `size` writable bytes. Their values are undefined until you write them."""
        return self._inner.buffer

    @property
    def size(self) -> int:
        """The number of bytes that were reserved."""
        return self._inner.size

    def array(self, shape: Any, dtype: Any = "float64") -> Any:
        """Return an array of NumPy over the buffer; as `ipcq.Reservation.array`."""
        return self._inner.array(shape, dtype)

    async def commit(self, size: int | None = None) -> None:
        """Put the message now; as `ipcq.Reservation.commit`."""
        await self._put(partial(self._inner.commit, size))

    def cancel(self) -> None:
        """Give the reservation up; nothing is put."""
        self._inner.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and not self._inner.ended:
                await self.commit()
        finally:
            self._inner.cancel()

    def __repr__(self) -> str:
        return repr(self._inner).replace("ipcq.Reservation", "ipcq.aio.Reservation", 1)


class ViewCall(Generic[T]):
    """The result of `ipcq.aio.Queue.view`: use ``async with``, or await it and end the view yourself."""

    def __init__(self, take: Callable[[], Coroutine[Any, Any, "ipcq.View[T]"]], run: Run) -> None:
        self._take = take
        self._run = run
        self._inner: ipcq.View[T]

    def __await__(self) -> Generator[Any, Any, "ipcq.View[T]"]:
        return self._take().__await__()

    async def __aenter__(self) -> "ipcq.View[T]":
        self._inner = await self._take()
        return self._inner

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with CancelScope(shield=True):
            await self._run(partial(self._inner.__exit__, kind, error, trace))
