"""What a backend, or one queue of it, can do."""

from dataclasses import dataclass
from enum import IntEnum


class Scope(IntEnum):
    """Which processes can share a queue, from the narrowest scope to the widest."""

    PROCESS = 0
    """Threads of one process."""
    FAMILY = 1
    """Processes related by inheritance, such as parent and child."""
    HOST = 2
    """All processes of one machine."""
    NETWORK = 3
    """Processes of several machines."""


class Persistence(IntEnum):
    """What a queue and its messages outlive."""

    PROCESS = 0
    """Nothing: they go with the process."""
    HOLDERS = 1
    """Each process, as long as another one has the queue open."""
    KERNEL = 2
    """Every process, until unlink or reboot."""
    DISK = 3
    """A reboot. A power cut may lose the messages accepted last."""
    SYNCED = 4
    """A power cut as well: no accepted message is lost."""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a backend, or one queue of it, can do. A capability that is not declared is denied."""

    scope: Scope = Scope.PROCESS
    """Which processes can share a queue."""
    persistence: Persistence = Persistence.PROCESS
    """What a queue outlives."""
    priorities: bool = False
    """Messages can have priorities from 0 to 32767."""
    exact_qsize: bool = False
    """`qsize` returns the exact number of messages at the time of the call."""
    pollable: bool = False
    """`fileno` returns a descriptor that is readable while the queue is not empty."""
    ends_on_fileno: bool = False
    """That descriptor is also readable once the queue is shut down, or unlinked if gets then raise `QueueGone`."""
    notify: bool = False
    """A handle can request a one-shot notice of the next message that arrives in an empty queue."""
    peek: bool = False
    """The next message can be looked at without being taken."""
    shutdown: bool = False
    """The queue can be shut down for every process that has it open."""
    atomic_batch: bool = False
    """The messages that one step of `put_many` stores appear at once."""
    leases: bool = False
    """A message can be leased and acknowledged, and returns if that does not happen."""
    death_notice: bool = False
    """A leased message returns within a second after the process that holds it died, without a timeout."""
    delays: bool = False
    """On a queue with leases, a message can be put that becomes ready later."""
    drop_oldest: bool = False
    """A put can drop the oldest messages to make room, and a get can take the newest and drop the older ones."""
    places: bool = False
    """Queues can be in several places, which are named by URLs."""
    listing: bool = False
    """The names of the queues that exist can be listed."""
    last_close: bool = False
    """A queue can be removed with its last handle."""
    nameless: bool = False
    """A queue can be created without a name. It is passed on as descriptors and goes with the last of them."""
    modes: bool = False
    """A queue has the requested permission bits. Without this and `other_users`, only 0600 is accepted."""
    other_users: bool = False
    """A queue's mode can grant other users access."""
    after_unlink: bool = False
    """A handle can keep using a queue that was unlinked (``after_unlink="continue"``)."""
    max_message_size: int | None = None
    """Largest `max_message_size` of a queue, in bytes; None: limited by memory alone."""
