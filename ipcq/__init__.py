"""Fast, crash-safe named queues between unrelated Python processes."""

from ipcq._process import forks as _forks  # noqa: F401  # first, so that a fork waits for the imports below

# isort: split
from ipcq._abilities.dead_letters import DeadLetter, DeadLetters
from ipcq._abilities.lease import Lease
from ipcq._abilities.leases import Leases
from ipcq._abilities.reservation import Reservation
from ipcq._abilities.view import View
from ipcq._handle.queue import Message, Queue
from ipcq._opening.directory import Listing, QueueInfo, exists, queues, unlink
from ipcq._opening.open import open
from ipcq._opening.registry import BackendInfo, backends
from ipcq.backend import Capabilities, Persistence, Scope, Stats
from ipcq.errors import (
    BackendUnavailable,
    BackendUnknown,
    ConnectionLost,
    CorruptQueue,
    DecodeError,
    EncodeError,
    InvalidArgument,
    InvalidName,
    LeaseLost,
    LimitExceeded,
    MessageQueueError,
    MessageTooLarge,
    NoSpace,
    PermissionDenied,
    PersistenceWarning,
    QueueClosed,
    QueueEmpty,
    QueueExists,
    QueueFull,
    QueueGone,
    QueueMismatch,
    QueueNotFound,
    QueueShutDown,
    ShmQueueEmpty,
    ShmQueueFull,
    TimedOutError,
    Unsupported,
    VersionMismatch,
)

__all__ = (
    "BackendInfo",
    "BackendUnavailable",
    "BackendUnknown",
    "Capabilities",
    "ConnectionLost",
    "CorruptQueue",
    "DeadLetter",
    "DeadLetters",
    "DecodeError",
    "EncodeError",
    "InvalidArgument",
    "InvalidName",
    "Lease",
    "LeaseLost",
    "Leases",
    "LimitExceeded",
    "Listing",
    "Message",
    "MessageQueueError",
    "MessageTooLarge",
    "NoSpace",
    "PermissionDenied",
    "Persistence",
    "PersistenceWarning",
    "Queue",
    "QueueClosed",
    "QueueEmpty",
    "QueueExists",
    "QueueFull",
    "QueueGone",
    "QueueInfo",
    "QueueMismatch",
    "QueueNotFound",
    "QueueShutDown",
    "Reservation",
    "Scope",
    "ShmQueueEmpty",
    "ShmQueueFull",
    "Stats",
    "TimedOutError",
    "Unsupported",
    "VersionMismatch",
    "View",
    "backends",
    "exists",
    "open",
    "queues",
    "unlink",
)
