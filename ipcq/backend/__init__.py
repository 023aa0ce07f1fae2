"""For authors of backends: the contract, and the few types that it speaks of.

A backend is one module with a `Backend` descriptor and a function marked with `ipcq.hooks.hookimpl` that returns it,
named in the entry-point group ``ipcq.backends``. It moves bytes; objects, serializers, timeouts, defaults and the
wording of most errors stay above it. `ipcq.testing.BackendContract` proves each clause.

**Names and life**

1.  `create(name, request)` makes the queue whole or not at all and returns a channel to it. A taken name raises
    `QueueExists` and changes nothing. One of any number of simultaneous creators wins.
2.  `attach(name, request)` returns a channel to a queue that exists; else it raises `QueueNotFound`. Looking,
    attaching, failing to attach and exiting alter nothing that others use.
3.  `exists(name)` tells whether `attach` would find a queue, even where `probe` says that the backend cannot be used,
    so that no other backend gives the name away.
4.  `unlink(name)` frees the name at once, else raises `QueueNotFound`. Channels opened before raise `QueueGone` within
    one second, or go on with the nameless queue where `capabilities.after_unlink` and their request says
    ``after_unlink="continue"``; `linked` tells which, so that a handle never unlinks the successor of its queue.
5.  A persistent queue outlives every handle; a ``"last-close"`` one goes with its last handle, killed ones included.
6.  `attributes` says what the queue was created with, on every channel alike. What a request asks for explicitly and
    the backend cannot honour is refused in `create` (`LimitExceeded`, `NoSpace`, `Unsupported`), never rounded or
    ignored. Of `max_messages` and `max_message_size` given together, that many messages of that size fit, and exactly
    that many of any size. Without a request, at least 8 messages of 8 KiB fit.
7.  The queue has exactly the requested mode under any umask; without `capabilities.modes` that is 0600. What another
    user than this one or root owns is refused with `PermissionDenied` before it is read or written, unless
    ``request.other_users``.

**Messages**

8.  `try_put` stores the whole message before it returns True, and then it outlives the process; it returns False where
    it does not fit now, and stores nothing. It never waits.
9.  `try_get` takes the oldest message of the highest priority and returns it with its priority; None where there is
    none. It never waits, and no message is given twice.
10. Messages are bytes of any content from length 0 to `max_message_size`, and come back exactly so, however many
    writers and readers there are.
11. A `try_put` that raises has stored nothing, a `try_get` that raises has taken nothing. This includes `MemoryError`,
    if the mechanism can leave a message in place until there is memory for it. A batch ends before the first message
    that does not fit into memory.
12. Where `capabilities.atomic_batch`, the prefix that `try_put_many` stores appears in one step, so that no other
    producer's message stands inside it.

**Waiting**

13. `wait_readable` and `wait_writable` return when trying again may succeed, at `until` at the latest, or earlier for
    no reason. They never take or store. An exception from a signal handler passes through them unchanged.
14. What a wait rests on survives the death of any other waiter and of whoever was to wake it. Where `space_fileno`
    gives a descriptor, that is writable whenever `full` is false. Where `capabilities.ends_on_fileno`, the descriptor
    of `fileno` becomes readable at a shutdown and an unlink by any process, and stays readable. `holder` names the
    process that kept the last put or get waiting by holding a lock, if it still does; it does not wait.

**Ends**

15. After `shutdown`, on every channel of every process within one second, `try_put` raises `QueueShutDown`, and
    `try_get` still drains what is there before it does so too, as does `peek`; `clear` then drops nothing. With
    ``immediate`` what is there is dropped, and so is any message that a put stores which began before the shutdown.
16. `close` gives back every descriptor and mapping. It is called once, when no other call on this channel is under way,
    and none follows. It never unlinks.
17. Before a fork `before_fork` is called in the parent: it gives up what must not cross the fork, and keeps other
    threads from taking it up again until `after_fork_in_parent`. `after_fork` is called in a forked child before
    anything else; it returns False if this channel must not be used there, and then nothing more is called on it. The
    child may then open the queue anew. A child keeps nothing that another thread of the parent was opening or closing
    at the fork. For that, a backend opens each descriptor by `opened`, and passes it to `closed` or, with its channel,
    to `belongs`; if these do not suffice, a few system calls may run under `no_fork`. In the child `abandon` is called
    on channels that belong to no open handle. `hold_over_forks` keeps other threads out of a backend's own locks.

**Errors**

18. Only exceptions of `ipcq.errors` leave a backend, chained to what they were made from. The queue's and the backend's
    name are filled in above where they are missing.
19. `probe` returns a value and never raises, except the system's error if descriptors or memory run out while it looks:
    it says what is installed and permitted here, and never how full the machine is, so that every process
    chooses alike. The module imports where its dependency is missing. Later imports happen inside `importing`, so that
    no other thread forks during them. `findings` reports what users should know, and a process that blocks a queue as
    `Finding.stuck`; looking changes nothing that others use.
20. What a capability denies raises `Unsupported`; what it grants works.

**Shortcuts**

21. `shortcut` returns the class of handles that it is given, or a subclass. That one's puts and gets do what can be
    done at once, exactly as the class's own would, and leave all else to it with nothing done.

**Without a name**

22. Where `capabilities.nameless`, `create_nameless(request)` makes a queue that nobody can find. `descriptors` of any
    of its channels, duplicated into another process, are what `adopt` makes a channel of there. The queue goes with the
    last process that has any of these descriptors, killed ones included. On it `linked` is False, and `try_put_all`
    stores a batch whole or not at all.
"""

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, Final, Literal, NoReturn, Protocol, TypeAlias, TypeVar, runtime_checkable

from ipcq._process.deadline import SLICE, pause
from ipcq._process.forks import belongs, closed, hold_over_forks, no_fork, opened
from ipcq._process.gevent import NativeRLock, NativeThread, is_this_thread, original
from ipcq._process.imports import importing
from ipcq._process.limits import check_file_size, too_many_descriptors, too_many_threads
from ipcq._process.lock_holders import Holder, holder_of_byte, holder_of_file, holder_of_thread
from ipcq._process.private_directory import (
    make_private_directories,
    make_private_directory,
    private_directories,
    private_files,
)
from ipcq._process.signals import reraise_from_handler
from ipcq.errors import MessageQueueError, PermissionDenied, QueueShutDown, Unsupported

__all__ = (
    "AFTER_UNLINK",
    "HIGHEST_PRIORITY",
    "LIFETIMES",
    "SLICE",
    "STEP",
    "AfterUnlink",
    "Attributes",
    "Availability",
    "Backend",
    "Capabilities",
    "Channel",
    "Finding",
    "Holder",
    "Lifetime",
    "NativeRLock",
    "NativeThread",
    "Notice",
    "OfBytes",
    "Persistence",
    "Received",
    "Request",
    "Scope",
    "Severity",
    "Shortcut",
    "Stats",
    "belongs",
    "check_file_size",
    "check_owner",
    "closed",
    "hold_over_forks",
    "holder_of_byte",
    "holder_of_file",
    "holder_of_thread",
    "importing",
    "is_this_thread",
    "make_private_directories",
    "make_private_directory",
    "no_fork",
    "opened",
    "original",
    "pause",
    "private_directories",
    "private_files",
    "reraise_from_handler",
    "too_many_descriptors",
    "too_many_threads",
    "translated",
)

#: Largest priority of a message, as in POSIX (``MQ_PRIO_MAX`` is 32768 on Linux).
HIGHEST_PRIORITY: Final = 32767

Lifetime = Literal["persistent", "last-close"]
LIFETIMES: Final[tuple[Lifetime, ...]] = ("persistent", "last-close")

AfterUnlink = Literal["raise", "continue"]
AFTER_UNLINK: Final[tuple[AfterUnlink, ...]] = ("raise", "continue")

#: Bytes of messages after which `Channel.try_get_many` may end a batch. `get_many` then asks for more, so that of a
#: batch of large messages only a part exists both as bytes and as items.
STEP: Final = 1 << 23

#: What `Channel.try_get` takes: the message's bytes and its priority.
Received: TypeAlias = tuple[bytes, int]

_Handle = TypeVar("_Handle")

#: What a codec does with a `bytes` of exactly that class, and with a message that is one: nothing (``"bare"``);
#: MessagePack's bin 8, 16 or 32, whichever is the first to suffice (``"bin"``); what only it knows (``"encoded"``).
OfBytes = Literal["bare", "bin", "encoded"]

#: How `Channel.notify` tells: a function called in a thread of its own, or the number of a signal to this process.
Notice: TypeAlias = Callable[[], object] | int


class Scope(IntEnum):
    """Who can meet on a queue, from the closest circle to the widest."""

    PROCESS = 0
    """Threads of one process."""
    FAMILY = 1
    """Processes that inherited something from one another."""
    HOST = 2
    """Any processes of one machine."""
    NETWORK = 3
    """Processes of several machines."""


class Persistence(IntEnum):
    """What a queue and its messages outlive."""

    PROCESS = 0
    """Nothing: they are gone with the process."""
    HOLDERS = 1
    """Each process, as long as one other has the queue open."""
    KERNEL = 2
    """Every process, until unlink or reboot."""
    DISK = 3
    """A reboot; a power cut may take what was accepted in the last moments."""
    SYNCED = 4
    """A power cut, too: nothing that was accepted is lost."""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a backend, or one queue of it, can do. Whatever is not said is no."""

    scope: Scope = Scope.PROCESS
    """Who can meet on a queue."""
    persistence: Persistence = Persistence.PROCESS
    """What a queue outlives."""
    priorities: bool = False
    """Messages can have priorities from 0 to 32767."""
    exact_qsize: bool = False
    """`qsize` was exact at the instant when it was read."""
    pollable: bool = False
    """`fileno` gives a descriptor that is readable while the queue is not empty."""
    ends_on_fileno: bool = False
    """That descriptor is also readable once the queue is shut down, or unlinked if gets then raise `QueueGone`."""
    notify: bool = False
    """A one-shot notice when a message arrives in an empty queue."""
    peek: bool = False
    """The next message can be looked at without being taken."""
    shutdown: bool = False
    """The queue can be shut down for every process that has it open."""
    atomic_batch: bool = False
    """What `put_many` stores at a time appears in one step."""
    leases: bool = False
    """A taken message returns when its consumer dies before acknowledging it."""
    zero_copy: bool = False
    """Messages can be written and read in place."""
    listing: bool = False
    """The names of the queues that exist can be listed."""
    last_close: bool = False
    """A queue can go with its last handle."""
    nameless: bool = False
    """A queue can be made without a name; it travels as descriptors and goes with the last of them."""
    modes: bool = False
    """A queue has the permission bits that it is created with; without this and `other_users` only 0600 is accepted."""
    other_users: bool = False
    """A queue's mode can grant other users access."""
    after_unlink: bool = False
    """A handle can go on with a queue that was unlinked (``after_unlink="continue"``)."""
    max_message_size: int | None = None
    """Largest message that a queue can be made for, in bytes; None: as memory allows."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What an opener asked for; None where it left the choice to the backend."""

    mode: int = 0o600
    """Permission bits of a queue that is created."""
    max_messages: int | None = None
    """Capacity in messages, from 1 on."""
    max_message_size: int | None = None
    """Largest message, in bytes, from 1 on."""
    buffer_size: int | None = None
    """Capacity in bytes, from 1 on."""
    priorities: bool = False
    """Messages shall have priorities."""
    lifetime: Lifetime = "persistent"
    """When the queue goes."""
    read: bool = True
    """The handle gets messages."""
    write: bool = True
    """The handle puts messages."""
    other_users: bool = False
    """A queue that another user owns is trusted."""
    after_unlink: AfterUnlink = "raise"
    """What the channel does once the queue has been unlinked."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of this backend's own, of the types that `Backend.options` declares."""


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """What a queue was created with: requested values as requested, the backend's choice for the others."""

    mode: int
    """Permission bits."""
    max_messages: int | None
    """Capacity in messages; None: bounded by bytes alone."""
    max_message_size: int
    """Largest message, in bytes."""
    buffer_size: int | None = None
    """Capacity in bytes; None: bounded by messages alone."""
    priorities: bool = False
    """Messages have priorities."""
    lifetime: Lifetime = "persistent"
    """When the queue goes."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Figures of one queue over all processes; None where the mechanism cannot know."""

    depth: int | None = None
    """Messages in the queue now."""
    bytes: int | None = None
    """Bytes of messages in the queue now."""
    bytes_put: int | None = None
    """Bytes of messages ever stored."""
    puts: int | None = None
    """Messages ever stored."""
    gets: int | None = None
    """Messages ever taken."""
    high_water_mark: int | None = None
    """Most messages that were ever in the queue at a time."""
    waits: int | None = None
    """Times that a put or a get had to wait."""
    timeouts: int | None = None
    """Waits that ended without a message or without space."""
    recoveries: int | None = None
    """Times that the queue was put in order after a process died inside it."""
    handles: int | None = None
    """Handles that are open now, this one included; those of killed processes are not."""
    holder: Holder | None = None
    """Process that blocks others because it is stopped or starved inside the queue."""


@dataclass(frozen=True)
class Availability:
    """Whether a backend can be used here, and if not, why."""

    usable: bool
    reason: str = ""
    """One sentence without a full stop that ends with the way out; empty where usable."""

    @classmethod
    def yes(cls) -> "Availability":
        """The backend can be used."""
        return _USABLE

    @classmethod
    def no(cls, reason: str) -> "Availability":
        """The backend cannot be used because of `reason`."""
        return cls(False, reason)


_USABLE: Final = Availability(True)


class Severity(Enum):
    """How much a finding matters."""

    NOTE = "note"
    """Worth knowing."""
    WARNING = "warning"
    """Something will fail sooner or later."""
    ERROR = "error"
    """Something fails now."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing about this machine that a user of the backend should know."""

    severity: Severity
    text: str
    """What is so, with figures."""
    fix: str = ""
    """The command that changes it; empty where nothing needs to."""

    @classmethod
    def stuck(cls, name: str, holder: Holder) -> "Finding":
        """Return the finding that a process blocks others in a queue."""
        fix = f"kill -CONT {holder.pid}" if holder.stopped else ""
        return cls(severity=Severity.WARNING, text=f"queue {name!r}: {holder}", fix=fix)


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


class Shortcut(Protocol):
    """What a subclass that `Channel.shortcut` returns may rest on, beside the puts and gets that it overrides.

    It overrides the first two of these as well, and calls the others.
    """

    def _arm(
        self,
        channel: Channel,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        of_bytes: OfBytes,
        puts: bool,
        gets: bool,
        waits: bool,
        /,
    ) -> None:
        """Begin: the handle is open, and may put, get, and wait as the channel does, as the last three arguments say.

        Where it may not wait so, it leaves waiting to the class, which lets greenlets of the same thread run meanwhile.

        Of an item that is exactly a `bytes`, and of a message that is one, `of_bytes` says what `encode` and `decode`
        do, so that they need not be called.
        """

    def _disarm(self) -> None:
        """End: leave everything to the class from now on.

        When this returns, no further call begins to use the channel. The channel's `close` waits for calls that still
        use it without the handle's lock. A call that is inside `encode` or `decode` leaves the rest to the class when
        it comes back.
        """

    def _put_encoded(self, data: bytes, priority: int, deadline: float, /) -> None:
        """Put what `encode` returned, and what could not be put at once.

        `deadline` is a point on `time.monotonic`, in seconds; infinity is never, and minus infinity does not wait.
        """

    def _put_rest(self, items: Sequence[bytes], stored: int, deadline: float, /) -> int:
        """Put the rest of a batch of which so many items are stored, and return how many are then; `put_many`."""
        raise NotImplementedError  # pragma: no cover - abstract

    def _get_rest(self, items: list[Any], most: int, /) -> list[Any]:
        """Take what else is there of a batch, and return it behind these items; `get_many`.

        `most` is how many messages the batch may still have, and one more for the last of the items.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    def _raise(self, error: BaseException, /) -> NoReturn:
        """Raise what `encode` or `decode` raised, as `put` and `get` do."""
        raise NotImplementedError  # pragma: no cover - abstract


@runtime_checkable
class Backend(Protocol):
    """Describes one mechanism. Subclass it: what is not abstract has a default."""

    name: str
    """What users call it; the entry point's name."""
    capabilities: Capabilities
    """What its queues can do at best."""
    rank: int | None = None
    """Place in the order in which `auto` creates, highest first; None: `auto` never creates on it."""
    options: Mapping[str, type] = {}
    """Name and type of each option of its own that `open` passes on."""
    platforms: tuple[str, ...] | None = None
    """Beginnings of `sys.platform` where the mechanism exists; None: everywhere. Elsewhere `probe` is not asked."""

    @abstractmethod
    def create(self, name: str, request: Request) -> Channel:
        """Create the queue and return a channel to it (clauses 1, 6, 7).

        Raises:
            QueueExists: The name is taken.
            LimitExceeded: A limit of the system stands against it.
            NoSpace: The memory is full.
            Unsupported: The request cannot be honoured.
            PermissionDenied: This user may not.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def attach(self, name: str, request: Request) -> Channel:
        """Return a channel to the queue that exists (clauses 2, 7).

        Raises:
            QueueNotFound: There is none.
            PermissionDenied: This user may not, or the queue belongs to somebody else.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Tell whether the name is taken on this backend (clause 3)."""
        raise NotImplementedError  # pragma: no cover - abstract

    @abstractmethod
    def unlink(self, name: str) -> None:
        """Remove the queue (clause 4).

        Raises:
            QueueNotFound: There is none.
            PermissionDenied: This user may not.
        """
        raise NotImplementedError  # pragma: no cover - abstract

    def create_nameless(self, request: Request) -> Channel:
        """Create a queue that has no name and return a channel to it (clause 22); exceptions are those of `create`."""
        raise Unsupported

    def adopt(self, descriptors: Sequence[int], request: Request) -> Channel:
        """Return a channel to the nameless queue whose descriptors these are (clause 22).

        They are the channel's from now on, and closed if this fails.
        """
        raise Unsupported

    def probe(self) -> Availability:
        """Tell whether the backend can be used here (clause 19)."""
        return Availability.yes()

    def names(self) -> list[str]:
        """List the queues that exist.

        Raises:
            Unsupported: They cannot be listed here; the text says what would change that.
        """
        raise Unsupported("queues of this backend cannot be listed")

    def findings(self) -> list[Finding]:
        """List what a user of this backend should know about this machine."""
        return []


def check_owner(uid: int, request: Request) -> None:
    """Refuse an object that neither this user nor root owns, unless the request trusts other users (clause 7).

    Raises:
        PermissionDenied: `uid` is somebody else's.
    """
    if not request.other_users and uid not in (0, os.geteuid()):
        raise PermissionDenied(
            f"it belongs to user {uid}, not to this user ({os.geteuid()}) or root: "
            "open it with other_users=True if you trust that user"
        )


@contextmanager
def translated(
    table: Mapping[type[BaseException], type[MessageQueueError]], queue: str, backend: str
) -> Iterator[None]:
    """Turn foreign exceptions into ours by a table, chained; an unlisted `OSError` becomes the root with its errno."""
    try:
        yield
    except MessageQueueError as error:
        error.at(queue, backend)
        raise
    except tuple(table) as error:
        reraise_from_handler(error)
        kind = next(ours for theirs, ours in table.items() if isinstance(error, theirs))
        raise kind(queue=queue, backend=backend) from error
    except OSError as error:
        reraise_from_handler(error)
        raise MessageQueueError(
            f"the system refused: {error}", queue=queue, backend=backend, errno=error.errno
        ) from error
