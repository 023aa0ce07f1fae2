"""For authors of backends: the contract and its types.

A backend is one module. It has a `Backend` descriptor and a function, marked with `ipcq.hooks.hookimpl`, that returns
the descriptor. The entry-point group ``ipcq.backends`` lists the module. A backend moves bytes. Objects, serializers,
timeouts, defaults and the wording of most errors belong to the layers above it. `ipcq.testing.BackendContract` proves
each clause.

**Names and life**

1.  `create(name, request)` creates the whole queue or nothing, and returns a channel to it. If the name is taken, it
    raises `QueueExists` and changes nothing. Of any number of simultaneous creators, exactly one succeeds.
2.  `attach(name, request)` returns a channel to an existing queue, or raises `QueueNotFound`. Looking, attaching,
    failing to attach and exiting change nothing that others use.
3.  `exists(name)` returns whether `attach` would find a queue. It does so even if `probe` reports the backend as
    unusable, so that no other backend creates a queue of that name.
4.  `unlink(name)` frees the name at once, or raises `QueueNotFound`. Channels that are already open then raise
    `QueueGone` within one second. With `capabilities.after_unlink`, a channel whose request has
    ``after_unlink="continue"`` keeps using the nameless queue instead. `linked` returns whether the name still leads to
    this queue, so that a handle never unlinks its queue's successor.
5.  A persistent queue outlives all its handles. A ``"last-close"`` queue goes with its last handle, even if the process
    of that handle is killed.
6.  `attributes` holds what the queue was created with, and is the same on every channel. If the backend cannot honour
    an explicitly requested value, `create` raises `LimitExceeded`, `NoSpace` or `Unsupported`; it never rounds or
    ignores the value. If both `max_messages` and `max_message_size` are given, that many messages of that size fit, and
    exactly that many of any size. Without limits in the request, at least 8 messages of 8 KiB fit.
7.  The queue has exactly the requested mode under any umask; without `capabilities.modes` the mode is 0600. An object
    owned by another user, root excepted, is refused with `PermissionDenied` before it is read or written, unless
    ``request.other_users``.

**Messages**

8.  `try_put` stores the whole message before it returns True, and the message then outlives the process. If the message
    does not fit now, `try_put` returns False and stores nothing. It never waits.
9.  `try_get` takes the oldest message of the highest priority and returns it with its priority, or returns None if
    there is no message. It never waits. No message is returned twice.
10. A message is any bytes of length 0 to `max_message_size`. It is returned unchanged, with any number of producers and
    consumers.
11. A `try_put` that raises has stored nothing. A `try_get` that raises has taken nothing. This includes `MemoryError`,
    if the mechanism can leave a message in place until there is memory for it. A batch ends before the first message
    that does not fit into memory.
12. With `capabilities.atomic_batch`, the part of a batch that `try_put_many` stores appears in one step, with no other
    producer's message in between. A batch with another priority than 0 may be stored message by message.

**Waiting**

13. `wait_readable` and `wait_writable` return when a retry may succeed, and at `until` at the latest. They may return
    earlier without a reason. They never take or store a message. An exception from a signal handler passes through them
    unchanged.
14. A wait ends as promised even if another waiter dies, or the process that was to wake it. If `space_fileno` returns a
    descriptor, that descriptor is writable whenever `full` is false. With `capabilities.ends_on_fileno`, the descriptor
    of `fileno` becomes readable when any process shuts down or unlinks the queue, and stays readable. `holder` returns
    the process that kept the last put or get waiting by holding a lock, if it still holds the lock. `holder` does not
    wait.

**Ends**

15. Within one second after `shutdown`, this holds on every channel of every process: `try_put` raises `QueueShutDown`;
    `try_get` and `peek` return the messages that are left, and raise `QueueShutDown` once the queue is empty; `clear`
    on the empty queue returns 0. With ``immediate``, `shutdown` drops the messages in the queue, and also any message
    stored by a put that began before the shutdown.
16. `close` releases every descriptor and mapping. It never unlinks. It is called once, while no other call on this
    channel is running, and no call follows it.
17. `before_fork` is called in the parent before a fork. It releases what must not cross the fork, and keeps other
    threads from acquiring it again until `after_fork_in_parent`. `after_fork` is called in a forked child before
    anything else. If it returns False, the channel must not be used there and nothing more is called on it; the child
    may then open the queue again. A child keeps nothing that another thread of the parent was opening or closing at the
    fork. For that, a backend opens each descriptor with `opened`, and passes it to `closed` or, with its channel, to
    `belongs`. If these do not suffice, a few system calls may run under `no_fork`. In the child, `abandon` is called on
    channels that belong to no open handle. `hold_over_forks` keeps other threads out of a backend's own locks.

**Errors**

18. A backend raises only exceptions of `ipcq.errors`, each chained to its cause. The layer above adds the names of the
    queue and the backend where they are missing.
19. `probe` returns a value. It raises only the system's error if descriptors or memory run out while it looks. It
    reports what is installed and permitted here, and never how full the machine is, so that every process chooses
    alike. The module can be imported without its dependency. Later imports run inside `importing`, so that no other
    thread forks during them. `findings` reports what users should know, and reports a process that blocks a queue as
    `Finding.stuck`. Looking changes nothing that others use.
20. An operation raises `Unsupported` if the capability for it is denied, and works if the capability is granted.

**In C**

21. `native` returns None, or a capsule with functions in C as ``ipcq/channel.h`` describes them. If such a function can
    complete the operation without waiting, it does what the channel's method would do. Otherwise it does nothing and
    reports that, and ipcq calls the method. It runs no Python code. If the capsule has another version of the header,
    ipcq logs a `VersionMismatch` and uses only the methods. With ``IPCQ_SHORTCUTS=0`` it also uses only the methods.

**Without a name**

22. With `capabilities.nameless`, `create_nameless(request)` creates a queue that cannot be opened by name.
    `descriptors` of any of its channels are duplicated into another process, and `adopt` makes a channel from them
    there. The queue goes with the last process that has any of these descriptors, even if that process is killed. Its
    `linked` returns False, and its `try_put_all` stores a batch whole or not at all.

**Leases**

23. With `capabilities.leases`, a queue created with ``request.leases`` has messages in four states: ready, leased,
    delayed and dead. Its channels are `LeaseChannel`s and have the capability; those of other queues lack it. In each
    state a message keeps its place in `max_messages` and `buffer_size`; `full` counts all of them. `qsize`, `empty`,
    `peek`, `try_get` and `fileno` know the ready ones alone. `clear` drops those that are ready or delayed.
24. A put gives each message a number. Ready messages leave by priority, then by number. Neither ever changes: a message
    that becomes ready again comes before all later ones of its priority. `try_lease` leases the next one, counts the
    delivery and tells the failures so far in one step; a process that is killed inside it may leave a message ready
    that counts one delivery and one failure. If it raises one of our errors or `MemoryError`, it has leased nothing.
    `try_get` on such a queue leases and acknowledges in one step.
25. `recall` releases what was leased with the serial numbers, also if the call that leased it was interrupted by an
    exception and its result was lost. It does nothing for serial numbers that lease nothing.
26. A message put with a delay becomes ready when the time is over, and not before. The clock is one that nobody sets.
27. `settle` and `extend` work on this channel's leases that are not over; they change nothing for others, which they
    return. Others see a batch in one step. If the caller is killed inside, each lease is settled or ends by clause 30.
    No other channel can settle a lease, nor a later delivery of the same message by an old token.
28. A released message becomes ready, or delayed first, and its failures do not change. A failure is counted. A message
    with `max_deliveries` failures is dead, with the reason of the last one; a rejected message is dead at once. Without
    `max_deliveries` no number of failures is too many. If `settle` raises, it has settled nothing.
29. A lease ends when its hold is over: this counts as a failure with the reason `HOLD_ENDED`. Each operation first
    returns what is over by the clock, so a settlement after the end is lost, even if nobody has taken the message.
30. With `capabilities.death_notice` the leases of a process that died return within one second, if any process takes,
    waits, counts or calls `tend`; also if none of them finds the queue empty. That counts as a failure with the reason
    `HOLDER_DIED`. The death is seen by a lock of the kernel, not by a clock or a process number. Without the
    capability, `hold` is never None.
31. `close` releases the leases of its channel; what a lock that a stopped process holds prevents ends by clause 30. A
    forked child has none of its parent's, and does not end them.
32. Dead letters are taken, looked at and requeued by number. A requeued message has no failures, its old number, and
    all its deliveries. They stay when the queue is shut down.
33. A queue that is shut down has ended when nothing is ready, leased or delayed. Until then `try_get`, `try_lease` and
    `peek` return None if nothing is ready. With ``immediate``, `shutdown` drops all messages but the dead letters, and
    settlements of dropped leases are lost.
34. A message that becomes ready wakes waiting consumers, and gives the notice of `notify`, as a put does. A message
    that leaves wakes waiting producers. `wait_readable` ends at the latest when the next hold or delay does. `fileno`
    and `notify` may need `tend` for that.

**Places, options and secrets**

35. With `capabilities.places`, `at(place)` returns a descriptor whose `create`, `attach`, `exists`, `unlink`, `names`,
    `probe` and `findings` mean that place alone. Queues in two places never meet, even if their names are equal. The
    descriptor's `name` is the text of the place in its canonical form: default port and database filled in, links
    resolved. So two spellings of a place have one text, and `at` of that text leads there from any process of any
    user. For the default place, `at` returns the descriptor without a place. `at` contacts no server and waits for
    nothing.
36. `attributes.options` holds the options that the queue was created with, as far as they concern the queue and not
    one channel. It has an option, with the backend's choice, even if the request left it out, and it never holds a
    `Secret`. `with_options` returns the descriptor to use where more than `create` and `attach` depends on options.
37. No password leaves the backend: not in an error or the exceptions to which it is chained, a finding, a reason, a
    `repr`, a log record, or the arguments of a process. If a library's exception quotes a password, the backend raises
    its own error ``from None``. A backend keeps passwords in `Secret`s, which ipcq removes from texts as long as they
    exist.

**On a server**

38. A channel whose operations ask a server is a `RemoteChannel`. It asks with `ask` or `Unanswered`, and so does the
    descriptor of its backend. They know the deadline of the user's call, and repeat an operation until then. One
    attempt ends at its `until`, and raises `ConnectionLost`. Whatever exception ends an attempt, its connection is
    closed, so that no later request gets its reply. `auto` asks no backend of the scope `NETWORK` and takes no lock for
    it.
39. All attempts of an operation have one identity. The server carries out the first that arrives, remembers its reply
    for some time, and repeats the reply to the others. What the backend passes as `remembered` is less than that time.
    If the reply of a take was lost, the next take of the channel returns what it took.
40. `ConnectionLost.outcome` is ``"not done"`` only if the server cannot have got the request, and ``"done"`` only if it
    has carried it out.
41. `incarnation` identifies a queue among all that have or had its name. An operation of a channel on another
    incarnation raises `QueueGone`. `unlink_incarnation` compares and removes in one step.
42. A consumer that waits for a long time makes one request a second on average. `wake` ends the waits of all threads
    within 0.1 seconds.

**Dropping**

43. With `capabilities.drop_oldest`, `try_put_dropping` stores one message of at most `max_message_size` bytes. If there
    is no space, it first drops messages, as few as possible: only ready ones, from the lowest priority up to that of
    the new message, and of each priority the oldest first. It returns their number. If the message does not fit even
    then, because the others are leased, delayed, dead or of a higher priority, or if a lock is held, it returns None
    and has dropped nothing. It never waits. It wakes waiting consumers as a put does, and producers if space is left. A
    process that is killed inside may have dropped messages and stored nothing, unless the mechanism does both in one
    step.
44. With `capabilities.drop_oldest`, `try_get_latest` takes the newest ready message of the highest priority, and drops
    the older ones of that priority; those of other priorities stay. Otherwise it does what `try_get` does. `stats`
    counts what was dropped as `dropped` and as `gets`.
"""

from ipcq._process.deadline import SLICE, pause
from ipcq._process.forks import belongs, closed, hold_over_forks, no_fork, opened
from ipcq._process.gevent import NativeRLock, NativeThread, is_this_thread, original
from ipcq._process.imports import importing
from ipcq._process.limits import check_daemon_threads, check_file_size, too_many_descriptors, too_many_threads
from ipcq._process.lock_holders import Holder, holder_of_byte, holder_of_file, holder_of_thread
from ipcq._process.operation import Operation, Unanswered, ask
from ipcq._process.private_directory import (
    make_private_directories,
    make_private_directory,
    private_directories,
    private_files,
)
from ipcq._process.signals import reraise_from_handler, suppressed
from ipcq._redaction import Secret
from ipcq.backend._attributes import Attributes
from ipcq.backend._availability import Availability
from ipcq.backend._backend import Backend
from ipcq.backend._capabilities import Capabilities, Persistence, Scope
from ipcq.backend._channel import HIGHEST_PRIORITY, STEP, Channel, Received
from ipcq.backend._default_limits import BUFFER_SIZE, default_limits
from ipcq.backend._finding import Finding, Severity
from ipcq.backend._include import get_include
from ipcq.backend._leases import (
    HOLD_ENDED,
    HOLDER_DIED,
    LONGEST,
    MOST_LEASES,
    REASON_SIZE,
    Counts,
    DeadRecord,
    Held,
    LeaseChannel,
    Leased,
    Verdict,
)
from ipcq.backend._notice import Notice, give_notice, notice_taken
from ipcq.backend._owner import check_owner
from ipcq.backend._place import Place, check_plaintext, credentials
from ipcq.backend._remote import RemoteChannel
from ipcq.backend._request import AFTER_UNLINK, LIFETIMES, AfterUnlink, Lifetime, Request
from ipcq.backend._stats import Stats
from ipcq.backend._translated import explained, translated

__all__ = (
    "AFTER_UNLINK",
    "BUFFER_SIZE",
    "HIGHEST_PRIORITY",
    "HOLDER_DIED",
    "HOLD_ENDED",
    "LIFETIMES",
    "LONGEST",
    "MOST_LEASES",
    "REASON_SIZE",
    "SLICE",
    "STEP",
    "AfterUnlink",
    "Attributes",
    "Availability",
    "Backend",
    "Capabilities",
    "Channel",
    "Counts",
    "DeadRecord",
    "Finding",
    "Held",
    "Holder",
    "LeaseChannel",
    "Leased",
    "Lifetime",
    "NativeRLock",
    "NativeThread",
    "Notice",
    "Operation",
    "Persistence",
    "Place",
    "Received",
    "RemoteChannel",
    "Request",
    "Scope",
    "Secret",
    "Severity",
    "Stats",
    "Unanswered",
    "Verdict",
    "ask",
    "belongs",
    "check_daemon_threads",
    "check_file_size",
    "check_owner",
    "check_plaintext",
    "closed",
    "credentials",
    "default_limits",
    "explained",
    "get_include",
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
    "suppressed",
    "too_many_descriptors",
    "too_many_threads",
    "translated",
)
