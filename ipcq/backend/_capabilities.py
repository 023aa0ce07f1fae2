"""What a backend, or one queue of it, can do."""

from dataclasses import dataclass
from enum import IntEnum


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
