"""A handle of objects: a codec above what `Handle` does with bytes.

A message's way through this file: `put` encodes it, checks its size, and hands it to the channel's `try_put`; where
that says "full" the rest is `Handle`'s. `get` is the same the other way round.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NoReturn, TypeVar

from ipcq._handle.calls import counted
from ipcq._handle.handle import Handle, Origin
from ipcq._handle.leftovers import too_much
from ipcq._process.deadline import NEVER, deadline_of
from ipcq.backend import STEP, Channel, Received
from ipcq.errors import (
    DecodeError,
    InvalidArgument,
    MessageQueueError,
    QueueClosed,
    QueueEmpty,
    QueueShutDown,
)
from ipcq.serializers import Codec

T = TypeVar("T")

# The priority of almost every message, compared by identity: CPython has one object for each small int.
_PLAIN: Final = 0

#: Reserves a place in a list for a message.
_PLACE: Final[Received] = (b"", 0)


@dataclass(frozen=True)
class Message(Generic[T]):
    """An item with what the queue knows of it."""

    item: T
    """What was put."""
    priority: int
    """From 0 to 32767, the highest first."""


class Queue(Handle, Generic[T]):
    """A handle to a named queue of objects; `ipcq.open` makes them.

    Any number of threads may use one handle. Every method raises `QueueClosed` once the handle is closed, `QueueGone`
    within a second after the queue was unlinked, and `MessageQueueError` with the system's errno for what nobody
    foresaw.
    """

    __slots__ = ("_decode", "_encode")

    def __init__(self, channel: Channel, codec: Codec, origin: Origin) -> None:
        super().__init__(channel, origin)
        self._encode = codec.encode
        self._decode = codec.decode
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

    def _batch(self, channel: Channel, items: list[T], messages: list[Received], max_items: int | None) -> list[T]:
        """Complete a batch of which these are taken. Only a few large messages at a time exist both raw and decoded."""
        left = self._add_rest(messages, channel, max_items)
        items = self._extended(items, messages)
        while (
            left
            and not (self._leftovers.kept or self._leftovers.errors)
            and sum(len(data) for data, _ in messages) >= STEP
        ):
            messages = []
            left = self._add_rest(messages, channel, left)
            items = self._extended(items, messages)
        return items

    def _add_rest(self, messages: list[Received], channel: Channel, max_items: int | None) -> int:
        """Take what belongs into a batch behind its first message, and return how many more may follow."""
        rest: list[Received] = []
        try:
            # Kept messages come before those in the queue, one at a time.
            left = 0 if self._leftovers.kept else channel.qsize() if max_items is None else max_items - len(messages)
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
            self._leftovers.errors.append(errors.pop(0))
        if self._leftovers.errors:
            self._begin_with_leftovers()
        if first is not None:
            raise first
        return items

    def _keep_behind(self, items: list[T], messages: list[Received], more: list[T], errors: list[DecodeError]) -> None:
        """Add the items that a batch has so far and keep the rest, or keep everything if memory runs out again."""
        try:
            rest = messages[len(more) + len(errors) :]
            if rest and self._leftovers.is_bomb(rest[0]):
                errors.append(too_much(rest[0]))
                del rest[0]
            items.extend(more)
        except MemoryError:
            rest = messages
            errors.clear()
        self._keep_batch(rest)

    def get_message(self, block: bool = True, timeout: float | None = None) -> Message[T]:
        """Take the next item with what the queue knows of it; arguments and exceptions are those of `get`."""

        def get_one(_: Channel) -> Message[T]:
            deadline = deadline_of(block, timeout)
            received = None
            try:
                received = self._try_get() or self._wait_get(deadline)
                return Message(self._decode(received[0]), received[1])
            except MemoryError:
                self._keep_taken(received)
                raise

        return self._with_channel(get_one)

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

    def __repr__(self) -> str:
        rights = {(True, False): ", read only", (False, True): ", write only"}
        request = self._origin.request
        state = "closed" if self._closing else "open"
        return f"<ipcq.Queue {self.name!r} on {self.backend!r}, {state}{rights.get((request.read, request.write), '')}>"

    # For a subclass that is a shortcut (`Channel.shortcut` in ipcq/backend)

    def _arm(self, *_: object) -> None:
        """Begin with these arguments of `ipcq.backend.Shortcut`."""

    def _put_rest(self, items: Sequence[T], stored: int, deadline: float) -> int:
        """Put for a shortcut what it could not put of a batch of `bytes`."""
        try:
            batch = list(map(self._encode, items))
            return self._with_channel(lambda channel: self._put_batch(channel, batch, deadline, stored))
        except (QueueClosed, MemoryError):
            return stored  # the caller must learn that these are stored

    def _get_rest(self, items: list[T], most: int) -> list[T]:
        """Take for a shortcut what else belongs into a batch of which it has taken a part."""
        try:
            return self._with_channel(lambda channel: self._batch(channel, items, [], most - 1))
        except (QueueClosed, MemoryError):
            return items  # closed since it took that part, or out of memory

    def _raise(self, error: BaseException) -> NoReturn:
        """Raise for a shortcut what the codec raised."""
        try:
            raise error.at(self.name, self.backend) if isinstance(error, MessageQueueError) else error
        finally:
            del error  # else its trace would hold it, and with it all that the caller's frames hold
