"""A handle that moves objects: `Handle` with a codec.

Methods that are decorated with `in_c` run in C if possible. Otherwise C calls the method here, for example if the
channel has no functions in C (`ipcq._process.native`).

`put` encodes the item, checks its size, and calls the channel's `try_put`. If the queue is full, `Handle` waits and
tries again. `get` works the same way.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Final, Generic, Literal, NoReturn, TypeVar, overload

from ipcq._abilities.in_place import InPlace
from ipcq._abilities.lease import Lease
from ipcq._abilities.leases import Leasing
from ipcq._handle.calls import counted
from ipcq._handle.handle import Handle
from ipcq._handle.leftovers import out_of_memory_error
from ipcq._handle.origin import Origin
from ipcq._process.deadline import NEVER, deadline_of, seconds_of
from ipcq._process.native import in_c, log_mismatch
from ipcq._process.shortcuts import shortcuts_enabled
from ipcq.backend import STEP, Channel, Received
from ipcq.errors import (
    DecodeError,
    EncodeError,
    InvalidArgument,
    MessageQueueError,
    QueueClosed,
    QueueEmpty,
    QueueShutDown,
    VersionMismatch,
)
from ipcq.serializers import Codec

T = TypeVar("T")

# The priority of almost every message, compared by identity, which is cheaper: CPython has one object per small int.
_DEFAULT_PRIORITY: Final = 0

#: Fills a list until a message is taken.
_PLACEHOLDER: Final[Received] = (b"", 0)


@dataclass(frozen=True)
class Message(Generic[T]):
    """An item with its priority."""

    item: T
    """The item that was put."""
    priority: int
    """From 0 to 32767; the highest is taken first."""


class Queue(Handle, Leasing[T], InPlace[T], Generic[T]):
    """A handle to a named queue of objects, returned by `ipcq.open`.

    Any number of threads may use one handle. Every method raises `QueueClosed` after the handle is closed, `QueueGone`
    within a second after the queue was unlinked, and `MessageQueueError` with the errno for any other system error.
    """

    __slots__ = ("_codec", "_decode", "_encode")

    def __init__(self, channel: Channel, codec: Codec, origin: Origin) -> None:
        super().__init__(channel, origin)
        self._codec = codec
        self._encode = codec.encode
        self._decode = codec.decode
        if shortcuts_enabled():
            self._use_functions_of(channel)

    def _use_functions_of(self, channel: Channel) -> None:
        """Put and get in C from now on, if the channel has functions in C."""
        request = self._origin.request
        try:
            table = channel.native()
            if table is not None:
                # Without death notice, leases have to be renewed, which Python does.
                lease = Lease if self._session is not None and channel.capabilities.death_notice else None
                waits = self._waits is channel
                self._arm(table, self._encode, self._decode, request.write, request.read, waits, lease)
        except VersionMismatch as error:
            log_mismatch(error.at(self.name, self.backend))
        except BaseException:
            self.close()  # nobody else has this handle
            raise

    # Putting

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

    @in_c
    @counted
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
        """Put an item, and return when it is stored.

        Args:
            item: An object that the serializer can encode, in at most `max_message_size` bytes.
            block: Wait for space; False tries once.
            timeout: Seconds to wait at most, on the monotonic clock; None waits without a limit, 0 tries once.
            priority: From 0 to 32767, as in POSIX. The highest is taken first; equal priorities keep FIFO order.
            delay: Seconds from now before which it cannot be taken, on a queue with leases. Then it comes before all
                items of its priority that were put later.
            drop_oldest: If the queue is full, drop messages until the item fits, instead of waiting: only ready ones,
                from the lowest priority up to that of the item, and of each the oldest first. Excludes `timeout` and
                `delay`.

        Returns:
            With `drop_oldest`, the number of messages that were dropped; otherwise None.

        Raises:
            QueueFull: No space became free in time, or what may be dropped does not make the item fit; nothing was
                dropped then. Neither this nor any following error leaves anything in the queue.
            QueueShutDown: The queue was shut down.
            EncodeError: The serializer cannot encode the item.
            MessageTooLarge: The encoded item exceeds `max_message_size`; raised at once, without waiting.
            Unsupported: A priority other than 0 on a queue without priorities, a delay on one without leases, or
                `drop_oldest` on a backend that cannot.
            PermissionDenied: The handle was opened with ``write=False``.
            InvalidArgument: `block` is not a bool, `timeout` or `delay` is negative or not a number, `priority` is
                invalid, or `drop_oldest` has a `timeout` or a `delay` beside it.
        """
        try:
            self._calls.append(None)
            deadline = NEVER if block is True and timeout is None else deadline_of(block, timeout)
            if priority is not _DEFAULT_PRIORITY:
                self._check_priority(priority)
            data = self._encode(item)
            if len(data) > self._max_message_size:
                self._refuse_size(data)
            if drop_oldest:
                check_drop_oldest(timeout, delay)
                return self._put_dropping(data, priority)
            if delay:
                self._put_delayed(data, priority, delay, deadline)
            elif not self._try_put(data, priority):
                self._wait_put(data, priority, deadline)
        except MessageQueueError as error:
            raise error.at(self._origin.name, self._origin.backend.name)
        finally:
            self._calls.pop()
            if self._closing:
                self._close_channel_if_idle()
        return None

    @in_c
    def put_nowait(self, item: T) -> None:
        """Put an item if there is space now: ``put(item, block=False)``."""
        self.put(item, False)

    @in_c
    def put_many(
        self, items: Iterable[T], block: bool = True, timeout: float | None = None, *, priority: int = 0
    ) -> int:
        """Put the items in order, until all are stored or the time is over.

        All items are encoded before the first is stored. With `capabilities.atomic_batch`, the messages that are stored
        together become visible together, on `pyshm` only if their priority is 0.

        Args:
            items: Objects that the serializer can encode.
            block: Wait for space; False stores what fits now.
            timeout: Seconds to wait at most, for all items together; None waits until all are stored.
            priority: The priority of every item, as for `put`.

        Returns:
            The number of items stored.

        Raises:
            QueueFull: No item was stored in time.
            QueueShutDown: The queue was shut down before the first item was stored.
            EncodeError: An item cannot be encoded, the message says which; nothing was stored.
            MessageTooLarge: An encoded item exceeds `max_message_size`; nothing was stored.
            Unsupported: A priority other than 0 on a queue without priorities.
            PermissionDenied: The handle was opened with ``write=False``.
            InvalidArgument: As for `put`.
        """

        def put_all(channel: Channel) -> int:
            deadline = deadline_of(block, timeout)
            return self._put_batch(channel, self._encode_all(items, priority), deadline, priority)

        return self._with_channel(put_all)

    def _encode_all(self, items: Iterable[T], priority: int = 0) -> list[bytes]:
        self._require_write()
        self._check_priority(priority)
        if not isinstance(items, Iterable):
            raise InvalidArgument(f"items must be an iterable, not {items!r}")
        batch: list[bytes] = []
        try:
            # With map, because a Python loop over the messages would cost more than the channel.
            batch.extend(map(self._encode, items))
        except EncodeError as error:
            error.detail = f"items[{len(batch)}]: {error.detail or error.wording}"
            raise
        if max(map(len, batch), default=0) > self._max_message_size:
            self._refuse_size(next(data for data in batch if len(data) > self._max_message_size))
        return batch

    # Getting

    @in_c
    @counted
    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the next item: the oldest of the highest priority.

        Args:
            block: Wait for an item; False tries once.
            timeout: Seconds to wait at most, on the monotonic clock; None waits without a limit, 0 tries once.

        Raises:
            QueueEmpty: No item arrived in time.
            QueueShutDown: The queue was shut down and is empty.
            DecodeError: The message was taken, but this handle cannot decode it; the error has its bytes.
            PermissionDenied: The handle was opened with ``read=False``.
            InvalidArgument: `block` is not a bool, or `timeout` is negative or not a number.
            MemoryError: The item did not fit into memory; it is still in the queue, or the next get of this handle
                returns it.
        """
        received = None
        try:
            self._calls.append(None)
            deadline = NEVER if block is True and timeout is None else deadline_of(block, timeout)
            received = self._try_get()
            if received is None:
                received = self._wait_get(deadline)
            return self._decode(received[0])
        except MessageQueueError as error:
            raise error.at(self._origin.name, self._origin.backend.name)
        except MemoryError:
            self._keep_undecoded(received)
            raise
        finally:
            self._calls.pop()
            if self._closing:
                self._close_channel_if_idle()

    @in_c
    def get_nowait(self) -> T:
        """Take the next item if there is one now: ``get(block=False)``."""
        return self.get(False)

    @in_c
    def get_many(
        self, max_items: int | None = None, block: bool = True, timeout: float | None = None, *, linger: float = 0
    ) -> list[T]:
        """Wait for one item, then take all items that are in the queue.

        Args:
            max_items: The number of items to take at most, 1 or more; None takes all.
            block: Wait for the first item; False tries once.
            timeout: Seconds to wait for the first item at most; None waits without a limit.
            linger: Seconds to wait for more after the first item. The call returns as soon as it has `max_items`; with
                None it takes all items that arrive in this time. If the queue or the handle ends, or an exception comes
                from a signal handler, no item is lost: the call returns what it took, or the next get does.

        Returns:
            The items, in the order of `get`. A message that cannot be decoded is left out, and the next get of this
            handle raises its `DecodeError`. If memory runs out, the batch ends before the first item that does not fit.

        Raises:
            QueueEmpty: No item arrived in time.
            QueueShutDown: The queue was shut down and is empty.
            DecodeError: This handle can decode none of the messages.
            PermissionDenied: The handle was opened with ``read=False``.
            InvalidArgument: As for `get`, `max_items` is not an int of 1 or more, or `linger` is negative or not a
                number.
        """

        def get_all(channel: Channel) -> list[T]:
            deadline = deadline_of(block, timeout)
            check_max_items(max_items)
            # Allocate the list before a message is taken: if memory runs out, the message stays in the queue.
            messages: list[Received] = [_PLACEHOLDER]
            seconds = seconds_of(linger, "linger")
            messages[0] = self._try_get() or self._wait_get(deadline)
            if not seconds:
                return self._batch(channel, [], messages, max_items)
            self._linger(channel, messages, max_items, monotonic() + seconds)
            return self._extended([], messages)

        return self._with_channel(get_all)

    def _linger(self, channel: Channel, messages: list[Received], max_items: int | None, until: float) -> None:
        """Add the messages that arrive until then; they stay bytes until the end, so that they can be kept."""
        rest: list[Received] = []
        try:
            since = now = monotonic()
            while left := self._left(channel, messages, max_items):
                rest = channel.try_get_many(left)
                messages += rest
                if rest:
                    since = now = monotonic()
                if now >= until:
                    break
                if not rest:
                    self._waits.wait_readable(since, min(until, now + channel.slice))
                    now = monotonic()
        except MessageQueueError:
            pass  # the queue ended after the first message
        except BaseException as error:
            self._stop_lingering(error, messages, rest)

    def _stop_lingering(self, error: BaseException, messages: list[Received], rest: list[Received]) -> None:
        """Keep what was taken last, unless it was added, if memory ran out; after other exceptions keep everything."""
        if rest and messages[-1] is not rest[-1]:
            self._keep_batch(rest)
        if not isinstance(error, MemoryError):
            self._keep_batch(messages)
            raise error

    def _left(self, channel: Channel, messages: list[Received], max_items: int | None) -> int:
        """Return how many messages a lingering call may take now."""
        # The next gets return what is left over, one at a time; a closed handle takes nothing.
        if self._closing or self._leftovers.kept or self._leftovers.errors:
            return 0
        return max(1, channel.qsize()) if max_items is None else max_items - len(messages)

    def _batch(self, channel: Channel, items: list[T], messages: list[Received], max_items: int | None) -> list[T]:
        """Complete a batch that begins with these; at any time only a few large messages exist as bytes and items."""
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
        """Take the messages that follow the first in a batch, and return how many more may follow."""
        rest: list[Received] = []
        try:
            # Kept messages come before those in the queue, and are returned one at a time.
            left = 0 if self._leftovers.kept else channel.qsize() if max_items is None else max_items - len(messages)
            if left > 0 and not (messages and len(messages[0][0]) >= STEP):
                rest = channel.try_get_many(left)
                messages.extend(rest)
            return left - len(rest)
        except MessageQueueError:
            pass  # the queue ended after the first message, which must not be lost
        except MemoryError:
            self._keep_batch(rest)
        return 0

    def _extended(self, items: list[T], messages: list[Received]) -> list[T]:
        """Add the decoded messages to the items, and keep the errors of those that cannot be decoded."""
        more: list[T] = []
        errors: list[DecodeError] = []
        try:
            rest = iter([data for data, _ in messages])
            while True:
                try:
                    more.extend(map(self._decode, rest))
                    break
                except DecodeError as error:  # continue with the next message
                    errors.append(error)
            items.extend(more)
        except MemoryError:
            self._keep_rest(items, messages, more, errors)
            if not (items or errors):
                raise
        # Raise an error of this batch, not one that another thread kept.
        first = None if items or not errors else errors.pop(0)
        while errors:
            self._leftovers.errors.append(errors.pop(0))
        if self._leftovers.errors:
            self._begin_with_leftovers()
        if first is not None:
            raise first
        return items

    def _keep_rest(self, items: list[T], messages: list[Received], more: list[T], errors: list[DecodeError]) -> None:
        """Add the items that are decoded and keep the other messages, or keep all if memory runs out again."""
        try:
            rest = messages[len(more) + len(errors) :]
            if rest and self._leftovers.failed_twice(rest[0]):
                errors.append(out_of_memory_error(rest[0]))
                del rest[0]
            items.extend(more)
        except MemoryError:
            rest = messages
            errors.clear()
        self._keep_batch(rest)

    def get_message(self, block: bool = True, timeout: float | None = None) -> Message[T]:
        """Take the next item and its priority; arguments and exceptions are those of `get`."""

        def get_one(_: Channel) -> Message[T]:
            deadline = deadline_of(block, timeout)
            received = None
            try:
                received = self._try_get() or self._wait_get(deadline)
                return Message(self._decode(received[0]), received[1])
            except MemoryError:
                self._keep_undecoded(received)
                raise

        return self._with_channel(get_one)

    def get_latest(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the newest item and drop the older ones; arguments and exceptions are those of `get`.

        With priorities, it takes the newest item of the highest priority, and drops the older ones of that priority.
        Items of other priorities stay.

        Raises:
            Unsupported: The backend cannot drop messages.
        """
        self._require_ability("drop_oldest", "drop its older messages")

        def get_newest(_: Channel) -> T:
            deadline = deadline_of(block, timeout)
            received = None
            try:
                received = self._wait_latest(deadline)
                return self._decode(received[0])
            except MemoryError:
                self._keep_undecoded(received)
                raise

        return self._with_channel(get_newest)

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
            QueueEmpty: The queue is empty now.
            QueueShutDown: The queue was shut down and is empty.
            DecodeError: This handle cannot decode the message, which stays in the queue.
            Unsupported: The backend cannot peek.
            PermissionDenied: The handle was opened with ``read=False``.
        """
        return self.peek_message().item

    def peek_message(self) -> Message[T]:
        """Return the next item and its priority without taking it; exceptions are those of `peek`."""
        self._require_ability("peek", "look at a message without taking it")

        def look(channel: Channel) -> Message[T]:
            self._require_read()
            received = channel.peek()
            if received is None:
                raise self._timed_out(QueueEmpty)
            return Message(self._decode(received[0]), received[1])

        return self._with_channel(look)

    def __repr__(self) -> str:
        rights = {(True, False): ", read only", (False, True): ", write only"}
        request = self._origin.request
        state = "closed" if self._closing else "open"
        return f"<ipcq.Queue {self.name!r} on {self.backend!r}, {state}{rights.get((request.read, request.write), '')}>"

    # Fallbacks of the calls in C

    def _put_rest(self, rest: list[bytes], stored: int, deadline: float) -> int:
        """Put the rest of a batch, of which C has stored `stored` messages, and return the number of all stored."""
        try:
            return stored + self._with_channel(lambda channel: self._put_batch(channel, rest, deadline))
        except (MessageQueueError, MemoryError):
            if not stored:  # otherwise the caller needs the number of stored messages
                raise
            return stored

    def _get_rest(self, items: list[T], messages: list[bytes], more: int) -> list[T]:
        """Return a batch that C has begun: `items`, then the decoded `messages`, then up to `more` further items."""
        try:
            rest = [(data, 0) for data in messages]
            messages.clear()  # C would keep those that are still in the list
            items = self._extended(items, rest)
            if more and not (self._leftovers.kept or self._leftovers.errors):
                return self._with_channel(lambda channel: self._batch(channel, items, [], more))
        except (QueueClosed, MemoryError):  # closed meanwhile, or out of memory
            if not items:
                raise
        except MessageQueueError as error:
            raise error.at(self.name, self.backend)
        return items

    def _raise(self, error: BaseException) -> NoReturn:
        """Raise the exception that the codec raised in a call in C."""
        try:
            raise error.at(self.name, self.backend) if isinstance(error, MessageQueueError) else error
        finally:
            del error  # break the cycle of error, traceback and this frame, which would keep the caller's frames alive


def check_max_items(max_items: object) -> None:
    """Check the limit of a batch.

    Raises:
        InvalidArgument: It is neither an int of 1 or more nor None.
    """
    if max_items is not None and (isinstance(max_items, bool) or not isinstance(max_items, int) or max_items < 1):
        raise InvalidArgument(f"max_items must be an int of 1 or more, or None, not {max_items!r}")


def check_drop_oldest(timeout: object, delay: float) -> None:
    """Check what is given beside ``drop_oldest=True``.

    Raises:
        InvalidArgument: It is a timeout or a delay.
    """
    if timeout is not None or delay:
        raise InvalidArgument("drop_oldest=True does not wait: leave out timeout and delay")
