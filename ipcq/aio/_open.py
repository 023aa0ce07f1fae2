"""`ipcq.aio.open`: open a queue without blocking the event loop."""

from collections.abc import Generator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload

from anyio.lowlevel import current_token

import ipcq
from ipcq._opening.options import Options
from ipcq._process.call_site import called_from, caller
from ipcq._process.imports import importing, shortage_reported
from ipcq.aio._queue import Queue
from ipcq.aio._threads import run_in_thread

T = TypeVar("T")

if TYPE_CHECKING:
    from typing_extensions import TypeForm  # bundled with the type checker


class Opening(Generic[T]):
    """The result of `open`: await it to get a handle, or use ``async with`` to open and close one."""

    def __init__(self, name: str, backend: str, options: dict[str, Any]) -> None:
        self._call = partial(called_from, caller(), partial(ipcq.open, name, backend, **options))
        self._queue: Queue[T] | None = None

    async def _open(self) -> Queue[T]:
        with shortage_reported(), importing():
            current_token()  # imports anyio's module for this event loop
        return Queue(await run_in_thread(self._call, ipcq.Queue.close))

    def __await__(self) -> Generator[Any, Any, Queue[T]]:
        return self._open().__await__()

    async def __aenter__(self) -> Queue[T]:
        self._queue = await self._open()
        return self._queue

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._queue is not None:
            await self._queue.aclose()


@overload
def open(name: str, backend: str = ..., *, type: type[T], **options: Unpack[Options]) -> Opening[T]: ...


@overload  # for unions and other types that are not classes
def open(name: str, backend: str = ..., *, type: "TypeForm[T]", **options: Unpack[Options]) -> Opening[T]: ...


@overload
def open(name: str, backend: str = ..., *, type: Any = ..., **options: Unpack[Options]) -> Opening[Any]: ...


def open(name: str, backend: str = "auto", **options: Any) -> Opening[Any]:
    """Open the queue of a name like `ipcq.open`, in a thread, because it may have to wait for other processes.

    ``async with ipcq.aio.open("/jobs") as q:`` closes the handle at the end; after ``q = await ipcq.aio.open("/jobs")``
    you close it. If it is cancelled, no handle stays open, but a queue may have been created.

    Args:
        name: As for `ipcq.open`.
        backend: As for `ipcq.open`.
        **options: As for `ipcq.open`.

    Raises:
        MessageQueueError: Any error of `ipcq.open`, raised when the result is awaited or entered.
    """
    return Opening(name, backend, options)
