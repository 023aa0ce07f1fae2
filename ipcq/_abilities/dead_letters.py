"""The dead letters of a queue."""

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final, Generic, Protocol, TypeVar

from ipcq._process.deadline import deadline_of, pause
from ipcq._process.imports import importing, shortage_reported
from ipcq.backend import DeadRecord, LeaseChannel
from ipcq.errors import InvalidArgument, QueueEmpty

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")

#: How many dead letters are read at once.
_PAGE: Final = 64


def dead_command(name: str, backend: str) -> str:
    """Return the shell command that shows the dead letters of a queue."""
    with shortage_reported(), importing():
        import shlex  # here, because few programs need it

    # Without it, the command would show and drop the letters of another queue of the name.
    place = f" --backend {shlex.quote(backend)}" if "://" in backend else ""
    return f"ipcq dead {shlex.quote(name)}{place}"


class Parent(Protocol[T_co]):
    """What the dead letters need of their queue's handle."""

    @property
    def name(self) -> str: ...

    @property
    def backend(self) -> str: ...

    @property
    def _decode(self) -> Callable[[bytes], T_co]: ...

    def _on_leases(self, operation: Callable[[LeaseChannel], R]) -> R: ...

    def _require_read(self) -> None: ...

    def _require_write(self) -> None: ...


class DeadLetter(Generic[T]):
    """A message that failed too often, or was rejected."""

    __slots__ = ("_decode", "data", "deliveries", "number", "priority", "reason")

    data: bytes
    """The message, as encoded."""
    priority: int
    """Its priority, from 0 to 32767."""
    deliveries: int
    """How many times it was leased."""
    reason: str
    """Why it is dead."""
    number: int
    """Its place in the order in which messages were put into the queue."""

    def __init__(self, record: DeadRecord, decode: Callable[[bytes], T]) -> None:
        self._decode = decode
        self.data = record.data
        self.priority = record.priority
        self.deliveries = record.deliveries
        self.reason = record.reason.decode(errors="replace")
        self.number = record.number

    @property
    def item(self) -> T:
        """The item that was put.

        Raises:
            DecodeError: The message cannot be decoded, which may be why it is dead.
        """
        return self._decode(self.data)

    def __repr__(self) -> str:
        return f"<ipcq.DeadLetter {self.number}, {len(self.data)} bytes, {self.deliveries} deliveries: {self.reason!r}>"


class DeadLetters(Generic[T]):
    """The dead letters of a queue, from `Queue.dead`. They end with the handle from which they come.

    They are in the queue, and count in its limits. They come in the order in which they were put.
    """

    __slots__ = ("_parent",)

    def __init__(self, parent: Parent[T]) -> None:
        self._parent = parent

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the next dead letter out of the queue, and return its item.

        Raises:
            QueueEmpty: There was none in time.
            DecodeError: The message was taken, but cannot be decoded; the error has its bytes.
            PermissionDenied: The handle was opened with ``read=False``.
            InvalidArgument: `block` is not a bool, or `timeout` is negative or not a number.
        """
        return self.get_message(block, timeout).item

    def get_message(self, block: bool = True, timeout: float | None = None) -> DeadLetter[T]:
        """Take the next dead letter out of the queue; raises as `get`, but decodes nothing."""

        def take(channel: LeaseChannel) -> DeadRecord | None:
            self._parent._require_read()
            return channel.try_get_dead()

        since, deadline = monotonic(), self._parent._on_leases(lambda _: deadline_of(block, timeout))
        while (record := self._parent._on_leases(take)) is None:
            if monotonic() >= deadline:
                raise self._no_letter()
            pause(since, deadline)
        return DeadLetter(record, self._parent._decode)

    def peek(self) -> T:
        """Return the item of the next dead letter without taking it.

        Raises:
            QueueEmpty: There is none.
            DecodeError: The message cannot be decoded.
            PermissionDenied: The handle was opened with ``read=False``.
        """
        return self.peek_message().item

    def peek_message(self) -> DeadLetter[T]:
        """Return the next dead letter without taking it; raises as `peek`, but decodes nothing."""
        for letter in self.peek_all():
            return letter
        raise self._no_letter()

    def peek_all(self) -> Iterator[DeadLetter[T]]:
        """Look at all dead letters, one after the other, without taking them."""
        after, records = 0, self._page(0)
        while records:
            for record in records:
                yield DeadLetter(record, self._parent._decode)
                after = record.number
            records = self._page(after)

    def _page(self, after: int) -> list[DeadRecord]:
        def look(channel: LeaseChannel) -> list[DeadRecord]:
            self._parent._require_read()
            return channel.peek_dead(after, _PAGE)

        return self._parent._on_leases(look)

    def qsize(self) -> int:
        """Return the number of dead letters."""
        return self._parent._on_leases(lambda channel: channel.counts().dead)

    def requeue(self, max_items: int | None = None) -> int:
        """Make dead letters ready again, with no failures and at their old place, and return their number.

        Args:
            max_items: The number of messages at most, 1 or more; None: all that are dead now.

        Raises:
            QueueShutDown: The queue was shut down.
            PermissionDenied: The handle was opened with ``read=False`` or ``write=False``.
            InvalidArgument: `max_items` is not an int of 1 or more.
        """
        if max_items is not None and (isinstance(max_items, bool) or not isinstance(max_items, int) or max_items < 1):
            raise InvalidArgument(f"max_items must be an int of 1 or more, or None, not {max_items!r}")

        def again(channel: LeaseChannel) -> int:
            self._parent._require_read()
            self._parent._require_write()
            return channel.requeue(channel.counts().dead if max_items is None else max_items)

        return self._parent._on_leases(again)

    def clear(self) -> int:
        """Drop the dead letters, and return their number.

        Raises:
            PermissionDenied: The handle was opened with ``read=False``.
        """

        def drop(channel: LeaseChannel) -> int:
            self._parent._require_read()
            return channel.clear_dead()

        return self._parent._on_leases(drop)

    def _no_letter(self) -> QueueEmpty:
        return QueueEmpty("there is no dead letter", queue=self._parent.name, backend=self._parent.backend)

    def __repr__(self) -> str:
        return f"<ipcq.DeadLetters of {self._parent.name!r} on {self._parent.backend!r}>"
