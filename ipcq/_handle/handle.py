"""An open handle that moves bytes: putting, getting, waiting, and looking at the queue.

`_put_encoded` checks the size of the message and calls the channel's `try_put`. If the queue is full, it loops: wait
until there may be space, for at most the channel's `slice`, and try again. Getting works the same way. `Queue` in
queue.py adds objects. Its `put` and `get` repeat the steps before the loop, to save a call. `RemoteQueue` in remote.py
adds what queues on servers need. `Lifecycle` in lifecycle.py counts the calls, and closes the channel.

Other packages of ipcq use only `ipcq._handle.interface`.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from signal import valid_signals
from time import monotonic
from typing import Any, Final, NoReturn, TypeVar, cast

from ipcq._abilities.dead_letters import dead_command
from ipcq._abilities.lease import described
from ipcq._handle.calls import counted
from ipcq._handle.leftovers import out_of_memory_error
from ipcq._handle.lifecycle import Lifecycle, refusal
from ipcq._handle.origin import Origin
from ipcq._handle.waits import waits_of
from ipcq._process.deadline import seconds_of
from ipcq.backend import (
    HIGHEST_PRIORITY,
    LONGEST,
    Capabilities,
    Channel,
    LeaseChannel,
    Lifetime,
    Received,
    Scope,
    Stats,
)
from ipcq.errors import (
    InvalidArgument,
    MessageQueueError,
    MessageTooLarge,
    PermissionDenied,
    QueueEmpty,
    QueueFull,
    QueueNotFound,
    Unsupported,
)

R = TypeVar("R")

_READ_FALSE: Final = "this handle was opened with read=False: open another handle to read messages"
_WRITE_FALSE: Final = "this handle was opened with write=False: open another handle to put messages"


class Handle(Lifecycle):
    """An open handle to a queue, with messages as bytes; users get the subclass `ipcq.Queue`."""

    __slots__ = ("_max_message_size", "_take_leftover_or_get", "_unlinked", "_waits")

    def __init__(self, channel: Channel, origin: Origin) -> None:
        self._waits = waits_of(channel)
        self._max_message_size = channel.attributes.max_message_size
        self._unlinked = False
        # A forbidden operation is replaced by a function that raises, so that permitted calls check nothing.
        self._try_put = channel.try_put if origin.request.write else refusal(PermissionDenied, _WRITE_FALSE)
        self._try_get = channel.try_get if origin.request.read else refusal(PermissionDenied, _READ_FALSE)
        super().__init__(channel, origin)
        self._take_leftover_or_get = self._leftovers.take

    # Putting

    def _put_encoded(self, data: bytes, priority: int, deadline: float, delay: float = 0) -> None:
        """Put an encoded message."""

        def put_one(_: Channel) -> None:
            if len(data) > self._max_message_size:
                self._refuse_size(data)
            if delay:
                self._put_delayed(data, priority, delay, deadline)
            elif not self._try_put(data, priority):
                self._wait_put(data, priority, deadline)

        self._with_channel(put_one)

    def _put_batch(self, channel: Channel, batch: Sequence[bytes], deadline: float, priority: int = 0) -> int:
        also = (priority,) if priority else ()
        since = monotonic()
        waited = False
        stored = count = 0
        try:
            while stored < len(batch):
                self._check_open()
                count = channel.try_put_many(batch[stored:] if stored else batch, *also)
                stored, count = stored + count, 0
                now = monotonic()
                if stored == len(batch) or now >= deadline:
                    break
                waited = True
                self._waits.wait_writable(len(batch[stored]), since, min(deadline, now + channel.slice))
            if waited:
                channel.count_wait(stored == len(batch))
        except (MessageQueueError, MemoryError):
            stored += count  # not added yet if the addition above ran out of memory
            if not stored:  # otherwise the caller needs the number of stored messages
                raise
        if batch and not stored:
            raise self._timed_out(QueueFull)
        return stored

    def _wait_put(self, data: bytes, priority: int, deadline: float) -> None:
        self._wait_store(lambda: self._try_put(data, priority), len(data), deadline)

    def _wait_store(self, attempt: Callable[[], bool], size: int, deadline: float) -> None:
        since = now = monotonic()
        if now >= deadline:
            raise self._timed_out(QueueFull)
        channel = self._channel
        while now < deadline:
            self._waits.wait_writable(size, since, min(deadline, now + channel.slice))
            if attempt():
                _count_successful_wait(channel)
                return
            now = monotonic()
        channel.count_wait(False)
        raise self._timed_out(QueueFull)

    def _put_delayed(self, data: bytes, priority: int, delay: float, deadline: float) -> None:
        """Put an encoded message that becomes ready `delay` seconds from now."""
        if not self._channel.capabilities.delays:
            raise self._unsupported("delays", "has no delays", "create it with leases=True")
        due = monotonic() + min(seconds_of(delay, "delay"), LONGEST)
        channel = cast("LeaseChannel", self._channel)

        def attempt() -> bool:
            self._check_open()
            return channel.try_put_delayed(data, priority, max(0.0, due - monotonic()))

        self._require_write()
        if not attempt():
            self._wait_store(attempt, len(data), deadline)

    def _put_dropping(self, data: bytes, priority: int) -> int:
        """Put an encoded message without waiting, drop the oldest messages if necessary, and return their number."""
        self._require_ability("drop_oldest", "drop its oldest messages")
        self._require_write()
        self._check_open()
        dropped = self._channel.try_put_dropping(data, priority)
        if dropped is None:
            raise self._nothing_to_drop()
        return dropped

    def _nothing_to_drop(self) -> QueueFull | QueueEmpty:
        if self._channel.holder(False) is not None:
            return self._timed_out(QueueFull)
        full = self._what_fills() or "the queue is full"
        return QueueFull(f"{full}; too few ready messages of at most this priority to drop: put without drop_oldest")

    def _check_priority(self, priority: int) -> None:
        if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= HIGHEST_PRIORITY:
            raise InvalidArgument(f"priority must be an int from 0 to {HIGHEST_PRIORITY}, not {priority!r}")
        if priority and not self._channel.capabilities.priorities:
            raise self._unsupported("priorities", "has no priorities", "create it with priorities=True")

    def _refuse_size(self, data: bytes) -> NoReturn:
        size, limit = len(data), self._max_message_size
        raise MessageTooLarge(
            f"the message has {size} bytes, the limit is {limit}: create the queue with max_message_size={size}",
            size=size,
            limit=limit,
        )

    # Getting

    @counted
    def _try_take(self) -> Received | None:
        """Take the next message as bytes, for `ipcq.compat`; return None if the queue is empty."""
        # Counts the call inline as `get` does: `_with_channel` would cost every message of compat.posix_ipc a call.
        try:
            self._calls.append(None)
            return self._try_get()
        except MessageQueueError as error:
            raise error.at(self._origin.name, self._origin.backend.name)
        finally:
            self._calls.pop()
            if self._closing:
                self._close_channel_if_idle()

    def _wait_get(self, deadline: float) -> Received:
        def attempt() -> Received | None:
            return self._try_get()  # looked up each time, because a close replaces it

        return self._wait_take(attempt, deadline)

    def _wait_take(self, attempt: Callable[[], R | None], deadline: float) -> R:
        since = now = monotonic()
        if now >= deadline:
            raise self._timed_out(QueueEmpty)
        channel = self._channel
        while now < deadline:
            self._waits.wait_readable(since, min(deadline, now + channel.slice))
            received = attempt()
            if received is not None:
                _count_successful_wait(channel)
                return received
            now = monotonic()
        channel.count_wait(False)
        raise self._timed_out(QueueEmpty)

    def _take_latest(self) -> Received | None:
        """Take the newest message as bytes, and drop the older ones."""
        self._require_read()
        self._check_open()
        kept = None
        while self._leftovers.kept:  # they are older than those in the queue
            kept = self._leftovers.take()
        try:
            return self._channel.try_get_latest() or kept
        except (MessageQueueError, MemoryError):
            if kept is None:
                raise
            return kept

    def _wait_latest(self, deadline: float) -> Received:
        return self._take_latest() or self._wait_take(self._take_latest, deadline)

    def _timed_out(self, kind: type[QueueFull | QueueEmpty]) -> QueueFull | QueueEmpty:
        """Make the error of a call that timed out; if a process holds the lock, name it: busy is not full."""
        getting = kind is QueueEmpty
        holder = self._channel.holder(getting)
        if holder is None:
            return kind("" if getting else self._what_fills())
        return kind(f"it may have {'messages' if getting else 'space'}, but {holder}: {holder.way_out}")

    def _what_fills(self) -> str:
        """Describe what a full queue with leases is full of."""
        channel = self._channel
        if not channel.capabilities.leases:
            return ""
        try:
            counts = cast("LeaseChannel", channel).counts()
        except MessageQueueError:
            return ""  # the queue has ended; the next call says so
        way = f": see the dead letters with {dead_command(self.name, self.backend)}" if counts.dead else ""
        return f"{QueueFull.wording}: {described(counts)}{way}"

    # Keeping. Memory may have run out, so nothing is allocated until the messages are kept.

    def _keep_batch(self, messages: list[Received]) -> None:
        if messages:
            messages.reverse()
            self._leftovers.kept.appendleft(messages)
            self._begin_with_leftovers()

    def _keep_undecoded(self, received: Received | None) -> None:
        """Keep a message for the next get.

        Raises:
            DecodeError: It is small and was kept before; to keep it again would block all messages behind it.
        """
        if received is None:
            return
        if self._leftovers.failed_twice(received):
            raise out_of_memory_error(received).at(self._origin.name, self._origin.backend.name)
        self._leftovers.kept.appendleft(received)
        self._begin_with_leftovers()

    def _keep(self, data: bytes, priority: int) -> None:
        """Keep a message that a call in C took and could not decode."""
        self._leftovers.kept.appendleft(data)  # first, because the following steps may run out of memory
        self._begin_with_leftovers()
        if priority:
            self._leftovers.kept[0] = (data, priority)

    def _begin_with_leftovers(self) -> None:
        self._disarm()
        self._try_get = self._take_leftover_or_get

    # Looking

    def clear(self) -> int:
        """Drop all messages in the queue, and return their number; 0 if the queue is shut down and empty.

        Unfinished messages of killed producers are dropped too, but not counted. Leased messages and dead letters stay.

        Raises:
            TimedOutError: A stopped process holds the queue's lock; nothing was dropped.
            PermissionDenied: The handle was opened with ``read=False``.
        """

        def drop_all(channel: Channel) -> int:
            self._require_read()
            return channel.clear() + self._leftovers.drop()

        return self._with_channel(drop_all)

    def qsize(self) -> int:
        """Return the number of messages in the queue; exact at that instant if `capabilities.exact_qsize`.

        On a queue with leases these are the messages that are ready; `stats` counts the others.
        Includes messages that this handle took when memory ran out, and returns from its next gets.
        """
        return self._with_channel(lambda channel: channel.qsize() + self._leftovers.count())

    def empty(self) -> bool:
        """Return whether a get would have had to wait."""
        return self._with_channel(lambda channel: not self._leftovers.kept and channel.empty())

    def full(self) -> bool:
        """Return whether a put of the smallest message would have had to wait."""
        return self._with_channel(lambda channel: channel.full())

    def stats(self) -> Stats:
        """Return the queue's statistics over all processes; None marks a value that the backend does not record."""
        return self._with_channel(lambda channel: channel.stats())

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._origin.name

    @property
    def backend(self) -> str:
        """Name of the queue's backend, or URL of its place; with the name, `open` finds the queue again."""
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
        """Capacity in messages; None if it is limited in bytes only."""
        return self._channel.attributes.max_messages

    @property
    def max_message_size(self) -> int:
        """Largest encoded message, in bytes."""
        return self._max_message_size

    @property
    def buffer_size(self) -> int | None:
        """Capacity in bytes; None if it is limited in messages only."""
        return self._channel.attributes.buffer_size

    @property
    def priorities(self) -> bool:
        """Whether messages have priorities."""
        return self._channel.attributes.priorities

    @property
    def max_deliveries(self) -> int | None:
        """Failed deliveries that make a message a dead letter; None: any number."""
        return self._channel.attributes.max_deliveries

    @property
    def lifetime(self) -> Lifetime:
        """When the queue is removed: ``"persistent"`` or ``"last-close"``."""
        return self._channel.attributes.lifetime

    @property
    def options(self) -> Mapping[str, Any]:
        """The backend-specific options with which the queue was created."""
        return dict(self._channel.attributes.options)

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return bool(self._closing)

    # Notices

    def fileno(self) -> int:
        """Return a descriptor for select, poll and event loops that is readable while a `get` would not wait.

        It is readable while a message is ready. With `capabilities.ends_on_fileno` it also becomes readable when the
        queue is shut down, and when it is unlinked, unless the handle has ``after_unlink="continue"``.

        On `mqueue` a shutdown or an unlink does not make the kernel's descriptor readable: call select or poll with a
        timeout, then try to get. Do the same on any backend if the queue's file may be removed by hand.

        On a queue with leases this starts a thread, which notices the end of holds, delays and their holders.

        The descriptor belongs to the handle: do not read from it or close it.

        Raises:
            Unsupported: The backend has no such descriptor.
            PermissionDenied: The handle was opened with ``read=False``.
        """
        self._require_ability("pollable", "give a descriptor to poll")

        def descriptor(channel: Channel) -> int:
            self._require_read()
            self._keep_up()
            return channel.fileno()

        return self._with_channel(descriptor)

    def _keep_up(self) -> None:
        if self._session is not None:  # nobody writes to the queue when a hold or a delay ends
            self._session.keep_up(weakref.ref(self))

    def notify(self, callback: Callable[[], object] | None = None, *, signal: int | None = None) -> None:
        """Register for one notice when a message arrives in the empty queue, like ``mq_notify`` in POSIX.

        The notice is sent once, and only if no get is waiting at that time. On `mqueue` it is sent in any case, because
        the kernel does not see waits in `poll`. One process at a time can be registered. Without arguments, cancel this
        handle's registration.

        On a queue with leases, a message arrives when it becomes ready, and a thread of this handle notices the end of
        holds, delays and their holders.

        Args:
            callback: Called without arguments in a thread of its own.
            signal: Number of the signal to send to this process.

        Raises:
            LimitExceeded: Another registration is active.
            Unsupported: The backend cannot notify, or not in an interpreter with its own GIL (Python 3.12 and later).
            InvalidArgument: Both are given, `callback` is not callable, or `signal` is not a signal number.
        """
        if callback is not None and signal is not None:
            raise InvalidArgument("notify takes a callback or a signal, not both")
        if callback is not None and not callable(callback):
            raise InvalidArgument(f"callback must be a function without arguments, not {callback!r}")
        if signal is not None:
            check_signal(signal)
        self._require_ability("notify", "give notice of a message")

        notice = signal if callback is None else callback

        def request(channel: Channel) -> None:
            if notice is not None:
                self._keep_up()
            channel.notify(notice)

        self._with_channel(request)

    # Ends

    def shutdown(self, immediate: bool = False) -> None:
        """Shut down the queue for every process that has it open, as `queue.Queue.shutdown` does for threads.

        Within a second every put raises `QueueShutDown`. Gets take the remaining messages and then raise it too. While
        a message is leased or delayed they wait for it, also if this process holds the lease. With
        `capabilities.ends_on_fileno` the descriptors of `fileno` become readable; otherwise poll them with a timeout.

        Args:
            immediate: Drop all messages in the queue, leased ones too, except dead letters. No get that begins
                afterwards returns an item, even if a put that began before the shutdown stores one.

        Raises:
            Unsupported: The backend cannot shut down queues.
            TimedOutError: A stopped process holds the queue's lock, and the backend needs it to shut down; nothing was
                changed.
            PermissionDenied: This user lacks the permission; or `immediate` is True, which reads messages, and the
                handle was opened with ``read=False``.
            InvalidArgument: `immediate` is not a bool.
        """
        if not isinstance(immediate, bool):
            raise InvalidArgument(f"immediate must be True or False, not {immediate!r}")
        self._require_ability("shutdown", "be shut down")

        def shut_down(channel: Channel) -> None:
            if immediate:
                self._require_read()
            channel.shutdown(immediate)
            if immediate:
                self._leftovers.drop()

        self._with_channel(shut_down)

    def unlink(self) -> None:
        """Remove the queue's name; call it before or after `close`. If the name is already removed, do nothing.

        While this handle is open, a newer queue of the same name is not touched; if the queue is in a place, it is
        not touched afterwards either. With `capabilities.ends_on_fileno` the descriptors of `fileno` become readable;
        otherwise poll them with a timeout.

        Raises:
            PermissionDenied: This user lacks the permission.
            TimedOutError: Other processes held the name lock for 10 seconds.
        """
        if self._unlinked:
            return

        def is_linked_or_closed() -> bool:
            return bool(self._closing) or self._with_channel(lambda channel: channel.linked())

        try:
            self._origin.remove(is_linked_or_closed, self._channel.incarnation)
        except QueueNotFound:
            pass
        self._unlinked = True

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin.backend.capabilities.scope < Scope.HOST:
            raise Unsupported(
                "its queues live in one process, so no other process can attach: choose another backend",
                queue=self.name,
                backend=self.backend,
            )
        return self._origin.reopen()

    # Checks

    def _require_read(self) -> None:
        if not self._origin.request.read:
            raise PermissionDenied(_READ_FALSE)

    def _require_write(self) -> None:
        if not self._origin.request.write:
            raise PermissionDenied(_WRITE_FALSE)

    def _require_ability(self, ability: str, phrase: str) -> None:
        if not getattr(self._channel.capabilities, ability):
            raise self._unsupported(ability, f"cannot {phrase}")

    def _unsupported(self, ability: str, phrase: str, remedy: str = "") -> Unsupported:
        others = self._origin.alternatives(ability)
        remedies = [f"use backend={other!r}" for other in others]
        if remedy and getattr(self._origin.backend.capabilities, ability):
            remedies = [remedy]
        return Unsupported(
            f"this queue {phrase}: {', or '.join(remedies) or 'no installed backend can'}",
            alternatives=others,
            queue=self.name,
            backend=self.backend,
        )


def _count_successful_wait(channel: Channel) -> None:
    """Count a wait that succeeded; if memory runs out, only the count is lost, not the result of the call."""
    try:
        channel.count_wait(True)
    except MemoryError:
        pass


def check_signal(signal: object) -> None:
    if isinstance(signal, bool) or not isinstance(signal, int) or signal not in valid_signals():
        raise InvalidArgument(f"signal must be the number of a signal, not {signal!r}")
