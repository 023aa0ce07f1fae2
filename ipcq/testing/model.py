"""The model: the results that the contract requires of calls on one queue, computed with plain lists."""

from typing import Any, Final, Literal, TypeAlias

from ipcq.backend import Capabilities, Persistence
from ipcq.errors import (
    DecodeError,
    EncodeError,
    InvalidArgument,
    MessageQueueError,
    MessageTooLarge,
    PermissionDenied,
    QueueClosed,
    QueueEmpty,
    QueueExists,
    QueueFull,
    QueueGone,
    QueueMismatch,
    QueueNotFound,
    QueueShutDown,
    Unsupported,
)

__all__ = ("NOTHING", "Model", "Outcome", "Step")

#: One call: its name, the slot of its handle, and its arguments.
Step: TypeAlias = tuple[str, int, dict[str, Any]]

#: The outcome of a call: the value that it returned, or the name of the exception class that it raised.
Outcome: TypeAlias = tuple[Literal["returned", "raised"], Any]

#: The outcome of a call on a slot without a handle.
NOTHING: Final[Outcome] = ("returned", "no handle")


class _Unspecified(Exception):
    """A call has two errors, and the contract does not say which of them is raised."""


class _Messages:
    """One queue, from its creation until its last handle is closed."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.linked = True
        self.shut = False
        # Tuples of priority, whether `msgpack` can decode it, and item; the next message first.
        self.content: list[tuple[int, bool, Any]] = []

    def put(self, item: Any, priority: int = 0, good: bool = True) -> None:
        if self.shut:
            raise QueueShutDown
        if len(self.content) >= self.capacity:
            raise QueueFull
        place = next((i for i, other in enumerate(self.content) if other[0] < priority), len(self.content))
        self.content.insert(place, (priority, good, item))

    def get(self) -> tuple[int, bool, Any]:
        if self.content:
            return self.content.pop(0)
        raise QueueShutDown if self.shut else QueueEmpty


class _Handle:
    def __init__(self, messages: _Messages, rights: str, stay: bool) -> None:
        self.messages = messages
        self.reads = rights != "write"
        self.writes = rights != "read"
        self.stay = stay
        self.open = True
        self.unlinked = False
        # Messages of batches that could not be decoded: each of the next gets raises for one of them.
        self.owed = 0

    def check(self) -> None:
        if not self.open:
            raise QueueClosed
        if not self.messages.linked and not self.stay:
            raise QueueGone

    @property
    def sane(self) -> bool:
        return self.open and (self.messages.linked or self.stay)


class Model:
    """A queue as the contract requires it, in plain lists.

    Args:
        capacity: `max_messages` of the queue.
        able: The capabilities of the backend.
        priorities: Whether the queue has priorities.
    """

    def __init__(self, capacity: int, able: Capabilities, priorities: bool) -> None:
        self._capacity = capacity
        self._able = able
        self._priorities = priorities
        self._named: _Messages | None = None
        self._handles: dict[int, _Handle] = {}

    def call(self, step: Step) -> Outcome | None:
        """Return the outcome that one call must have; None if it must raise any of our errors."""
        call, slot, arguments = step
        try:
            if call in ("open", "renew", "forget", "exists"):
                return "returned", getattr(self, f"_{call}")(slot, **arguments)
            if slot not in self._handles:
                return NOTHING
            return "returned", getattr(self, f"_{call}")(self._handles[slot], **arguments)
        except MessageQueueError as error:
            return "raised", type(error).__name__
        except _Unspecified:
            return None

    @property
    def ended(self) -> bool:
        """Whether the name leads to no queue that accepts messages."""
        return self._named is None or self._named.shut

    def left(self) -> dict[int, int]:
        """Return the number of messages that each handle can get, by slot."""
        return {
            slot: handle.owed + len(handle.messages.content)
            for slot, handle in self._handles.items()
            if handle.sane and handle.reads
        }

    def _open(self, slot: int, create: bool, exclusive: bool, rights: str, other_limit: bool, stay: bool) -> None:
        capacity = self._capacity + other_limit
        refused = stay and not self._able.after_unlink
        if self._named is None:
            if not create:
                raise QueueNotFound
            if refused:
                raise Unsupported
            self._named = _Messages(capacity)
        elif create and exclusive:
            raise QueueExists
        elif (create or other_limit) and self._named.capacity != capacity:
            raise QueueMismatch
        elif refused:
            raise Unsupported
        self._handles[slot] = _Handle(self._named, rights, stay)
        self._forget_unheld()

    def _renew(self, slot: int) -> None:
        self._open(slot, create=True, exclusive=False, rights="both", other_limit=False, stay=False)

    def _forget(self, slot: int) -> None:
        if self._named is None:
            raise QueueNotFound
        self._named.linked = False
        self._named = None

    def _exists(self, slot: int) -> bool:
        return self._named is not None

    def _close(self, handle: _Handle) -> None:
        handle.open = False
        self._forget_unheld()

    def _forget_unheld(self) -> None:
        """Forget the queue if its last handle is closed and the backend keeps queues only while they have handles."""
        held = any(handle.open and handle.messages is self._named for handle in self._handles.values())
        if self._able.persistence == Persistence.HOLDERS and not held:
            self._named = None

    def _unlink(self, handle: _Handle) -> None:
        if not handle.unlinked and self._named is not None and (handle.messages is self._named or not handle.open):
            self._forget(0)
        handle.unlinked = True

    def _put(self, handle: _Handle, item: Any, priority: int) -> None:
        wrong = priority and not self._priorities
        if wrong and not (handle.sane and handle.writes and not handle.messages.shut):
            raise _Unspecified
        if wrong:
            raise Unsupported
        self._check_right(handle, handle.writes)
        handle.messages.put(item, priority)

    def _put_spoilt(self, handle: _Handle, spoilt: str) -> None:
        if not (handle.sane and handle.writes) or handle.messages.shut:
            raise _Unspecified
        raise EncodeError if spoilt == "unencodable" else MessageTooLarge

    def _put_raw(self, handle: _Handle, data: bytes) -> None:
        if self._named is None:
            raise QueueNotFound
        self._named.put(data, good=False)

    def _put_many(self, handle: _Handle, items: list[Any], spoilt: str) -> int:
        if spoilt:
            self._put_spoilt(handle, spoilt)
        self._check_right(handle, handle.writes)
        handle.messages.put(items[0])
        stored = 1
        for item in items[1:]:
            try:
                handle.messages.put(item)
            except QueueFull:
                break
            stored += 1
        return stored

    def _get(self, handle: _Handle, timeout: float | None) -> Any:
        return self._get_message(handle)[0]

    def _get_message(self, handle: _Handle) -> list[Any]:
        self._report(handle)
        self._check_right(handle, handle.reads)
        priority, good, item = handle.messages.get()
        if not good:
            raise DecodeError
        return [item, priority]

    def _get_many(self, handle: _Handle, most: int | None) -> list[Any]:
        self._report(handle)
        self._check_right(handle, handle.reads)
        content = handle.messages.content
        if not content:
            handle.messages.get()
        taken = content[:most]
        del content[:most]
        items = [item for _, good, item in taken if good]
        handle.owed += len(taken) - len(items)
        if not items:
            self._report(handle)
        return items

    def _report(self, handle: _Handle) -> None:
        if handle.owed and handle.open:
            handle.owed -= 1
            raise DecodeError

    def _peek(self, handle: _Handle) -> Any:
        if not self._able.peek:
            raise Unsupported if handle.open else _Unspecified
        self._check_right(handle, handle.reads)
        content = handle.messages.content
        if not content:
            handle.messages.get()  # raises the error of a get
        if not content[0][1]:
            raise DecodeError
        return content[0][2]

    def _clear(self, handle: _Handle) -> int:
        self._check_right(handle, handle.reads)
        dropped = len(handle.messages.content)
        handle.messages.content.clear()
        return dropped

    def _look(self, handle: _Handle) -> list[Any]:
        handle.check()
        count, capacity = len(handle.messages.content), handle.messages.capacity
        return [count if self._able.exact_qsize else None, not count, count >= capacity, capacity]

    def _shutdown(self, handle: _Handle, immediate: bool) -> None:
        if not self._able.shutdown:
            raise Unsupported if handle.open else _Unspecified
        self._check_right(handle, handle.reads or not immediate)
        handle.messages.shut = True
        if immediate:
            handle.messages.content.clear()

    def _misuse(self, handle: _Handle, how: str) -> None:
        raise InvalidArgument if handle.sane else _Unspecified

    def _check_right(self, handle: _Handle, right: bool) -> None:
        if not right:
            raise PermissionDenied if handle.sane and not handle.messages.shut else _Unspecified
        handle.check()
