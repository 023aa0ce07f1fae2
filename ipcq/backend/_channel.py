"""One open handle to one queue, speaking bytes."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias, TypeVar, runtime_checkable

from ipcq._process.deadline import pause
from ipcq._process.lock_holders import Holder
from ipcq.backend._attributes import Attributes
from ipcq.backend._capabilities import Capabilities
from ipcq.backend._notice import Notice
from ipcq.backend._stats import Stats
from ipcq.errors import MessageQueueError, QueueShutDown, Unsupported

#: Largest priority of a message, as in POSIX (``MQ_PRIO_MAX`` is 32768 on Linux).
HIGHEST_PRIORITY: Final = 32767

#: Bytes of messages after which `Channel.try_get_many` may end a batch. `get_many` then asks for more, so that of a
#: batch of large messages only a part exists both as bytes and as items.
STEP: Final = 1 << 23

#: What `Channel.try_get` takes: the message's bytes and its priority.
Received: TypeAlias = tuple[bytes, int]

_Handle = TypeVar("_Handle")


@runtime_checkable
class Channel(Protocol):
    """One open handle to one queue, speaking bytes. Subclass it: what is not abstract has a default that is correct.

    Any number of threads call a channel's methods at the same time, `close` and `after_fork` excepted (clauses 16, 17).
    `before_fork` may come while others are inside.
    """

    attributes: Attributes
    """What the queue was created with."""
    capabilities: Capabilities
    """What this queue can do."""

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
        """Give back what this channel holds of the system (clause 16)."""
        raise NotImplementedError  # pragma: no cover - abstract

    def empty(self) -> bool:
        """Tell whether a get would have to wait."""
        return not self.qsize()

    def full(self) -> bool:
        """Tell whether a message of the smallest size would have to wait."""
        limit = self.attributes.max_messages
        return limit is not None and self.qsize() >= limit

    def try_put_many(self, batch: Sequence[bytes], /) -> int:
        """Store as many messages of the batch, from its start on, as there is space for now, and count them."""
        stored = 0
        # The number is created before the put, because that allocates.
        for number, data in enumerate(batch, 1):
            try:
                if not self.try_put(data, 0):
                    break
            except (MessageQueueError, MemoryError):
                # What is stored already has to be reported; the next call meets the condition again.
                if not stored:
                    raise
                break
            stored = number
        return stored

    def try_put_all(self, batch: Sequence[bytes], /) -> int:
        """Store the whole batch in one step and return its length, or store nothing and return 0 (clause 22)."""
        raise Unsupported

    def try_get_many(self, limit: int, /) -> list[Received]:
        """Take up to `limit` messages that are there now, oldest first; end once they have `STEP` bytes."""
        batch: list[Received] = []
        taken = size = 0
        try:
            while taken < limit and size < STEP:
                batch.append((b"", 0))  # reserve the place before the message is taken, because that allocates
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
        """Wait until a message may be there, at the latest until `until` (clause 13).

        `since` is when the whole wait began. Both are points on `time.monotonic`, in seconds, and `until` is never more
        than `SLICE` ahead.
        """
        pause(since, until)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        """Wait until a message of `size` bytes may fit, at the latest until `until` (clause 13)."""
        pause(since, until)

    def count_wait(self, served: bool, /) -> None:
        """Note for `stats` that a put or a get had to wait, and whether it was served in the end."""
        return

    def holder(self, getting: bool, /) -> Holder | None:
        """Return the process that kept the last put or get of this channel waiting and still holds the lock, or None.

        It is called when a put or a get ends without result, so that the error can name that process (clause 14).
        """
        return None

    def linked(self) -> bool:
        """Tell whether the name still leads to this queue (clause 4)."""
        return True

    def peek(self) -> Received | None:
        """Return the next message without taking it; None where there is none.

        Raises:
            QueueShutDown: The queue is shut down and empty.
            QueueGone: The queue was unlinked.
        """
        raise Unsupported

    def clear(self) -> int:
        """Drop the messages that are in the queue, and count them; 0 also where the queue is shut down and empty.

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

        With `capabilities.ends_on_fileno` it is also readable once the queue has ended (clause 14).
        """
        raise Unsupported

    def space_fileno(self) -> int | None:
        """Return a descriptor, owned by the channel, that is writable while the queue is not full (clause 14).

        None where there is none that becomes so at once: who waits for space then looks again and again.
        """
        return None

    def descriptors(self) -> tuple[int, ...]:
        """Return what of a nameless queue has to travel to another process; they stay the channel's (clause 22)."""
        raise Unsupported

    def notify(self, notice: Notice | None, /) -> None:
        """Ask for one notice when a message arrives in the empty queue; None cancels.

        Raises:
            LimitExceeded: Somebody else asked before and still waits.
        """
        raise Unsupported

    def stats(self) -> Stats:
        """Return the figures that the mechanism keeps over all processes."""
        return Stats(depth=self.qsize())

    @classmethod
    def shortcut(cls, handle: "type[_Handle]", /) -> "type[_Handle]":
        """Return the class of handles over this kind of channel, where `handle` is `ipcq.Queue` (clause 21).

        It is asked once. A subclass is worth its while where `try_put` takes less time than a method written in Python;
        `Shortcut` says what it finds in the class that it is derived from.
        """
        return handle

    def before_fork(self) -> None:
        """Give up, in the parent and before a fork, what must not be in parent and child at once (clause 17).

        For libraries whose state must not cross a fork, such as database connections: wait for the thread that is
        inside, close the connection, and keep the lock, so that no thread opens another one before
        `after_fork_in_parent`, which releases it. The parent's next call then opens it again.

        It may be called by a signal handler that interrupts a call of this channel. If it raises, it has changed
        nothing: Python reports the exception and forks all the same, `after_fork_in_parent` is not called, and in the
        child the handle is closed and the queue's name cannot be opened.

        A channel that overrides this calls `belongs` before it opens anything, and `close` may run meanwhile.
        """
        return

    def after_fork_in_parent(self) -> None:
        """End in the parent, in the thread that forked, what `before_fork` began."""
        return

    def after_fork(self) -> bool:
        """Make the channel usable in a forked child, or return False where it cannot be (clause 17)."""
        return True

    def abandon(self) -> None:
        """Give back, in a forked child, the child's descriptors and mappings of this channel (clause 17).

        It is called on channels passed to `belongs` that the parent was opening or closing, or has closed. It must not
        change anything that other processes see; a channel that is closed already is left alone.
        """
        return
