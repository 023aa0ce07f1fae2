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
from ipcq.backend._attributes import Attributes
from ipcq.backend._availability import Availability
from ipcq.backend._backend import Backend
from ipcq.backend._capabilities import Capabilities, Persistence, Scope
from ipcq.backend._channel import HIGHEST_PRIORITY, STEP, Channel, Received
from ipcq.backend._default_limits import BUFFER_SIZE, default_limits
from ipcq.backend._finding import Finding, Severity
from ipcq.backend._notice import Notice, give_notice, notice_taken
from ipcq.backend._owner import check_owner
from ipcq.backend._request import AFTER_UNLINK, LIFETIMES, AfterUnlink, Lifetime, Request
from ipcq.backend._shortcut import OfBytes, Shortcut
from ipcq.backend._stats import Stats
from ipcq.backend._translated import explained, translated

__all__ = (
    "AFTER_UNLINK",
    "BUFFER_SIZE",
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
    "default_limits",
    "explained",
    "give_notice",
    "hold_over_forks",
    "holder_of_byte",
    "holder_of_file",
    "holder_of_thread",
    "importing",
    "is_this_thread",
    "make_private_directories",
    "make_private_directory",
    "no_fork",
    "notice_taken",
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
