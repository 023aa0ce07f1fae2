"""A handle to a queue on a server: it tells the operations of each call the call's deadline.

`Asking` does that, so `put` and `get` of other queues pay nothing for it. An operation that gets no answer is repeated
below the channel (`ipcq.backend.ask`), and asks this handle between two attempts whether it is still open.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, TypeVar, overload

from ipcq._abilities.lease import Lease
from ipcq._abilities.view import View
from ipcq._handle.origin import Origin
from ipcq._handle.queue import Message, Queue
from ipcq._process.deadline import PASSED, deadline_of, seconds_of
from ipcq._process.operation import ANSWER_SECONDS, OPERATION_SECONDS, Asking, asking_deadline
from ipcq.backend import Channel
from ipcq.errors import InvalidArgument
from ipcq.serializers import Codec

T = TypeVar("T")
R = TypeVar("R")


class RemoteQueue(Queue[T]):
    """A `Queue` on a server; calls that have no docstring here do the same as there."""

    __slots__ = ()

    def _asking(self, block: bool, timeout: float | None, linger: float = 0) -> Asking:
        try:
            deadline = deadline_of(block, timeout)
            more = seconds_of(linger, "linger")
        except InvalidArgument:
            deadline, more = PASSED, 0.0  # the call itself raises it
        return self._asking_until(deadline, more)

    def _asking_until(self, deadline: float, more: float = 0) -> Asking:
        if deadline == PASSED:  # even a call that does not wait needs an answer
            deadline = asking_deadline(ANSWER_SECONDS)
        return Asking(deadline + more, self._check_open)

    def _with_channel(self, operation: Callable[[Channel], R]) -> R:
        return Asking(asking_deadline(OPERATION_SECONDS), self._check_open).run(super()._with_channel, operation)

    def _put_encoded(self, data: bytes, priority: int, deadline: float, delay: float = 0) -> None:
        self._asking_until(deadline).run(super()._put_encoded, data, priority, deadline, delay)

    @overload
    def put(
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
    def put(self, item: T, *, priority: int = 0, drop_oldest: Literal[True]) -> int: ...

    def put(
        self,
        item: T,
        block: bool = True,
        timeout: float | None = None,
        *,
        priority: int = 0,
        delay: float = 0,
        drop_oldest: bool = False,
    ) -> int | None:
        put: Callable[..., int | None] = super().put
        asking = self._asking(block and not drop_oldest, timeout)  # a put that drops does not wait
        return asking.run(put, item, block, timeout, priority=priority, delay=delay, drop_oldest=drop_oldest)

    def put_nowait(self, item: T) -> None:
        self.put(item, False)

    def put_many(
        self, items: Iterable[T], block: bool = True, timeout: float | None = None, *, priority: int = 0
    ) -> int:
        return self._asking(block, timeout).run(super().put_many, items, block, timeout, priority=priority)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        return self._asking(block, timeout).run(super().get, block, timeout)

    def get_nowait(self) -> T:
        return self.get(False)

    def get_many(
        self, max_items: int | None = None, block: bool = True, timeout: float | None = None, *, linger: float = 0
    ) -> list[T]:
        asking = self._asking(block, timeout, linger)
        return asking.run(partial(super().get_many, max_items, block, timeout, linger=linger))

    def get_message(self, block: bool = True, timeout: float | None = None) -> Message[T]:
        return self._asking(block, timeout).run(super().get_message, block, timeout)

    def get_latest(self, block: bool = True, timeout: float | None = None) -> T:
        return self._asking(block, timeout).run(super().get_latest, block, timeout)

    def lease_many(
        self, max_items: int, block: bool = True, timeout: float | None = None, *, hold: float | None = None
    ) -> list[Lease[T]]:
        return self._asking(block, timeout).run(super().lease_many, max_items, block, timeout, hold=hold)

    def _lease(
        self,
        block: bool,
        timeout: float | None,
        hold: float | None,
        check: Callable[[], object] = lambda: None,
        decode: Callable[[bytes], T] | None = None,
    ) -> Lease[T]:
        return self._asking(block, timeout).run(super()._lease, block, timeout, hold, check, decode)

    def view(self, block: bool = True, timeout: float | None = None, *, hold: float | None = None) -> View[T]:
        return self._asking(block, timeout).run(super().view, block, timeout, hold=hold)

    def get_into(self, buffer: Any, block: bool = True, timeout: float | None = None) -> int:
        return self._asking(block, timeout).run(super().get_into, buffer, block, timeout)


def queue_over(channel: Channel, codec: Codec, origin: Origin) -> Queue[T]:
    """Return a handle over a channel."""
    return (RemoteQueue if channel.remote else Queue)(channel, codec, origin)
