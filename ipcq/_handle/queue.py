"""One open handle to a queue: objects above, a backend's channel of bytes below.

A message's way through this file: `put` encodes it, checks its size, and hands it to the channel's `try_put`; only
where that says "full" is there a loop: wait until there may be space, at most a slice of time, and try again. `get` is
the same the other way round.

Handles are closed while other threads are inside, and by signal handlers and finalisers that interrupt a call of the
same thread. The rule that makes this safe: whoever is inside a call is counted, a closed handle lets nobody call the
channel any more, and the channel is closed when the count is zero, by the closer or by the last one out.
"""

import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from signal import valid_signals
from sys import is_finalizing
from time import monotonic
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, Self, TypeAlias, TypeVar

from ipcq._handle.calls import calls_of_this_thread, counted
from ipcq._handle.waits import waits_of
from ipcq._process.deadline import NEVER, SLICE, deadline_of
from ipcq._process.finaliser import quiet_at_exit
from ipcq._process.forks import Step, abandon_others, at_fork, is_closed, prepares, unprepared
from ipcq._process.gevent import is_in_hub
from ipcq.backend import (
    HIGHEST_PRIORITY,
    STEP,
    Backend,
    Capabilities,
    Channel,
    Lifetime,
    Received,
    Request,
    Scope,
    Stats,
)
from ipcq.errors import (
    DecodeError,
    InvalidArgument,
    MessageQueueError,
    MessageTooLarge,
    PermissionDenied,
    QueueClosed,
    QueueEmpty,
    QueueFull,
    QueueNotFound,
    QueueShutDown,
    Unsupported,
)
from ipcq.serializers import Codec

T = TypeVar("T")
R = TypeVar("R")

#: A message, a batch with the next message last, or the bytes of a message whose priority did not fit into memory.
Kept: TypeAlias = Received | bytes | list[Received]

#: A message of less than this can be meant to use up memory, if it cannot be decoded twice.
_SMALL_BYTES: Final = 1 << 16

# The priority of almost every message, compared by identity: CPython has one object for each small int.
_PLAIN: Final = 0

_READ_FALSE: Final = "this handle was opened with read=False: open another to see or take messages"
#: Why a child may not use a queue, neither by its parent's handle nor by one of its own.
NOT_PREPARED: Final = (
    "a call was under way in it when this process was forked, and its backend's state must not cross a fork: "
    'fork when no call is under way, or start processes by "spawn"'
)

_WRITE_FALSE: Final = "this handle was opened with write=False: open another to put messages"


@dataclass(frozen=True)
class Message(Generic[T]):
    """An item with what the queue knows of it."""

    item: T
    """What was put."""
    priority: int
    """From 0 to 32767, the highest first."""


@dataclass(frozen=True)
class Origin:
    """Where a handle comes from, for what it cannot do by its channel alone."""

    name: str
    backend: Backend
    request: Request
    remove: Callable[[Callable[[], bool]], None]
    """Unlink the name if the argument says so while nobody else creates or unlinks it."""
    reopen: Callable[[], tuple[Any, ...]]
    """Say for pickle how to attach again."""
    alternatives: Callable[[str], Sequence[str]]
    """Name the installed backends that have an ability."""


class Queue(Generic[T]):
    """A handle to a named queue of objects; `ipcq.open` makes them.

    Any number of threads may use one handle. Every method raises `QueueClosed` once the handle is closed, `QueueGone`
    within a second after the queue was unlinked, and `MessageQueueError` with the system's errno for what nobody
    foresaw.
    """

    __slots__ = (
        "__weakref__",
        "_channel",
        "_closing",
        "_decode",
        "_encode",
        "_held",
        "_inherited",
        "_inside",
        "_kept",
        "_largest",
        "_leftovers",
        "_origin",
        "_report_or_get",
        "_try_get",
        "_try_put",
        "_undecodable",
        "_unlinked",
        "_waits",
    )

    def __init__(self, channel: Channel, codec: Codec, origin: Origin) -> None:
        self._origin = origin
        self._channel = channel
        self._waits = waits_of(channel)
        self._held = {"channel": channel}  # empty once the channel is closed
        self._closing = ""  # why no call gets through any more
        self._inherited = False
        self._unlinked = False
        self._encode = codec.encode
        self._decode = codec.decode
        self._largest = channel.attributes.max_message_size
        # One entry for each call under way. A deque is the counter because its append and pop are atomic and cost a
        # fraction of a lock.
        self._inside: deque[None] = deque()
        # What a batch took beside its items and could not decode: the next gets of this handle raise it.
        self._undecodable: deque[DecodeError] = deque()
        # What was taken and could not be returned because memory ran out: the next gets of this handle return it.
        self._kept: deque[Kept] = deque()
        self._leftovers = _Leftovers(self._undecodable, self._kept, channel)
        self._report_or_get = self._leftovers.take
        # What may not be done is replaced by a refusal, so that the calls that may need not ask.
        self._try_put = channel.try_put if origin.request.write else _refusal(PermissionDenied, _WRITE_FALSE)
        self._try_get = channel.try_get if origin.request.read else _refusal(PermissionDenied, _READ_FALSE)
        _handles.add(self)
        if _prepares(channel):
            prepares(channel)
        request = origin.request
        waits = self._waits is channel
        self._arm(channel, codec.encode, codec.decode, codec.of_bytes, request.write, request.read, waits)

    # Putting

    @counted
    def put(self, item: T, block: bool = True, timeout: float | None = None, *, priority: int = 0) -> None:
        """Put an item, and return when it is stored.

        Args:
            item: What the serializer can encode, at most `max_message_size` bytes then.
            block: Wait for space; False tries once.
            timeout: Seconds to wait at the most, on the monotonic clock; None waits for ever, 0 tries once.
            priority: From 0 to 32767, as in POSIX; the highest is taken first, equal ones in the order of putting.

        Raises:
            QueueFull: No space came free in time. Nothing was queued, as with all that follow.
            QueueShutDown: The queue was shut down.
            EncodeError: The serializer cannot encode the item.
            MessageTooLarge: The encoded item can never fit; said at once, without waiting.
            Unsupported: A priority other than 0 on a queue without priorities.
            PermissionDenied: The handle was opened with ``write=False``.
            InvalidArgument: `block` is not a bool, `timeout` is negative or not a number, `priority` is out of range.
        """
        try:
            self._inside.append(None)
            deadline = NEVER if block is True and timeout is None else deadline_of(block, timeout)
            if priority is not _PLAIN:
                self._check_priority(priority)
            data = self._encode(item)
            if len(data) > self._largest:
                self._refuse_size(data)
            if not self._try_put(data, priority):
                self._wait_put(data, priority, deadline)
        except MessageQueueError as error:
            raise error.at(self._origin.name, self._origin.backend.name)
        finally:
            self._inside.pop()
            if self._closing:
                self._retire()

    def put_nowait(self, item: T) -> None:
        """Put an item if there is space now: ``put(item, block=False)``."""
        self.put(item, False)

    def put_many(self, items: Iterable[T], block: bool = True, timeout: float | None = None) -> int:
        """Put as many of the items, from the first on, as find space in time.

        All items are encoded before the first is stored. Where `capabilities.atomic_batch`, what is stored at a time
        appears in one step.

        Args:
            items: What the serializer can encode.
            block: Wait for space; False stores what fits now.
            timeout: Seconds to wait at the most over all; None waits until all are stored.

        Returns:
            How many items were stored.

        Raises:
            QueueFull: Not one item was stored in time.
            QueueShutDown: The queue was shut down before the first item was stored.
            EncodeError: An item cannot be encoded; nothing was queued.
            MessageTooLarge: An item can never fit; nothing was queued.
            PermissionDenied: The handle was opened with ``write=False``.
            InvalidArgument: As for `put`.
        """

        def put_all(channel: Channel) -> int:
            deadline = deadline_of(block, timeout)
            return self._put_batch(channel, self._encode_all(items), deadline)

        return self._with_channel(put_all)

    def _encode_all(self, items: Iterable[T]) -> list[bytes]:
        self._require_write()
        if not isinstance(items, Iterable):
            raise InvalidArgument(f"items is an iterable, not {items!r}")
        # By map, because what is done for each of a batch's messages in Python costs more than its channel.
        batch = list(map(self._encode, items))
        if max(map(len, batch), default=0) > self._largest:
            self._refuse_size(next(data for data in batch if len(data) > self._largest))
        return batch

    def _put_rest(self, items: Sequence[T], stored: int, deadline: float) -> int:
        """Put for a shortcut what it could not put of a batch of `bytes`."""
        try:
            batch = list(map(self._encode, items))
            return self._with_channel(lambda channel: self._put_batch(channel, batch, deadline, stored))
        except (QueueClosed, MemoryError):
            return stored  # the caller must learn that these are stored

    def _put_batch(self, channel: Channel, batch: Sequence[bytes], deadline: float, stored: int = 0) -> int:
        since = monotonic()
        waited = False
        count = 0
        try:
            while stored < len(batch):
                self._check_open()
                count = channel.try_put_many(batch[stored:] if stored else batch)
                stored, count = stored + count, 0
                now = monotonic()
                if stored == len(batch) or now >= deadline:
                    break
                waited = True
                self._waits.wait_writable(len(batch[stored]), since, min(deadline, now + SLICE))
            if waited:
                channel.count_wait(stored == len(batch))
        except (MessageQueueError, MemoryError):
            stored += count  # if the addition above ran out of memory
            if not stored:  # else the caller must learn that these are stored
                raise
        if batch and not stored:
            raise self._out_of_time(QueueFull)
        return stored

    def _encoded(self, item: T, priority: int) -> bytes:
        """Encode what is to be put later, and refuse what `put` would."""

        def encode(_: Channel) -> bytes:
            self._check_priority(priority)
            data = self._encode(item)
            if len(data) > self._largest:
                self._refuse_size(data)
            return data

        return self._with_channel(encode)

    def _put_encoded(self, data: bytes, priority: int, deadline: float) -> None:
        """Put what has been encoded already."""

        def put_one(_: Channel) -> None:
            if len(data) > self._largest:
                self._refuse_size(data)
            if not self._try_put(data, priority):
                self._wait_put(data, priority, deadline)

        self._with_channel(put_one)

    def _wait_put(self, data: bytes, priority: int, deadline: float) -> None:
        since = now = monotonic()
        if now >= deadline:
            raise self._out_of_time(QueueFull)
        channel = self._channel
        while now < deadline:
            self._waits.wait_writable(len(data), since, min(deadline, now + SLICE))
            if self._try_put(data, priority):
                _count_served(channel)
                return
            now = monotonic()
        channel.count_wait(False)
        raise self._out_of_time(QueueFull)

    def _check_priority(self, priority: int) -> None:
        if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= HIGHEST_PRIORITY:
            raise InvalidArgument(f"priority is an int from 0 to {HIGHEST_PRIORITY}, not {priority!r}")
        if priority and not self._channel.capabilities.priorities:
            raise self._unsupported("priorities", "has no priorities", "create it with priorities=True")

    def _refuse_size(self, data: bytes) -> NoReturn:
        size, limit = len(data), self._largest
        raise MessageTooLarge(
            f"the message has {size} bytes, the queue takes {limit}: create it with max_message_size={size}",
            size=size,
            limit=limit,
        )

    # Getting

    @counted
    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the next item: of the highest priority the oldest.

        Args:
            block: Wait for an item; False tries once.
            timeout: Seconds to wait at the most, on the monotonic clock; None waits for ever, 0 tries once.

        Raises:
            QueueEmpty: No item came in time.
            QueueShutDown: The queue was shut down and is empty.
            DecodeError: The message was taken but is no item for this handle; its bytes are in the error.
            PermissionDenied: The handle was opened with ``read=False``.
            InvalidArgument: `block` is not a bool, `timeout` is negative or not a number.
            MemoryError: The item did not fit into memory; it is in the queue, or the next get of the handle returns it.
        """
        received = None
        try:
            self._inside.append(None)
            deadline = NEVER if block is True and timeout is None else deadline_of(block, timeout)
            received = self._try_get()
            if received is None:
                received = self._wait_get(deadline)
            return self._decode(received[0])  # type: ignore[no-any-return]  # the user's word for what is in the queue
        except MessageQueueError as error:
            raise error.at(self._origin.name, self._origin.backend.name)
        except MemoryError:
            self._keep_taken(received)
            raise
        finally:
            self._inside.pop()
            if self._closing:
                self._retire()

    def get_nowait(self) -> T:
        """Take the next item if there is one now: ``get(block=False)``."""
        return self.get(False)

    def get_many(self, max_items: int | None = None, block: bool = True, timeout: float | None = None) -> list[T]:
        """Take at least one item, and then what else is there.

        Args:
            max_items: How many at the most, from 1 on; None takes what is there.
            block: Wait for the first item; False tries once.
            timeout: Seconds to wait for the first item at the most; None waits for ever.

        Returns:
            The items, in the order in which `get` would have taken them. A message among them that cannot be decoded
            is left out, and the next get of this handle raises its `DecodeError`. If memory runs out, the batch ends
            before the first item that does not fit.

        Raises:
            QueueEmpty: No item came in time.
            QueueShutDown: The queue was shut down and is empty.
            DecodeError: None of the messages is an item for this handle.
            PermissionDenied: The handle was opened with ``read=False``.
            InvalidArgument: As for `get`, or `max_items` is not an int from 1 on.
        """

        def get_all(channel: Channel) -> list[T]:
            deadline = deadline_of(block, timeout)
            if max_items is not None and (
                isinstance(max_items, bool) or not isinstance(max_items, int) or max_items < 1
            ):
                raise InvalidArgument(f"max_items is an int from 1 on or None, not {max_items!r}")
            # Reserve the place before the message is taken, because that needs memory.
            messages: list[Received] = [_PLACE]
            messages[0] = self._try_get() or self._wait_get(deadline)
            return self._batch(channel, [], messages, max_items)

        return self._with_channel(get_all)

    def _get_rest(self, items: list[T], most: int) -> list[T]:
        """Take for a shortcut what else belongs into a batch of which it has taken a part."""
        try:
            return self._with_channel(lambda channel: self._batch(channel, items, [], most - 1))
        except (QueueClosed, MemoryError):
            return items  # closed since it took that part, or out of memory

    def _batch(self, channel: Channel, items: list[T], messages: list[Received], max_items: int | None) -> list[T]:
        """Complete a batch of which these are taken. Only a few large messages at a time exist both raw and decoded."""
        left = self._add_rest(messages, channel, max_items)
        items = self._extended(items, messages)
        while left and not (self._kept or self._undecodable) and sum(len(data) for data, _ in messages) >= STEP:
            messages = []
            left = self._add_rest(messages, channel, left)
            items = self._extended(items, messages)
        return items

    def _add_rest(self, messages: list[Received], channel: Channel, max_items: int | None) -> int:
        """Take what belongs into a batch behind its first message, and return how many more may follow."""
        rest: list[Received] = []
        try:
            # Kept messages come before those in the queue, one at a time.
            left = 0 if self._kept else channel.qsize() if max_items is None else max_items - len(messages)
            if left > 0 and not (messages and len(messages[0][0]) >= STEP):
                rest = channel.try_get_many(left)
                messages.extend(rest)
            return left - len(rest)
        except MessageQueueError:
            pass  # the queue ended behind the first message, which must not be lost
        except MemoryError:
            self._keep_batch(rest)
        return 0

    def _extended(self, items: list[T], messages: list[Received]) -> list[T]:
        """Add what the messages of a batch stand for, and keep the errors of those that stand for nothing."""
        more: list[T] = []
        errors: list[DecodeError] = []
        try:
            rest = iter([data for data, _ in messages])
            while True:
                try:
                    more.extend(map(self._decode, rest))
                    break
                except DecodeError as error:  # it goes on behind that one
                    errors.append(error)
            items.extend(more)
        except MemoryError:
            self._keep_behind(items, messages, more, errors)
            if not (items or errors):
                raise
        # What another thread put there is for the gets; this call raises one of its own.
        first = None if items or not errors else errors.pop(0)
        while errors:
            self._undecodable.append(errors.pop(0))
        if self._undecodable:
            self._begin_with_leftovers()
        if first is not None:
            raise first
        return items

    def _keep_behind(self, items: list[T], messages: list[Received], more: list[T], errors: list[DecodeError]) -> None:
        """Add the items that a batch has so far and keep the rest, or keep everything if memory runs out again."""
        try:
            rest = messages[len(more) + len(errors) :]
            if rest and self._leftovers.is_bomb(rest[0]):
                errors.append(_too_much(rest[0]))
                del rest[0]
            items.extend(more)
        except MemoryError:
            rest = messages
            errors.clear()
        self._keep_batch(rest)

    # Keeping. Nothing here allocates before everything is kept.

    def _keep_batch(self, messages: list[Received]) -> None:
        if messages:
            messages.reverse()
            self._kept.appendleft(messages)
            self._begin_with_leftovers()

    def _keep_taken(self, received: Received | None) -> None:
        """Keep a message for the next get.

        Raises:
            DecodeError: It is small and was kept before. Otherwise it would block all messages behind it.
        """
        if received is None:
            return
        if self._leftovers.is_bomb(received):
            raise _too_much(received).at(self._origin.name, self._origin.backend.name)
        self._kept.appendleft(received)
        self._begin_with_leftovers()

    def _keep(self, data: bytes, priority: int) -> None:
        """Keep a message that a shortcut took and could not decode."""
        self._kept.appendleft(data)  # first, since the rest may run out of memory
        self._begin_with_leftovers()
        if priority:
            self._kept[0] = (data, priority)

    def _begin_with_leftovers(self) -> None:
        self._disarm()
        self._try_get = self._report_or_get

    def get_message(self, block: bool = True, timeout: float | None = None) -> Message[T]:
        """Take the next item with what the queue knows of it; arguments and exceptions are those of `get`."""

        def get_one(channel: Channel) -> Message[T]:
            deadline = deadline_of(block, timeout)
            received = None
            try:
                received = self._try_get() or self._wait_get(deadline)
                return Message(self._decode(received[0]), received[1])
            except MemoryError:
                self._keep_taken(received)
                raise

        return self._with_channel(get_one)

    @counted
    def _try_take(self) -> Received | None:
        """Take for a face the next message as it is; None where there is none now."""
        # As `get` counts itself, and not by `_with_channel`: every message of posix_ipc's face comes this way.
        try:
            self._inside.append(None)
            return self._try_get()
        except MessageQueueError as error:
            raise error.at(self._origin.name, self._origin.backend.name)
        finally:
            self._inside.pop()
            if self._closing:
                self._retire()

    def _count_wait(self, served: bool) -> None:
        """Note for a face that it had to wait, and whether it was served in the end."""
        try:
            self._with_channel(lambda channel: channel.count_wait(served))
        except (MessageQueueError, MemoryError):
            pass  # closed, ended or out of memory; what was taken has to be returned all the same

    def _wait_get(self, deadline: float) -> Received:
        since = now = monotonic()
        if now >= deadline:
            raise self._out_of_time(QueueEmpty)
        channel = self._channel
        while now < deadline:
            self._waits.wait_readable(since, min(deadline, now + SLICE))
            received = self._try_get()
            if received is not None:
                _count_served(channel)
                return received
            now = monotonic()
        channel.count_wait(False)
        raise self._out_of_time(QueueEmpty)

    def _out_of_time(self, kind: type[QueueFull | QueueEmpty]) -> QueueFull | QueueEmpty:
        """Make the error of a call that ran out of time; it names a process that holds a lock: busy is not full."""
        getting = kind is QueueEmpty
        holder = self._channel.holder(getting)
        if holder is None:
            return kind()
        return kind(f"it may have {'messages' if getting else 'space'}, but {holder}: {holder.way_out}")

    def __iter__(self) -> Iterator[T]:
        """Take items until the queue is shut down and empty."""
        while True:
            try:
                item = self.get()
            except QueueShutDown:
                return
            yield item

    # Looking

    def peek(self) -> T:
        """Return the next item without taking it.

        Raises:
            QueueEmpty: There is none now.
            QueueShutDown: The queue was shut down and is empty.
            DecodeError: The message is no item for this handle; it stays in the queue.
            Unsupported: This backend cannot.
            PermissionDenied: The handle was opened with ``read=False``.
        """
        return self.peek_message().item

    def peek_message(self) -> Message[T]:
        """Return the next item with what the queue knows of it, without taking it; exceptions are those of `peek`."""
        self._require_ability("peek", "look at a message without taking it")

        def look(channel: Channel) -> Message[T]:
            self._require_read()
            received = channel.peek()
            if received is None:
                raise self._out_of_time(QueueEmpty)
            return Message(self._decode(received[0]), received[1])

        return self._with_channel(look)

    def clear(self) -> int:
        """Drop the messages that are in the queue, and return how many there were; 0 also if it is shut down and empty.

        Messages that killed producers left unfinished are dropped too, and not counted.

        Raises:
            TimedOutError: A process that is stopped inside the queue holds its lock; nothing was dropped.
            PermissionDenied: The handle was opened with ``read=False``.
        """

        def drop(channel: Channel) -> int:
            self._require_read()
            return channel.clear() + self._leftovers.drop()

        return self._with_channel(drop)

    def qsize(self) -> int:
        """Count the messages in the queue; exact at that instant where `capabilities.exact_qsize`.

        It includes messages that this handle has taken and keeps for its next gets because memory ran out.
        """
        return self._with_channel(lambda channel: channel.qsize() + self._leftovers.count())

    def empty(self) -> bool:
        """Tell whether a get would have had to wait."""
        return self._with_channel(lambda channel: not self._kept and channel.empty())

    def full(self) -> bool:
        """Tell whether a put of the smallest message would have had to wait."""
        return self._with_channel(lambda channel: channel.full())

    def stats(self) -> Stats:
        """Return the queue's figures over all processes; None stands for what the mechanism cannot know."""
        return self._with_channel(lambda channel: channel.stats())

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._origin.name

    @property
    def backend(self) -> str:
        """Name of the backend that serves."""
        return self._origin.backend.name

    @property
    def capabilities(self) -> Capabilities:
        """What this queue can do."""
        return self._channel.capabilities

    @property
    def mode(self) -> int:
        """The queue's permission bits."""
        return self._channel.attributes.mode

    @property
    def max_messages(self) -> int | None:
        """Capacity in messages; None where bytes alone bound it."""
        return self._channel.attributes.max_messages

    @property
    def max_message_size(self) -> int:
        """Largest encoded message, in bytes."""
        return self._largest

    @property
    def buffer_size(self) -> int | None:
        """Capacity in bytes; None where messages alone bound it."""
        return self._channel.attributes.buffer_size

    @property
    def priorities(self) -> bool:
        """Whether messages have priorities."""
        return self._channel.attributes.priorities

    @property
    def lifetime(self) -> Lifetime:
        """When the queue goes: ``"persistent"`` or ``"last-close"``."""
        return self._channel.attributes.lifetime

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return bool(self._closing)

    # Being told

    def fileno(self) -> int:
        """Return a descriptor that is readable while a `get` would not wait, for select, poll and event loops.

        It is readable while there is a message. With `capabilities.ends_on_fileno` it is also readable once the queue
        is shut down, and once it is unlinked, unless the handle has ``after_unlink="continue"``.

        On `mqueue` a shutdown or an unlink does not make the kernel's descriptor readable: use a timeout with select or
        poll, and then try to get. Do the same on any backend if the queue's file may be removed by hand.

        It belongs to the handle: do not read from it, do not close it.

        Raises:
            Unsupported: This backend has none.
            PermissionDenied: The handle was opened with ``read=False``.
        """
        self._require_ability("pollable", "give a descriptor to poll")

        def descriptor(channel: Channel) -> int:
            self._require_read()
            return channel.fileno()

        return self._with_channel(descriptor)

    def notify(self, callback: Callable[[], object] | None = None, *, signal: int | None = None) -> None:
        """Ask for one notice when a message arrives in the empty queue, as POSIX ``mq_notify`` has it.

        The notice is given once, and only if no get is waiting then; on `mqueue`, whose kernel does not see waits by
        `poll`, it is given in any case. One process at a time may ask. Without arguments the request of this handle is
        taken back.

        Args:
            callback: Called without arguments in a thread of its own.
            signal: Number of a signal that this process is sent.

        Raises:
            LimitExceeded: Somebody else has asked and waits.
            Unsupported: This backend cannot.
            InvalidArgument: Both are given, `callback` cannot be called, or `signal` is no signal.
        """
        if callback is not None and signal is not None:
            raise InvalidArgument("notify takes a callback or a signal, not both")
        if callback is not None and not callable(callback):
            raise InvalidArgument(f"callback is a function without arguments, not {callback!r}")
        if signal is not None:
            _check_signal(signal)
        self._require_ability("notify", "give notice of a message")
        self._with_channel(lambda channel: channel.notify(signal if callback is None else callback))

    # Ends

    def shutdown(self, immediate: bool = False) -> None:
        """End the queue for every process that has it open, as `queue.Queue.shutdown` does for threads.

        Within a second every put raises `QueueShutDown`; gets take what is there and then raise it too. Descriptors of
        `fileno` become readable with `capabilities.ends_on_fileno`; otherwise poll them with a timeout.

        Args:
            immediate: Drop what is in the queue. No get that begins afterwards returns an item, even if a put that
                began before the shutdown stores one.

        Raises:
            Unsupported: This backend cannot.
            TimedOutError: A process that is stopped inside the queue holds its lock, and this backend cannot shut down
                without the lock; nothing was changed.
            PermissionDenied: This user may not; or it is to drop, which is getting, and the handle was opened with
                ``read=False``.
            InvalidArgument: `immediate` is not a bool.
        """
        if not isinstance(immediate, bool):
            raise InvalidArgument(f"immediate is True or False, not {immediate!r}")
        self._require_ability("shutdown", "be shut down")

        def end(channel: Channel) -> None:
            if immediate:
                self._require_read()
            channel.shutdown(immediate)
            if immediate:
                self._leftovers.drop()

        self._with_channel(end)

    def close(self) -> None:
        """Close this handle; the queue and its messages stay. Closing twice is closing once.

        Calls of other threads that wait in this handle raise `QueueClosed`, and only when they are out does `close`
        return. Called from within such a call, by a signal handler or a finaliser, it returns at once and the outer
        call gives back the descriptors on its way out.
        """
        if not self._closing:
            self._end(QueueClosed.wording)
        self._await_others()
        self._retire()
        self._await_others()  # another thread may be closing the channel at this moment
        self._tell_undecodable()

    def unlink(self) -> None:
        """Remove the queue's name; twice, before and after `close`, and after somebody else did it, is all right.

        A queue that was created under the same name since is not touched as long as this handle is open. Descriptors of
        `fileno` become readable with `capabilities.ends_on_fileno`; otherwise poll them with a timeout.

        Raises:
            PermissionDenied: This user may not.
            TimedOutError: Somebody else created or unlinked the name for 10 seconds.
        """
        if self._unlinked:
            return

        def still_there() -> bool:
            return bool(self._closing) or self._with_channel(lambda channel: channel.linked())

        try:
            self._origin.remove(still_there)
        except QueueNotFound:
            pass
        self._unlinked = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @quiet_at_exit
    def __del__(self) -> None:
        if getattr(self, "_held", None):  # else it is closed, or was never made whole
            try:
                if not self._closing and not self._inherited:
                    warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=3)
            finally:  # the warning may be an error
                self._retire()
            self._tell_undecodable(stacklevel=4)

    def __repr__(self) -> str:
        rights = {(True, False): ", read only", (False, True): ", write only"}
        request = self._origin.request
        state = "closed" if self._closing else "open"
        return f"<ipcq.Queue {self.name!r} on {self.backend!r}, {state}{rights.get((request.read, request.write), '')}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin.backend.capabilities.scope < Scope.HOST:
            raise Unsupported(
                "its queues live in one process, so no other can attach: choose another backend",
                queue=self.name,
                backend=self.backend,
            )
        return self._origin.reopen()

    # What holds it together

    @counted
    def _with_channel(self, operation: Callable[[Channel], R]) -> R:
        """Run one operation on the channel, counted as `put` and `get` count themselves."""
        try:
            self._inside.append(None)
            self._check_open()
            return operation(self._channel)
        except MessageQueueError as error:
            raise error.at(self._origin.name, self._origin.backend.name)
        finally:
            self._inside.pop()
            if self._closing:
                self._retire()

    def _check_open(self) -> None:
        if self._closing:
            raise QueueClosed(self._closing)

    def _end(self, reason: str) -> None:
        self._disarm()  # first, as whoever leaves the channel last closes it from now on, and no shortcut is counted
        self._closing = self._leftovers.closing = reason
        self._try_put = self._try_get = _refusal(QueueClosed, reason)

    # For a subclass that is a shortcut (`Channel.shortcut` in backend.py)

    def _arm(self, *_: object) -> None:
        """Begin with these arguments of `ipcq.backend.Shortcut`."""

    def _disarm(self) -> None:
        """End: leave everything to this class."""

    def _raise(self, error: BaseException) -> NoReturn:
        """Raise for a shortcut what the codec raised."""
        try:
            raise error.at(self.name, self.backend) if isinstance(error, MessageQueueError) else error
        finally:
            del error  # else its trace would hold it, and with it all that the caller's frames hold

    def _await_others(self) -> None:
        """Wait until no thread is inside a call of this handle; return at once if this thread is.

        Two threads that close from within calls of theirs, by finalisers, would wait for one another. And threads that
        the interpreter does not wait for at its end do not run any more in it.
        """
        if not calls_of_this_thread(self):
            while self._inside and not is_in_hub() and not is_finalizing():
                time.sleep(0.001)

    @counted
    def _retire(self) -> None:
        """Close the channel unless a thread is inside a call: then the last one to leave closes it.

        The thread that closes it counts as inside, so that other calls of `close` return only when it is closed.
        """
        if not self._inside:
            try:
                self._inside.append(None)
                channel = self._held.pop("channel", None)  # atomic, so that only one thread gets it
                if channel is not None:
                    channel.close()
                    if _prepares(channel):
                        is_closed(channel)
            finally:
                self._inside.pop()

    def _tell_undecodable(self, stacklevel: int = 3) -> None:
        unseen = []
        while self._undecodable:
            unseen.append(self._undecodable.popleft().data)
        if unseen and not self._inherited:
            warnings.warn(
                f"{self!r} took messages that it cannot decode and nobody saw: {unseen}", stacklevel=stacklevel
            )
        if kept := self._leftovers.drop():
            warnings.warn(
                f"{self!r} took {kept} messages that did not fit into memory and are lost: get until the queue is "
                "empty, then close",
                stacklevel=stacklevel,
            )

    def _forget_calls(self) -> None:
        # The threads that were inside are not in this process; calls that this thread itself is in still return.
        # One of them may have left already, or not have entered yet, when a signal handler forked.
        calls = min(calls_of_this_thread(self), len(self._inside))
        self._inside.clear()
        self._inside.extend([None] * calls)
        self._inherited = True
        self._kept.clear()  # the parent returns these
        if self._closing and not calls:
            self._held.clear()  # the thread that was to close the channel is not in this process

    def _after_fork(self) -> None:
        if self._held and not self._channel.after_fork():
            self._give_up("queues of this backend do not cross a fork: open it in the child")

    def _give_up(self, reason: str) -> None:
        self._held.clear()
        self._end(reason)

    def _require_read(self) -> None:
        if not self._origin.request.read:
            raise PermissionDenied(_READ_FALSE)

    def _require_write(self) -> None:
        if not self._origin.request.write:
            raise PermissionDenied(_WRITE_FALSE)

    def _require_ability(self, ability: str, words: str) -> None:
        if not getattr(self._channel.capabilities, ability):
            raise self._unsupported(ability, f"cannot {words}")

    def _unsupported(self, ability: str, words: str, remedy: str = "") -> Unsupported:
        others = self._origin.alternatives(ability)
        ways = [remedy] if remedy and self._origin.backend.name in others else []
        ways += [f"use backend={other!r}" for other in others if other != self._origin.backend.name]
        return Unsupported(
            f"this queue {words}: {', or '.join(ways) or 'no installed backend can'}",
            alternatives=others,
            queue=self.name,
            backend=self.backend,
        )


class _Leftovers:
    """What a handle took and could not return; `take` then replaces the channel's `try_get`.

    It is created with the handle, because there may be no memory when it is needed. It does not refer to the handle.
    """

    __slots__ = ("_channel", "_errors", "_kept", "closing", "failed")

    def __init__(self, errors: deque[DecodeError], kept: deque[Kept], channel: Channel) -> None:
        self._errors = errors
        self._kept = kept
        self._channel = channel
        self.closing = ""
        #: The last message that did not fit into memory when it was decoded.
        self.failed: Received | None = None

    def take(self) -> Received | None:
        if self.closing:
            raise QueueClosed(self.closing)
        # Another thread may take the last one between the check and `popleft`.
        if self._errors:
            try:
                error = self._errors.popleft()
            except IndexError:
                pass
            else:
                raise error
        kept: Kept | None = None
        if self._kept:
            try:
                kept = self._kept.popleft()
            except IndexError:
                pass
        if kept is None:
            return self._channel.try_get()
        done = False
        try:
            if isinstance(kept, list):
                received = kept.pop()
                done = not kept
            else:
                received = (kept, 0) if isinstance(kept, bytes) else kept
                done = True
        finally:
            if not done:  # also if memory ran out
                self._kept.appendleft(kept)
        return received

    def count(self) -> int:
        return sum(len(kept) if isinstance(kept, list) else 1 for kept in list(self._kept))

    def drop(self) -> int:
        """Discard what is kept, and count it."""
        kept = list(self._kept)
        self._kept.clear()
        return sum(len(each) if isinstance(each, list) else 1 for each in kept)

    def is_bomb(self, received: Received) -> bool:
        """Tell whether a small message did not fit into memory for the second time; remember it if not."""
        if received is self.failed and len(received[0]) < _SMALL_BYTES:
            return True
        self.failed = received
        return False


#: Reserves a place in a list for a message.
_PLACE: Final[Received] = (b"", 0)


def _too_much(received: Received) -> DecodeError:
    return DecodeError("memory ran out twice while decoding it: its bytes are in the error's data", data=received[0])


def _count_served(channel: Channel) -> None:
    """Count a wait that was served; if memory runs out, only the count is lost, not the result of the call."""
    try:
        channel.count_wait(True)
    except MemoryError:
        pass


def _check_signal(signal: object) -> None:
    if isinstance(signal, bool) or not isinstance(signal, int) or signal not in valid_signals():
        raise InvalidArgument(f"signal is the number of a signal, not {signal!r}")


def _refusal(kind: type[MessageQueueError], reason: str) -> Callable[..., NoReturn]:
    """Make what stands in for an operation that this handle may not do."""

    def refuse(*_: object) -> NoReturn:
        raise kind(reason)

    return refuse


_handles: weakref.WeakSet[Queue[Any]] = weakref.WeakSet()


def _prepares(channel: Channel) -> bool:
    return type(channel).before_fork is not Channel.before_fork


def _after_fork() -> None:
    handles = list(_handles)
    held = [(queue.name, channel) for queue in handles for channel in queue._held.values()]
    missed = unprepared(held, _prepares)
    for queue in handles:
        queue._forget_calls()
    abandon_others({id(channel) for queue in handles for channel in queue._held.values()})
    for queue in handles:
        if missed.isdisjoint(map(id, queue._held.values())):
            queue._after_fork()
        else:
            queue._give_up(NOT_PREPARED)


at_fork(Step.HANDLES, after_in_child=_after_fork)
