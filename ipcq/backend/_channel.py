"""One open connection to one queue; it moves bytes."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias, runtime_checkable

from ipcq._process.deadline import SLICE, pause
from ipcq._process.lock_holders import Holder
from ipcq.backend._attributes import Attributes
from ipcq.backend._capabilities import Capabilities
from ipcq.backend._notice import Notice
from ipcq.backend._stats import Stats
from ipcq.errors import MessageQueueError, QueueShutDown, Unsupported

#: Largest priority of a message, as in POSIX (``MQ_PRIO_MAX`` is 32768 on Linux).
HIGHEST_PRIORITY: Final = 32767

#: Bytes of messages after which `Channel.try_get_many` may end a batch. `get_many` then calls it again. So only a part
#: of a batch of large messages exists both as bytes and as items.
STEP: Final = 1 << 23

#: What `Channel.try_get` returns: the message's bytes and its priority.
Received: TypeAlias = tuple[bytes, int]


@runtime_checkable
class Channel(Protocol):
    """One open connection to one queue; it moves bytes. Subclass it: all that is not abstract has a correct default.

    Any number of threads may call its methods at the same time, except `close` and `after_fork` (clauses 16, 17).
    `before_fork` may be called while other calls are running.
    """

    attributes: Attributes
    """What the queue was created with."""
    capabilities: Capabilities
    """What this queue can do."""
    slice: float = SLICE
    """Longest time of one `wait_readable` or `wait_writable`, in seconds."""
    remote: bool = False
    """Its operations ask a server: it is a `RemoteChannel`."""
    may_block: bool = False
    """A call may take long, because it waits for a disk or a server: `ipcq.aio` makes the calls in threads."""
    incarnation: str = ""
    """Identifies this queue among all that have or had its name; empty if `linked` and the name lock suffice."""

    @abstractmethod
    def try_put(self, data: bytes, priority: int, /) -> bool:
        """Store one message of at most `max_message_size` bytes if there is space now (clause 8).

        Raises:
            QueueShutDown: The queue is shut down.
            QueueGone: The queue was unlinked.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def try_get(self) -> Received | None:
        """Take the next message if there is one now (clause 9).

        Raises:
            QueueShutDown: The queue is shut down and empty.
            QueueGone: The queue was unlinked.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def qsize(self) -> int:
        """Count the messages in the queue.

        Raises:
            QueueGone: The queue was unlinked.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def close(self) -> None:
        """Release every descriptor and mapping of this channel (clause 16)."""
        raise NotImplementedError  # pragma: no cover - abstract

    def empty(self) -> bool:
        """Return whether a get would have to wait."""
        return not self.qsize()

    def full(self) -> bool:
        """Return whether a put of the smallest message would have to wait."""
        limit = self.attributes.max_messages
        return limit is not None and self.qsize() >= limit

    def try_put_many(self, batch: Sequence[bytes], priority: int = 0, /) -> int:
        """Store as many messages from the start of the batch as fit now, all with this priority; return their number.

        A backend without priorities gets no second argument.
        """
        stored = 0
        # Create the number before the put, because it allocates memory.
        for number, data in enumerate(batch, 1):
            try:
                if not self.try_put(data, priority):
                    break
            except (MessageQueueError, MemoryError):
                # Report what is stored already; the next call raises again.
                if not stored:
                    raise
                break
            stored = number
        return stored

    def try_put_all(self, batch: Sequence[bytes], /) -> int:
        """Store the whole batch in one step and return its length, or store nothing and return 0 (clause 22)."""
        raise Unsupported

    def try_put_dropping(self, data: bytes, priority: int, /) -> int | None:
        """Store one message, and drop ready ones if it does not fit otherwise (clause 43).

        Returns:
            The number of messages that were dropped; None if the message does not fit even so, or a lock is held: then
            nothing was dropped.

        Raises:
            QueueShutDown: The queue is shut down.
        """
        raise Unsupported

    def try_get_latest(self) -> Received | None:
        """Take the newest message of the highest priority if there is one now, and drop the older ones (clause 44).

        Raises:
            QueueShutDown: The queue is shut down and empty.
        """
        raise Unsupported

    def try_get_many(self, limit: int, /) -> list[Received]:
        """Take up to `limit` messages that are in the queue now, in order; stop once they have `STEP` bytes."""
        batch: list[Received] = []
        taken = size = 0
        try:
            while taken < limit and size < STEP:
                batch.append((b"", 0))  # reserve the entry before the take, because it allocates memory
                received = self.try_get()
                if received is None:
                    break
                batch[-1] = received
                taken = len(batch)
                size += len(received[0])
        except (MessageQueueError, MemoryError):
            if not taken:
                raise
        del batch[taken:]
        return batch

    def wait_readable(self, since: float, until: float, /) -> None:
        """Wait until a message may be available, until `until` at the latest (clause 13).

        `since` is when the whole wait began. Both are times of `time.monotonic`, in seconds. `until` is at most `slice`
        ahead.
        """
        pause(since, until)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        """Wait until a message of `size` bytes may fit, until `until` at the latest (clause 13)."""
        pause(since, until)

    def wake(self) -> None:
        """End the waits of this channel soon. A handle that is being closed calls it, perhaps after `close`."""
        return

    def count_wait(self, served: bool, /) -> None:
        """Count, for `stats`, a put or get that had to wait, and whether it succeeded in the end."""
        return

    def holder(self, getting: bool, /) -> Holder | None:
        """Return the process that kept the last put or get of this channel waiting and still holds the lock, or None.

        Called when a put or get fails, so that the error can name that process (clause 14).
        """
        return None

    def linked(self) -> bool:
        """Return whether the name still leads to this queue (clause 4)."""
        return True

    def peek(self) -> Received | None:
        """Return the next message without taking it, or None.

        Raises:
            QueueShutDown: The queue is shut down and empty.
            QueueGone: The queue was unlinked.
        """
        raise Unsupported

    def clear(self) -> int:
        """Drop the messages in the queue and return their number; 0 if the queue is shut down and empty.

        Raises:
            TimedOutError: A stopped process holds the queue's lock; nothing was dropped.
        """
        dropped = 0
        try:
            for _ in range(self.qsize()):
                if self.try_get() is None:
                    break
                dropped += 1
        except QueueShutDown:
            pass  # other consumers took the rest
        return dropped

    def shutdown(self, immediate: bool, /) -> None:
        """End the queue for every process that has it open (clause 15)."""
        raise Unsupported

    def fileno(self) -> int:
        """Return a descriptor, owned by the channel, that is readable while the queue is not empty.

        With `capabilities.ends_on_fileno` it is also readable after a shutdown or an unlink (clause 14).
        """
        raise Unsupported

    def space_fileno(self) -> int | None:
        """Return a descriptor, owned by the channel, that is writable while the queue is not full (clause 14).

        Return None if no descriptor becomes writable at once; callers that wait for space then poll.
        """
        return None

    def descriptors(self) -> tuple[int, ...]:
        """Return a nameless queue's descriptors to pass to another process; the channel still owns them (clause 22)."""
        raise Unsupported

    def notify(self, notice: Notice | None, /) -> None:
        """Request one notice when a message arrives in the empty queue; None cancels the request.

        Raises:
            LimitExceeded: Another request is pending.
        """
        raise Unsupported

    def stats(self) -> Stats:
        """Return the figures that the mechanism keeps over all processes."""
        return Stats(depth=self.qsize())

    def native(self) -> object | None:
        """Return a capsule with this channel's functions in C, or None (clause 21).

        Called once for each handle. It is worthwhile if `try_put` costs less than the call of a method in Python. The
        header ``ipcq/channel.h`` describes the functions; `get_include` returns its directory.
        """
        return None

    def before_fork(self) -> None:
        """Release, in the parent before a fork, what parent and child must not share (clause 17).

        For libraries whose state must not cross a fork, such as database connections: wait for the thread that uses the
        connection, close it, and keep the lock, so that no thread opens another one before `after_fork_in_parent`
        releases the lock. The parent's next call then opens the connection again.

        A signal handler that interrupts a call of this channel may call it. If it raises, it must have changed nothing:
        Python reports the exception and forks anyway, `after_fork_in_parent` is not called, and in the child the handle
        is closed and the queue's name cannot be opened.

        A channel that overrides this calls `belongs` before it opens anything. `close` may run at the same time.
        """
        return

    def after_fork_in_parent(self) -> None:
        """Undo `before_fork` in the parent, in the thread that forked."""
        return

    def after_fork(self) -> bool:
        """Make the channel usable in a forked child, or return False if that is impossible (clause 17)."""
        return True

    def abandon(self) -> None:
        """Release, in a forked child, the child's descriptors and mappings of this channel (clause 17).

        Called on channels passed to `belongs` that the parent was opening or closing, or has closed. It must not change
        anything that other processes see, and does nothing on a closed channel.
        """
        return
