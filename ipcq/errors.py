"""Every exception that ipcq raises, one class for each condition, the same on every backend.

An error's text names the queue and the backend, says what happened with the figures, and ends with the way out.
"""

import errno as _errno
import queue as _queue
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from ipcq._redaction import redacted, without_secrets

__all__ = (
    "BackendUnavailable",
    "BackendUnknown",
    "CorruptQueue",
    "DecodeError",
    "EncodeError",
    "InvalidArgument",
    "InvalidName",
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
else:  # no class that a caller could expect
    _StandardShutDown = Exception


class MessageQueueError(Exception):
    """Root of the tree: something about a queue went wrong.

    Args:
        detail: What happened and the way out; the class's own wording where it is empty.
        queue: Name of the queue.
        backend: Name of the backend.
        errno: The system's error number, where a system call failed.
    """

    wording: ClassVar[str] = "the operation on the queue failed"
    queue: str | None = None
    backend: str | None = None
    errno: int | None = None

    def __init__(
        self, detail: str = "", *, queue: str | None = None, backend: str | None = None, errno: int | None = None
    ) -> None:
        # Here too, because a reason may quote what somebody gave as an address.
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
        """Say which queue and backend it was, unless that is known already, and return the error."""
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
        # The builtin parents rebuild from positional arguments alone, which would drop what the error knows.
        return _rebuilt, (type(self), self.__dict__)


def _rebuilt(kind: type[MessageQueueError], facts: dict[str, Any]) -> MessageQueueError:
    error = kind.__new__(kind)
    MessageQueueError.__init__(error, facts["detail"])
    error.__dict__.update(facts)
    return error


class TimedOutError(MessageQueueError, TimeoutError):
    """The time given for an operation is over."""

    wording = "the time is over"
    errno: int | None = _errno.ETIMEDOUT


class QueueEmpty(TimedOutError, _queue.Empty):
    """No message was there within the time given."""

    wording = "no message was there within the time given"


class QueueFull(TimedOutError, _queue.Full):
    """No space for the message came free within the time given."""

    wording = "no space came free within the time given"


ShmQueueEmpty = QueueEmpty
ShmQueueFull = QueueFull


class QueueClosed(MessageQueueError):
    """This handle was closed here; the queue itself may live on."""

    wording = "this handle is closed: open the queue again"


class QueueShutDown(MessageQueueError, _StandardShutDown):
    """The queue was shut down: nothing goes in any more, and what was in it has been taken."""

    wording = "the queue is shut down: unlink it and create it anew to go on"


class QueueNotFound(MessageQueueError, FileNotFoundError):
    """No queue has this name."""

    wording = "no such queue: create it with create=True, or wait for it with wait=SECONDS"
    errno: int | None = _errno.ENOENT


class QueueExists(MessageQueueError, FileExistsError):
    """The name is taken and an exclusive creation was asked for."""

    wording = "the queue exists already: attach with exclusive=False, or unlink it first"
    errno: int | None = _errno.EEXIST


class QueueGone(MessageQueueError):
    """The queue was unlinked under this handle; a queue of the same name is another one."""

    wording = "the queue was unlinked: open the name again to meet the others"


class QueueMismatch(MessageQueueError):
    """The queue that exists is not the one that was asked for."""

    wording = "the queue differs from what was asked for"


class InvalidArgument(MessageQueueError, ValueError):
    """An argument has a value or a type that can never work."""

    wording = "the argument is not valid"


class InvalidName(InvalidArgument):
    """A queue's name breaks the one rule for names."""

    wording = "a name is '/' and then 1 to 254 bytes of UTF-8 without '/' and NUL, and neither '/.' nor '/..'"


class MessageTooLarge(MessageQueueError, ValueError):
    """The message can never fit into this queue.

    Attributes:
        size: Size of the encoded message, in bytes.
        limit: Largest message the queue takes, in bytes.
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
    """A limit of the system or of the user was hit.

    Attributes:
        limit: Name of the limit, as the system spells it.
        value: Its value now.
        asked: What the operation needed, in the same unit.
        remedy: The command or the argument that gets past it.
        errno: The system's error number.
    """

    wording = "a limit of the system was hit"
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

    wording = "no space is left where the queue lives"
    errno: int | None = _errno.ENOSPC


class EncodeError(MessageQueueError):
    """The item cannot be turned into bytes by this serializer; nothing was queued."""

    wording = "the item cannot be encoded"


class DecodeError(MessageQueueError):
    """The message cannot be turned into an item; it was taken, and the next get works.

    Attributes:
        data: The message's bytes, as they were on the wire.
    """

    wording = "the message cannot be decoded; its bytes are in the error's attribute data"

    def __init__(
        self, detail: str = "", *, data: bytes = b"", queue: str | None = None, backend: str | None = None
    ) -> None:
        super().__init__(detail, queue=queue, backend=backend)
        self.data = data


class BackendUnknown(MessageQueueError, LookupError):
    """No installed distribution offers a backend of this name."""

    wording = "no such backend is installed"


class BackendUnavailable(MessageQueueError):
    """No backend can serve, or the one that must cannot be used here.

    Attributes:
        reasons: For each backend that was considered, why it does not serve.
    """

    wording = "no backend can serve"

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
    """This backend, or this queue, cannot do that.

    Attributes:
        alternatives: Names of installed backends that can.
    """

    wording = "this backend cannot do that"

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
    """What the queue's memory or file holds was not written by ipcq, or was damaged."""

    wording = "the queue's contents are damaged: unlink it and create it anew"


class VersionMismatch(MessageQueueError):
    """The queue was made by an ipcq, a libc, a word size or a namespace that cannot share it."""

    wording = "the queue was made by a version that cannot share it with this one"


class PermissionDenied(MessageQueueError, PermissionError):
    """This user or this handle may not do that."""

    wording = "this user may not do that"
    errno: int | None = _errno.EACCES


class PersistenceWarning(UserWarning):
    """A queue that is meant to stay is about to be created where it lives only as long as some process has it open."""
