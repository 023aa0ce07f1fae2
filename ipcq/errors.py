"""Every exception that ipcq raises: one class per condition, the same on every backend.

An error's text names the queue and the backend, states what happened with actual value and limit, and ends with the way
out.
"""

import errno as _errno
import queue as _queue
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias

from ipcq._redaction import redacted, without_secrets

__all__ = (
    "BackendUnavailable",
    "BackendUnknown",
    "ConnectionLost",
    "CorruptQueue",
    "DecodeError",
    "EncodeError",
    "InvalidArgument",
    "InvalidName",
    "LeaseLost",
    "LimitExceeded",
    "MessageQueueError",
    "MessageTooLarge",
    "NoSpace",
    "PermissionDenied",
    "PersistenceWarning",
    "QueueClosed",
    "QueueEmpty",
    "QueueExists",
    "QueueFull",
    "QueueGone",
    "QueueMismatch",
    "QueueNotFound",
    "QueueShutDown",
    "ShmQueueEmpty",
    "ShmQueueFull",
    "TimedOutError",
    "Unsupported",
    "VersionMismatch",
)

if sys.version_info >= (3, 13):
    from queue import ShutDown as _StandardShutDown
else:  # older Pythons have no such class
    _StandardShutDown = Exception


class MessageQueueError(Exception):
    """An operation on a queue failed; the base class of all errors.

    Args:
        detail: What happened and the way out; if empty, the class's own wording.
        queue: Name of the queue.
        backend: Name of the backend.
        errno: The system's error number, if a system call failed.
    """

    wording: ClassVar[str] = "the queue operation failed"
    queue: str | None = None
    backend: str | None = None
    errno: int | None = None

    def __init__(
        self, detail: str = "", *, queue: str | None = None, backend: str | None = None, errno: int | None = None
    ) -> None:
        # Redact here too, because a reason may quote the address that the user passed.
        detail = redacted(detail)
        super().__init__(detail)
        self.detail = detail
        if queue is not None:
            self.queue = queue
        if backend is not None:
            self.backend = without_secrets(backend)
        if errno is not None:
            self.errno = errno

    def at(self, queue: str, backend: str) -> Self:
        """Set the names of queue and backend where they are missing, and return the error."""
        self.queue = self.queue or queue
        self.backend = self.backend or backend
        return self

    def add_way_out(self, way: str) -> None:
        """Append another way out to the text."""
        self.detail = f"{self.detail or self.wording}, {way}"

    def __str__(self) -> str:
        where = f"queue {self.queue!r}" if self.queue is not None else ""
        if self.backend is not None:
            where += f"{' on ' if where else ''}backend {self.backend!r}"
        text = self.detail or self.wording
        return f"{where}: {text}" if where else text

    def __reduce__(self) -> tuple[Any, ...]:
        # The builtin parents unpickle from positional arguments alone, which would lose the attributes.
        return _rebuilt, (type(self), self.__dict__)


def _rebuilt(kind: type[MessageQueueError], facts: dict[str, Any]) -> MessageQueueError:
    error = kind.__new__(kind)
    MessageQueueError.__init__(error, facts["detail"])
    error.__dict__.update(facts)
    return error


class TimedOutError(MessageQueueError, TimeoutError):
    """An operation did not finish before its timeout."""

    wording = "timed out"
    errno: int | None = _errno.ETIMEDOUT


class QueueEmpty(TimedOutError, _queue.Empty):
    """No message arrived before the timeout."""

    wording = "no message arrived before the timeout"


class QueueFull(TimedOutError, _queue.Full):
    """No space for the message became free before the timeout."""

    wording = "no space became free before the timeout"


ShmQueueEmpty = QueueEmpty
ShmQueueFull = QueueFull


class QueueClosed(MessageQueueError):
    """This handle is closed; the queue itself may still exist."""

    wording = "this handle is closed: open the queue again"


class QueueShutDown(MessageQueueError, _StandardShutDown):
    """The queue was shut down: it accepts no more messages, and those left in it have been taken."""

    wording = "the queue is shut down: unlink and recreate it to continue"


class QueueNotFound(MessageQueueError, FileNotFoundError):
    """No queue has this name."""

    wording = "no such queue: create it with create=True, or wait for it with wait=SECONDS"
    errno: int | None = _errno.ENOENT


class QueueExists(MessageQueueError, FileExistsError):
    """The name is taken, and the caller requested an exclusive creation."""

    wording = "the queue already exists: attach with exclusive=False, or unlink it first"
    errno: int | None = _errno.EEXIST


class QueueGone(MessageQueueError):
    """The queue of this handle was unlinked; a queue that now has the same name is a different queue."""

    wording = "the queue was unlinked: open the name again"


class QueueMismatch(MessageQueueError):
    """The existing queue differs from the one requested."""

    wording = "the existing queue differs from the one requested"


class InvalidArgument(MessageQueueError, ValueError):
    """An argument has an invalid value or type."""

    wording = "invalid argument"


class InvalidName(InvalidArgument):
    """A queue's name is invalid."""

    wording = "a name is '/' followed by 1 to 254 bytes of UTF-8 without '/' or NUL, and not '/.' or '/..'"


class MessageTooLarge(MessageQueueError, ValueError):
    """The message is too large for this queue, even when it is empty.

    Attributes:
        size: Size of the encoded message, in bytes.
        limit: Largest message that the queue accepts, in bytes.
    """

    wording = "the message is too large for the queue"
    errno: int | None = _errno.EMSGSIZE

    def __init__(
        self,
        detail: str = "",
        *,
        size: int | None = None,
        limit: int | None = None,
        queue: str | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(detail, queue=queue, backend=backend)
        self.size = size
        self.limit = limit


class LimitExceeded(MessageQueueError, OSError):
    """A limit of the system or of the user was reached.

    Attributes:
        limit: Name of the limit, as the system spells it.
        value: Its current value.
        asked: What the operation needed, in the same unit.
        remedy: The command or argument that raises or avoids the limit.
        errno: The system's error number.
    """

    wording = "a limit of the system was reached"
    errno: int

    def __init__(
        self,
        *,
        limit: str,
        value: int,
        asked: int,
        remedy: str,
        errno: int,
        queue: str | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(f"{limit} is {value}, asked for {asked}: {remedy}", queue=queue, backend=backend, errno=errno)
        self.limit = limit
        self.value = value
        self.asked = asked
        self.remedy = remedy


class NoSpace(MessageQueueError, OSError):
    """The memory or the file system that holds queues is full."""

    wording = "no space is left for the queue"
    errno: int | None = _errno.ENOSPC


class EncodeError(MessageQueueError):
    """The serializer cannot encode the item; nothing was queued."""

    wording = "the item cannot be encoded"


class DecodeError(MessageQueueError):
    """The serializer cannot decode the message. The message was taken, and the next get works.

    Attributes:
        data: The encoded message, in bytes as received.
    """

    wording = "the message cannot be decoded: the error's attribute data has its bytes"

    def __init__(
        self, detail: str = "", *, data: bytes = b"", queue: str | None = None, backend: str | None = None
    ) -> None:
        super().__init__(detail, queue=queue, backend=backend)
        self.data = data


class LeaseLost(MessageQueueError):
    """The lease is over: the message was settled, has returned to the queue, or was dropped. Nothing was changed."""

    wording = "the lease is over, and the message may be with another consumer: let it go"


#: What is known about an operation whose connection was lost.
_Outcome: TypeAlias = Literal["done", "not done", "unknown"]

_OUTCOMES: Final[Mapping[_Outcome, str]] = {
    "done": "the operation was done, but its result is lost",
    "not done": "nothing was done: try again when the server answers",
    "unknown": "the operation may have been done: look at the queue before you repeat it",
}


class ConnectionLost(MessageQueueError, ConnectionError):
    """The server of the queue did not answer in time, or the connection to it was lost.

    Attributes:
        outcome: ``"not done"``: the operation changed nothing. ``"done"``: it was done, but its result is lost.
            ``"unknown"``: it is not known which of these.
    """

    wording = "the queue's server did not answer"
    errno: int | None = _errno.ECONNRESET

    def __init__(
        self,
        detail: str = "",
        *,
        outcome: _Outcome = "unknown",
        queue: str | None = None,
        backend: str | None = None,
        errno: int | None = None,
    ) -> None:
        super().__init__(detail, queue=queue, backend=backend, errno=errno)
        self.outcome: _Outcome = outcome

    def __str__(self) -> str:
        return f"{super().__str__()}; {_OUTCOMES[self.outcome]}"


class BackendUnknown(MessageQueueError, LookupError):
    """No installed distribution provides a backend of this name."""

    wording = "no such backend is installed"


class BackendUnavailable(MessageQueueError):
    """No backend is usable here, or the required one is not.

    Attributes:
        reasons: For each backend that was considered, the reason why it was rejected.
    """

    wording = "no backend is usable"

    def __init__(
        self,
        detail: str = "",
        *,
        reasons: Mapping[str, str] | None = None,
        queue: str | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(detail, queue=queue, backend=backend)
        self.reasons = dict(reasons or {})


class Unsupported(MessageQueueError, NotImplementedError):
    """This backend or this queue does not support the operation.

    Attributes:
        alternatives: Names of installed backends that support it.
    """

    wording = "this backend does not support that"

    def __init__(
        self,
        detail: str = "",
        *,
        alternatives: Sequence[str] = (),
        queue: str | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__(detail, queue=queue, backend=backend)
        self.alternatives = tuple(alternatives)


class CorruptQueue(MessageQueueError):
    """The queue's memory or file is damaged, or was not written by ipcq."""

    wording = "the queue's contents are damaged: unlink and recreate it"


class VersionMismatch(MessageQueueError):
    """The queue was created with an incompatible version of ipcq, libc, word size or namespace."""

    wording = "the queue was created by an incompatible version"


class PermissionDenied(MessageQueueError, PermissionError):
    """This user or this handle lacks the permission."""

    wording = "permission denied"
    errno: int | None = _errno.EACCES


class PersistenceWarning(UserWarning):
    """A persistent queue was requested, but the chosen backend keeps it only while some process has it open."""
