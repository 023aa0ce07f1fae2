"""The model: the results that the contract requires of calls on one queue, computed with plain lists."""

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from ipcq.backend import Capabilities, Persistence
from ipcq.errors import (
    DecodeError,
    EncodeError,
    InvalidArgument,
    LeaseLost,
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


@dataclass(eq=False)
class _Message:
    """A message, in one of the lists of `_Messages`."""

    number: int
    item: Any
    priority: int
    good: bool  # whether `msgpack` can decode it
    deliveries: int = 0
    failures: int = 0


class _Messages:
    """One queue, from its creation until its last handle is closed."""

    def __init__(self, capacity: int, max_deliveries: int | None = None) -> None:
        self.capacity = capacity
        self.max_deliveries = max_deliveries
        self.linked = True
        self.shut = False
        self.puts = 0
        self.content: list[_Message] = []  # the next message first
        self.leased: list[_Message] = []
        self.delayed: list[_Message] = []
        self.dead: list[_Message] = []

    @property
    def places(self) -> int:
        return len(self.content) + len(self.leased) + len(self.delayed) + len(self.dead)

    def put(self, item: Any, priority: int = 0, good: bool = True) -> None:
        if self.shut:
            raise QueueShutDown
        if self.places >= self.capacity:
            raise QueueFull
        self.puts += 1
        self.make_ready(_Message(self.puts, item, priority, good))

    def put_dropping(self, item: Any, priority: int) -> int:
        victims = [each for each in self.content if each.priority <= priority]
        full = not self.shut and self.places >= self.capacity
        if full and victims:
            self.content.remove(min(victims, key=lambda each: (each.priority, each.number)))
        self.put(item, priority)
        return int(full)

    def make_ready(self, message: _Message) -> None:
        self.content.append(message)
        self.content.sort(key=lambda each: (-each.priority, each.number))

    def check_content(self) -> None:
        if not self.content:
            raise QueueShutDown if self.shut and not (self.leased or self.delayed) else QueueEmpty

    def get(self) -> _Message:
        self.check_content()
        return self.content.pop(0)

    def get_latest(self) -> _Message:
        self.check_content()
        first = self.content[0].priority
        newest = [each for each in self.content if each.priority == first][-1]
        self.content = [each for each in self.content if each.priority != first]
        return newest

    def lease(self) -> _Message:
        message = self.get()
        message.deliveries += 1
        self.leased.append(message)
        return message

    def settle(self, message: _Message, how: str) -> None:
        self.leased.remove(message)
        message.failures += how == "fail"
        if how == "reject" or (how == "fail" and message.failures == self.max_deliveries):
            self.dead.append(message)
            self.dead.sort(key=lambda each: each.number)
        elif how == "delay":
            self.delayed.append(message)
        elif how != "ack":
            self.make_ready(message)


@dataclass(eq=False)
class _Job:
    """A lease; it has no message once it has ended."""

    message: _Message | None


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
        self.jobs: list[_Job] = []

    def close(self) -> None:
        self.open = False
        for job in self.jobs:
            if job.message is not None and job.message in self.messages.leased:
                self.messages.settle(job.message, "release")
            job.message = None

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
        max_deliveries: The bound of failures, for a queue with leases.
    """

    def __init__(self, capacity: int, able: Capabilities, priorities: bool, max_deliveries: int | None = None) -> None:
        self._capacity = capacity
        self._max_deliveries = max_deliveries
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
            self._named = _Messages(capacity, self._max_deliveries)
        elif create and exclusive:
            raise QueueExists
        elif (create or other_limit) and self._named.capacity != capacity:
            raise QueueMismatch
        elif refused:
            raise Unsupported
        if slot in self._handles:
            self._handles[slot].close()
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
        handle.close()
        self._forget_unheld()

    def _forget_unheld(self) -> None:
        """Forget the queue if its last handle is closed and the backend keeps queues only while they have handles."""
        held = any(handle.open and handle.messages is self._named for handle in self._handles.values())
        if self._able.persistence == Persistence.HOLDERS and not held:
            self._named = None

    def _unlink(self, handle: _Handle) -> None:
        # A closed handle knows its queue only where queues have incarnations.
        knows = handle.open or self._able.places
        if not handle.unlinked and self._named is not None and (handle.messages is self._named or not knows):
            self._forget(0)
        handle.unlinked = True

    def _put(self, handle: _Handle, item: Any, priority: int) -> None:
        self._check_put(handle, priority)
        handle.messages.put(item, priority)

    def _put_dropping(self, handle: _Handle, item: Any, priority: int) -> int:
        if not self._able.drop_oldest:
            raise Unsupported if handle.open else _Unspecified
        self._check_put(handle, priority)
        return handle.messages.put_dropping(item, priority)

    def _check_put(self, handle: _Handle, priority: int) -> None:
        wrong = priority and not self._priorities
        if wrong and not (handle.sane and handle.writes and not handle.messages.shut):
            raise _Unspecified
        if wrong:
            raise Unsupported
        self._check_right(handle, handle.writes)

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
        message = handle.messages.get()
        if not message.good:
            raise DecodeError
        return [message.item, message.priority]

    def _get_latest(self, handle: _Handle) -> Any:
        if not self._able.drop_oldest:
            raise Unsupported if handle.open else _Unspecified
        self._check_right(handle, handle.reads)
        message = handle.messages.get_latest()
        if not message.good:
            raise DecodeError
        return message.item

    def _get_many(self, handle: _Handle, most: int | None) -> list[Any]:
        self._report(handle)
        self._check_right(handle, handle.reads)
        handle.messages.check_content()
        content = handle.messages.content
        taken = content[:most]
        del content[:most]
        items = [message.item for message in taken if message.good]
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
        handle.messages.check_content()
        message = handle.messages.content[0]
        if not message.good:
            raise DecodeError
        return message.item

    def _clear(self, handle: _Handle) -> int:
        self._check_right(handle, handle.reads)
        dropped = len(handle.messages.content) + len(handle.messages.delayed)
        handle.messages.content.clear()
        handle.messages.delayed.clear()
        return dropped

    def _look(self, handle: _Handle) -> list[Any]:
        handle.check()
        count, capacity = len(handle.messages.content), handle.messages.capacity
        full = handle.messages.places >= capacity
        return [count if self._able.exact_qsize else None, not count, full, capacity]

    def _shutdown(self, handle: _Handle, immediate: bool) -> None:
        if not self._able.shutdown:
            raise Unsupported if handle.open else _Unspecified
        self._check_right(handle, handle.reads or not immediate)
        handle.messages.shut = True
        if immediate:
            for dropped in (handle.messages.content, handle.messages.leased, handle.messages.delayed):
                dropped.clear()

    # Leases

    def _lease(self, handle: _Handle) -> list[Any]:
        self._check_right(handle, handle.reads)
        message = handle.messages.lease()
        if not message.good:
            handle.messages.settle(message, "fail")
            raise DecodeError
        handle.jobs.append(_Job(message))
        return [message.item, message.priority, message.deliveries, message.failures]

    def _lease_many(self, handle: _Handle, most: int) -> list[Any]:
        self._check_right(handle, handle.reads)
        handle.messages.check_content()
        messages = [handle.messages.lease() for _ in range(min(most, len(handle.messages.content)))]
        for message in messages:
            if not message.good:
                handle.messages.settle(message, "fail")
        leased = [message for message in messages if message.good]
        if not leased:
            raise DecodeError
        handle.jobs += map(_Job, leased)
        return [[message.item, message.priority, message.deliveries, message.failures] for message in leased]

    def _settle(self, handle: _Handle, which: int, how: str) -> str:
        if not handle.jobs:
            return "no lease"
        job = handle.jobs[which % len(handle.jobs)]
        message, job.message = job.message, None
        if message is None or not handle.open:
            raise LeaseLost
        handle.check()
        if message not in handle.messages.leased:
            raise LeaseLost
        handle.messages.settle(message, how)
        return "settled"

    def _count(self, handle: _Handle) -> list[int]:
        handle.check()
        messages = handle.messages
        return [len(messages.content), len(messages.leased), len(messages.delayed), len(messages.dead)]

    def _get_dead(self, handle: _Handle) -> list[Any]:
        self._check_right(handle, handle.reads)
        if not handle.messages.dead:
            raise QueueEmpty
        message = handle.messages.dead.pop(0)
        return [message.priority, message.deliveries]

    def _requeue(self, handle: _Handle, most: int) -> int:
        self._check_right(handle, handle.reads and handle.writes)
        if handle.messages.shut:
            raise QueueShutDown
        requeued = handle.messages.dead[:most]
        del handle.messages.dead[:most]
        for message in requeued:
            message.failures = 0
            handle.messages.make_ready(message)
        return len(requeued)

    def _misuse(self, handle: _Handle, how: str) -> None:
        raise InvalidArgument if handle.sane else _Unspecified

    def _check_right(self, handle: _Handle, right: bool) -> None:
        if not right:
            raise PermissionDenied if handle.sane and not handle.messages.shut else _Unspecified
        handle.check()
