"""An open handle that moves bytes: counting calls, waiting, closing, and its state after a fork.

`_put_encoded` checks the size of the message and calls the channel's `try_put`. If the queue is full, it loops: wait
until there may be space, for at most `SLICE` seconds, and try again. Getting works the same way. `Queue` in queue.py
adds objects. Its `put` and `get` repeat the steps before the loop, to save a call.

A handle may be closed while other threads are inside a call, or by a signal handler or finaliser that interrupts a call
of its own thread. This is safe because every call is counted, a closed handle starts no new call on the channel, and
the channel is closed only when the count is zero: either by `close` itself or at the end of the last call.

Other packages of ipcq use only `ipcq._handle.interface`.
"""

import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from signal import valid_signals
from sys import is_finalizing
from time import monotonic
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeVar

from ipcq._handle.calls import calls_of_this_thread, counted
from ipcq._handle.leftovers import Leftovers, too_much
from ipcq._handle.waits import waits_of
from ipcq._process.deadline import SLICE
from ipcq._process.finaliser import quiet_at_exit
from ipcq._process.forks import Step, abandon_others, at_fork, is_closed, prepares, unprepared
from ipcq._process.gevent import is_in_hub
from ipcq.backend import (
    HIGHEST_PRIORITY,
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
    InvalidArgument,
    MessageQueueError,
    MessageTooLarge,
    PermissionDenied,
    QueueClosed,
    QueueEmpty,
    QueueFull,
    QueueNotFound,
    Unsupported,
)

R = TypeVar("R")

_READ_FALSE: Final = "this handle was opened with read=False: open another handle to read messages"
_WRITE_FALSE: Final = "this handle was opened with write=False: open another handle to put messages"
#: Why a child can use neither the inherited handle nor a new one.
NOT_PREPARED: Final = (
    "a call on the queue was in progress when this process was forked, and its backend's state must not cross a fork: "
    'fork while no call is in progress, or start processes with "spawn"'
)


@dataclass(frozen=True)
class Origin:
    """How a handle was opened, for operations that need more than its channel."""

    name: str
    backend: Backend
    request: Request
    remove: Callable[[Callable[[], bool]], None]
    """Take the name lock, and unlink the name if the argument then returns True."""
    reopen: Callable[[], tuple[Any, ...]]
    """Return what `__reduce__` has to return, so that pickle can attach again."""
    alternatives: Callable[[str], Sequence[str]]
    """Return the names of the usable backends that have a capability."""


class Handle:
    """An open handle to a queue, with messages as bytes; users get the subclass `ipcq.Queue`."""

    __slots__ = (
        "__weakref__",
        "_channel",
        "_closing",
        "_held",
        "_inherited",
        "_inside",
        "_largest",
        "_leftovers",
        "_origin",
        "_report_or_get",
        "_try_get",
        "_try_put",
        "_unlinked",
        "_waits",
    )

    def __init__(self, channel: Channel, origin: Origin) -> None:
        self._origin = origin
        self._channel = channel
        self._waits = waits_of(channel)
        self._held = {"channel": channel}  # empty once the channel is closed
        self._closing = ""  # the reason why calls are refused; empty while the handle is open
        self._inherited = False
        self._unlinked = False
        self._largest = channel.attributes.max_message_size
        # One entry for each call in progress. The counter is a deque because its append and pop are atomic and much
        # cheaper than a lock.
        self._inside: deque[None] = deque()
        self._leftovers = Leftovers(channel)
        self._report_or_get = self._leftovers.take
        # A forbidden operation is replaced by a function that raises, so that permitted calls check nothing.
        self._try_put = channel.try_put if origin.request.write else _refusal(PermissionDenied, _WRITE_FALSE)
        self._try_get = channel.try_get if origin.request.read else _refusal(PermissionDenied, _READ_FALSE)
        _handles.add(self)
        if _prepares(channel):
            prepares(channel)

    # Putting

    def _put_encoded(self, data: bytes, priority: int, deadline: float) -> None:
        """Put an encoded message."""

        def put_one(_: Channel) -> None:
            if len(data) > self._largest:
                self._refuse_size(data)
            if not self._try_put(data, priority):
                self._wait_put(data, priority, deadline)

        self._with_channel(put_one)

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
            stored += count  # not added yet if the addition above ran out of memory
            if not stored:  # otherwise the caller needs the number of stored messages
                raise
        if batch and not stored:
            raise self._out_of_time(QueueFull)
        return stored

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
            raise InvalidArgument(f"priority must be an int from 0 to {HIGHEST_PRIORITY}, not {priority!r}")
        if priority and not self._channel.capabilities.priorities:
            raise self._unsupported("priorities", "has no priorities", "create it with priorities=True")

    def _refuse_size(self, data: bytes) -> NoReturn:
        size, limit = len(data), self._largest
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
            self._inside.append(None)
            return self._try_get()
        except MessageQueueError as error:
            raise error.at(self._origin.name, self._origin.backend.name)
        finally:
            self._inside.pop()
            if self._closing:
                self._retire()

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
        """Make the error of a call that timed out; if a process holds the lock, name it: busy is not full."""
        getting = kind is QueueEmpty
        holder = self._channel.holder(getting)
        if holder is None:
            return kind()
        return kind(f"it may have {'messages' if getting else 'space'}, but {holder}: {holder.way_out}")

    # Keeping. Memory may have run out, so nothing is allocated until the messages are kept.

    def _keep_batch(self, messages: list[Received]) -> None:
        if messages:
            messages.reverse()
            self._leftovers.kept.appendleft(messages)
            self._begin_with_leftovers()

    def _keep_taken(self, received: Received | None) -> None:
        """Keep a message for the next get.

        Raises:
            DecodeError: It is small and was kept before; to keep it again would block all messages behind it.
        """
        if received is None:
            return
        if self._leftovers.is_bomb(received):
            raise too_much(received).at(self._origin.name, self._origin.backend.name)
        self._leftovers.kept.appendleft(received)
        self._begin_with_leftovers()

    def _keep(self, data: bytes, priority: int) -> None:
        """Keep a message that a shortcut took and could not decode."""
        self._leftovers.kept.appendleft(data)  # first, because the following steps may run out of memory
        self._begin_with_leftovers()
        if priority:
            self._leftovers.kept[0] = (data, priority)

    def _begin_with_leftovers(self) -> None:
        self._disarm()
        self._try_get = self._report_or_get

    # Looking

    def clear(self) -> int:
        """Drop all messages in the queue, and return their number; 0 if the queue is shut down and empty.

        Unfinished messages of killed producers are dropped too, but not counted.

        Raises:
            TimedOutError: A stopped process holds the queue's lock; nothing was dropped.
            PermissionDenied: The handle was opened with ``read=False``.
        """

        def drop(channel: Channel) -> int:
            self._require_read()
            return channel.clear() + self._leftovers.drop()

        return self._with_channel(drop)

    def qsize(self) -> int:
        """Return the number of messages in the queue; exact at that instant if `capabilities.exact_qsize`.

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
        """Name of the queue's backend."""
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
        return self._largest

    @property
    def buffer_size(self) -> int | None:
        """Capacity in bytes; None if it is limited in messages only."""
        return self._channel.attributes.buffer_size

    @property
    def priorities(self) -> bool:
        """Whether messages have priorities."""
        return self._channel.attributes.priorities

    @property
    def lifetime(self) -> Lifetime:
        """When the queue is removed: ``"persistent"`` or ``"last-close"``."""
        return self._channel.attributes.lifetime

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return bool(self._closing)

    # Notices

    def fileno(self) -> int:
        """Return a descriptor for select, poll and event loops that is readable while a `get` would not wait.

        It is readable while the queue has a message. With `capabilities.ends_on_fileno` it also becomes readable when
        the queue is shut down, and when it is unlinked, unless the handle has ``after_unlink="continue"``.

        On `mqueue` a shutdown or an unlink does not make the kernel's descriptor readable: call select or poll with a
        timeout, then try to get. Do the same on any backend if the queue's file may be removed by hand.

        The descriptor belongs to the handle: do not read from it or close it.

        Raises:
            Unsupported: The backend has no such descriptor.
            PermissionDenied: The handle was opened with ``read=False``.
        """
        self._require_ability("pollable", "give a descriptor to poll")

        def descriptor(channel: Channel) -> int:
            self._require_read()
            return channel.fileno()

        return self._with_channel(descriptor)

    def notify(self, callback: Callable[[], object] | None = None, *, signal: int | None = None) -> None:
        """Register for one notice when a message arrives in the empty queue, like ``mq_notify`` in POSIX.

        The notice is sent once, and only if no get is waiting at that time. On `mqueue` it is sent in any case, because
        the kernel does not see waits in `poll`. One process at a time can be registered. Without arguments, cancel this
        handle's registration.

        Args:
            callback: Called without arguments in a thread of its own.
            signal: Number of the signal to send to this process.

        Raises:
            LimitExceeded: Another registration is active.
            Unsupported: The backend cannot notify.
            InvalidArgument: Both are given, `callback` is not callable, or `signal` is not a signal number.
        """
        if callback is not None and signal is not None:
            raise InvalidArgument("notify takes a callback or a signal, not both")
        if callback is not None and not callable(callback):
            raise InvalidArgument(f"callback must be a function without arguments, not {callback!r}")
        if signal is not None:
            check_signal(signal)
        self._require_ability("notify", "give notice of a message")
        self._with_channel(lambda channel: channel.notify(signal if callback is None else callback))

    # Ends

    def shutdown(self, immediate: bool = False) -> None:
        """Shut down the queue for every process that has it open, as `queue.Queue.shutdown` does for threads.

        Within a second every put raises `QueueShutDown`. Gets take the remaining messages and then raise it too. With
        `capabilities.ends_on_fileno` the descriptors of `fileno` become readable; otherwise poll them with a timeout.

        Args:
            immediate: Drop all messages in the queue. No get that begins afterwards returns an item, even if a put that
                began before the shutdown stores one.

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

        def end(channel: Channel) -> None:
            if immediate:
                self._require_read()
            channel.shutdown(immediate)
            if immediate:
                self._leftovers.drop()

        self._with_channel(end)

    def close(self) -> None:
        """Close this handle; the queue and its messages stay. Further calls do nothing.

        Calls of other threads that wait in this handle raise `QueueClosed`; `close` returns after they have ended. If a
        signal handler or a finaliser calls it during another call of the same thread, it returns at once, and the
        interrupted call releases the descriptors at its end.
        """
        if not self._closing:
            self._end(QueueClosed.wording)
        self._await_others()
        self._retire()
        self._await_others()  # another thread may be closing the channel at this moment
        self._tell_undecodable()

    def unlink(self) -> None:
        """Remove the queue's name; call it before or after `close`. If the name is already removed, do nothing.

        While this handle is open, a newer queue of the same name is not touched. With `capabilities.ends_on_fileno` the
        descriptors of `fileno` become readable; otherwise poll them with a timeout.

        Raises:
            PermissionDenied: This user lacks the permission.
            TimedOutError: Other processes held the name lock for 10 seconds.
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
        if getattr(self, "_held", None):  # otherwise it is closed, or `__init__` failed
            try:
                if not self._closing and not self._inherited:
                    warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=3)
            finally:  # a filter may turn the warning into an error
                self._retire()
            self._tell_undecodable(stacklevel=4)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._origin.backend.capabilities.scope < Scope.HOST:
            raise Unsupported(
                "its queues live in one process, so no other process can attach: choose another backend",
                queue=self.name,
                backend=self.backend,
            )
        return self._origin.reopen()

    # Calls, closing and forks

    @counted
    def _with_channel(self, operation: Callable[[Channel], R]) -> R:
        """Run one operation on the channel, and count it as `put` and `get` count themselves."""
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
        self._disarm()  # first: from then on the last counted call closes the channel, and shortcuts are not counted
        self._closing = self._leftovers.closing = reason
        self._try_put = self._try_get = _refusal(QueueClosed, reason)

    def _disarm(self) -> None:
        """Overridden by shortcuts: leave every call to this class from now on."""

    def _await_others(self) -> None:
        """Wait until no thread is inside a call of this handle; return at once if this thread is inside one.

        Otherwise two threads whose finalisers close the handle during their calls would deadlock. Daemon threads no
        longer run while the interpreter exits, so there is no wait then.
        """
        if not calls_of_this_thread(self):
            while self._inside and not is_in_hub() and not is_finalizing():
                time.sleep(0.001)

    @counted
    def _retire(self) -> None:
        """Close the channel, unless a call is in progress: then the last call to end closes it.

        Closing counts as a call, so that other calls of `close` return only when the channel is closed.
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
        while self._leftovers.errors:
            unseen.append(self._leftovers.errors.popleft().data)
        if unseen and not self._inherited:
            warnings.warn(
                f"{self!r} took messages that it could not decode and no get reported: {unseen}", stacklevel=stacklevel
            )
        if kept := self._leftovers.drop():
            warnings.warn(
                f"{self!r} lost {kept} messages that did not fit into memory: get until the queue is empty before you "
                "close it",
                stacklevel=stacklevel,
            )

    def _forget_calls(self) -> None:
        # Other threads do not exist in the child; only calls of this thread still end. If a signal handler forked, a
        # call on the stack may not have been counted yet, or may have been uncounted already.
        calls = min(calls_of_this_thread(self), len(self._inside))
        self._inside.clear()
        self._inside.extend([None] * calls)
        self._inherited = True
        self._leftovers.kept.clear()  # the parent returns these
        if self._closing and not calls:
            self._held.clear()  # the thread that had to close the channel does not exist in the child

    def _after_fork(self) -> None:
        if self._held and not self._channel.after_fork():
            self._give_up("queues of this backend do not cross a fork: open the queue in the child")

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


def _count_served(channel: Channel) -> None:
    """Count a wait that succeeded; if memory runs out, only the count is lost, not the result of the call."""
    try:
        channel.count_wait(True)
    except MemoryError:
        pass


def check_signal(signal: object) -> None:
    if isinstance(signal, bool) or not isinstance(signal, int) or signal not in valid_signals():
        raise InvalidArgument(f"signal must be the number of a signal, not {signal!r}")


def _refusal(kind: type[MessageQueueError], reason: str) -> Callable[..., NoReturn]:
    """Make a function that raises this error, to replace an operation."""

    def refuse(*_: object) -> NoReturn:
        raise kind(reason)

    return refuse


_handles: weakref.WeakSet[Handle] = weakref.WeakSet()


def _prepares(channel: Channel) -> bool:
    return type(channel).before_fork is not Channel.before_fork


def _after_fork() -> None:
    handles = list(_handles)
    held = [(handle.name, channel) for handle in handles for channel in handle._held.values()]
    missed = unprepared(held, _prepares)
    for handle in handles:
        handle._forget_calls()
    abandon_others({id(channel) for handle in handles for channel in handle._held.values()})
    for handle in handles:
        if missed.isdisjoint(map(id, handle._held.values())):
            handle._after_fork()
        else:
            handle._give_up(NOT_PREPARED)


at_fork(Step.HANDLES, after_in_child=_after_fork)
