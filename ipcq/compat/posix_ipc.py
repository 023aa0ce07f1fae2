"""The message queues of posix_ipc 1.3.2: ``from ipcq.compat import posix_ipc``.

The queues are the kernel's and messages are bare bytes, so programs that use posix_ipc itself, or another language, can
be the other end. The environment variable IPCQ_BACKEND selects another backend.
"""

import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from mmap import PAGESIZE as PAGE_SIZE
from operator import index
from os import O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY
from secrets import token_hex
from threading import Event
from time import monotonic
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeVar

from ipcq._handle.interface import check_signal, count_wait, descriptor, on_channel, taker, waits
from ipcq._handle.queue import Queue
from ipcq._opening.address import AUTO, PREFERENCE
from ipcq._opening.directory import OPEN_TIMEOUT, remove
from ipcq._opening.names import check_name
from ipcq._opening.open import open as open_queue
from ipcq._opening.options import Options
from ipcq._process.deadline import NEVER, PASSED, SLICE, deadline_of
from ipcq._redaction import shown
from ipcq.backend import HIGHEST_PRIORITY, Received
from ipcq.compat._interruptions import interrupted, unwatch, watch
from ipcq.errors import (
    InvalidArgument,
    LimitExceeded,
    MessageQueueError,
    PermissionDenied,
    QueueClosed,
    QueueEmpty,
    QueueExists,
    QueueFull,
    QueueNotFound,
    QueueShutDown,
    Unsupported,
    _rebuilt,
)

__all__ = (
    "MESSAGE_QUEUES_SUPPORTED",
    "O_CREAT",
    "O_CREX",
    "O_EXCL",
    "O_NONBLOCK",
    "O_RDONLY",
    "O_RDWR",
    "O_TRUNC",
    "O_WRONLY",
    "PAGE_SIZE",
    "QUEUE_MESSAGES_MAX_DEFAULT",
    "QUEUE_MESSAGE_SIZE_MAX_DEFAULT",
    "QUEUE_PRIORITY_MAX",
    "USER_SIGNAL_MAX",
    "USER_SIGNAL_MIN",
    "VERSION",
    "BusyError",
    "ClosedError",
    "EmptyError",
    "Error",
    "ExistentialError",
    "ExistsError",
    "FullError",
    "LimitError",
    "MessageQueue",
    "NotFoundError",
    "PermissionsError",
    "RefusedError",
    "RegisteredError",
    "ShutDownError",
    "SignalError",
    "unlink_message_queue",
)

_R = TypeVar("_R")

#: The release of posix_ipc with the same interface.
VERSION: Final = "1.3.2"
__version__ = VERSION

O_CREX: Final = O_CREAT | O_EXCL
O_NONBLOCK: Final = int(getattr(os, "O_NONBLOCK", 0o4000))  # Windows has none
MESSAGE_QUEUES_SUPPORTED: Final = True
QUEUE_MESSAGES_MAX_DEFAULT: Final = 10
QUEUE_MESSAGE_SIZE_MAX_DEFAULT: Final = 8192
QUEUE_PRIORITY_MAX: Final = HIGHEST_PRIORITY
# 0 where the platform has no real-time signals.
USER_SIGNAL_MIN: Final = int(getattr(signal, "SIGRTMIN", 0))
USER_SIGNAL_MAX: Final = int(getattr(signal, "SIGRTMAX", 0))

#: The backend with the kernel's queues.
_KERNEL: Final = "mqueue"
# Exists if the kernel has such queues. The choice ignores which packages are installed, so that two programs never use
# different backends.
_KERNEL_QUEUES: Final = "/proc/sys/fs/mqueue"

# Longest time that a put waits for the notice that its message causes in this process.
_NOTICE_SECONDS: Final = 1.0


class Error(MessageQueueError):
    """The base class of posix_ipc's errors."""


class SignalError(Error):
    """A signal handler ran during the wait, and returned."""

    wording = "a signal interrupted the wait: call it again"


class PermissionsError(Error, PermissionDenied):
    """This user or this handle lacks the permission."""


class ExistentialError(Error):
    """The queue does not exist, already exists, or can no longer be used."""


class BusyError(Error):
    """The queue was full or empty until the timeout, or another process is registered for notification."""


# Each class below is an error of posix_ipc and of ipcq.


class EmptyError(BusyError, QueueEmpty):
    """The queue was empty until the timeout."""


class FullError(BusyError, QueueFull):
    """The queue had no space for the message until the timeout."""


class RegisteredError(BusyError, LimitExceeded):
    """Another process is registered for the notification of the next message."""


class NotFoundError(ExistentialError, QueueNotFound):
    """No queue has this name."""

    wording = "no such queue: create it with O_CREAT"


class ExistsError(ExistentialError, QueueExists):
    """The queue exists, and O_EXCL was given."""

    wording = "the queue already exists: leave out O_EXCL, or unlink it first"


class ClosedError(ExistentialError, QueueClosed):
    """This object was closed."""


class ShutDownError(ExistentialError, QueueShutDown):
    """`ipcq.Queue.shutdown` or ``ipcq shutdown`` has ended the queue."""


class LimitError(LimitExceeded, ValueError):
    """The kernel does not allow such large queues or messages."""


class RefusedError(Unsupported, ValueError):
    """The backend does not support the operation."""


_THEIRS: Final[Mapping[type[MessageQueueError], type[MessageQueueError]]] = {
    PermissionDenied: PermissionsError,
    QueueClosed: ClosedError,
    QueueEmpty: EmptyError,
    QueueExists: ExistsError,
    QueueFull: FullError,
    QueueNotFound: NotFoundError,
    QueueShutDown: ShutDownError,
    Unsupported: RefusedError,
}
_LIMITS: Final[Mapping[int, type[MessageQueueError]]] = {
    errno.EBUSY: RegisteredError,
    errno.EINVAL: LimitError,
    errno.EOVERFLOW: LimitError,
}

# The advice of `ipcq.open` to pass another backend, which this interface selects by the environment variable.
_ANOTHER_BACKEND: Final = re.compile(r"backend='(\w+)'")


def _theirs(error: MessageQueueError) -> MessageQueueError:
    """Return the exception of posix_ipc for an error of ipcq."""
    error.detail = _ANOTHER_BACKEND.sub(rf"{PREFERENCE}=\1", error.detail)
    kind = _LIMITS.get(error.errno) if isinstance(error, LimitExceeded) else _THEIRS.get(type(error))
    return error if kind is None else _rebuilt(kind, error.__dict__)


@contextmanager
def _raising_theirs() -> Iterator[None]:
    try:
        yield
    except MessageQueueError as error:
        raise _theirs(error) from error.__cause__


class MessageQueue:
    """A handle to a named message queue; see ``posix_ipc.MessageQueue``.

    Any number of threads may use it. It keeps working after the queue is unlinked, until it is closed.

    Args:
        name: The name, a str or bytes with a leading slash; None, with O_CREX, creates a queue with a new name.
        flags: O_CREAT to create the queue if it does not exist, O_CREX to create it or fail, O_NONBLOCK never to block.
        mode: Permission bits of a new queue, which the umask reduces. On backends other than the kernel's, only this
            user has access.
        max_messages: Capacity of a new queue, in messages.
        max_message_size: Largest message of a new queue, in bytes.
        read: Whether this object may receive.
        write: Whether this object may send.

    Raises:
        ExistentialError: The queue does not exist, or with O_CREX, already exists.
        PermissionsError: This user lacks the permission.
        ValueError: The arguments are invalid, or the limits exceed those of the system, which raises `LimitError`.
        LimitExceeded: Also an `OSError`. Another limit of the system forbids the queue.
    """

    __slots__ = ("__weakref__", "_block", "_mode", "_notice", "_put", "_queue", "_read", "_try_take", "_write")

    def __init__(
        self,
        name: str | bytes | None,
        flags: int = 0,
        mode: int = 0o600,
        max_messages: int = QUEUE_MESSAGES_MAX_DEFAULT,
        max_message_size: int = QUEUE_MESSAGE_SIZE_MAX_DEFAULT,
        read: object = True,
        write: object = True,
    ) -> None:
        flags, mode = index(flags), index(mode)
        limits: Options = {"max_messages": index(max_messages), "max_message_size": index(max_message_size)}
        if flags & O_CREX == O_EXCL:
            raise InvalidArgument("O_EXCL must be combined with O_CREAT")
        if name is None and not flags & O_EXCL:
            raise InvalidArgument("the name can be None with O_CREX alone")
        self._mode = mode
        self._read, self._write = bool(read), bool(write)
        self._block = not flags & O_NONBLOCK
        self._notice: Event | None = None
        with _raising_theirs():
            self._queue = _opened(name, flags, mode, limits, self._read, self._write)
        self._put = self._queue.put
        self._try_take = taker(self._queue)

    def send(self, message: object, timeout: float | None = None, priority: int = 0) -> None:
        """Put a message into the queue.

        Args:
            message: A str, which is encoded as UTF-8, or any bytes-like object.
            timeout: Longest time to wait for space, in seconds on the monotonic clock; None waits without a limit, 0
                does not wait. Ignored if `block` is False.
            priority: From 0 to QUEUE_PRIORITY_MAX; the highest is received first.

        Raises:
            BusyError: The queue was full until the timeout.
            SignalError: A signal handler ran during the wait; nothing was sent.
            PermissionsError: The queue was opened with ``write=False``.
            ExistentialError: This object was closed, or the queue was shut down.
            ValueError: The message is too long, or the priority out of range.
            TypeError: The timeout is not a number or is negative, or the message is neither a str nor bytes-like.
        """
        if message.__class__ is not bytes:
            message = _as_bytes(message)
        if priority.__class__ is not int:
            priority = int(index(priority))
        deadline = NEVER if timeout is None and self._block else self._deadline(timeout)
        notice = None if self._notice is None else self._due_notice()
        try:
            try:
                self._put(message, False, priority=priority)
            except QueueFull:
                if deadline == PASSED:
                    raise
                wait = partial(waits(self._queue).wait_writable, len(message))
                self._wait(wait, partial(self._put, message, False, priority=priority), deadline)
        except MessageQueueError as error:
            raise _theirs(error) from error.__cause__
        if notice is not None:
            notice.wait(_NOTICE_SECONDS)

    def receive(self, timeout: float | None = None) -> tuple[bytes, int]:
        """Take the oldest message of the highest priority, and return it with its priority.

        Args:
            timeout: Longest time to wait for a message, as for `send`.

        Raises:
            BusyError: The queue was empty until the timeout.
            SignalError: A signal handler ran during the wait; nothing was received.
            PermissionsError: The queue was opened with ``read=False``.
            ExistentialError: This object was closed, or the queue was shut down and is empty.
            TypeError: The timeout is not a number, or negative.
        """
        deadline = NEVER if timeout is None and self._block else self._deadline(timeout)
        try:
            received = self._try_take()
            if received is None:
                if deadline == PASSED:
                    self._refuse()
                received = self._wait(waits(self._queue).wait_readable, self._take, deadline)
        except MessageQueueError as error:
            raise _theirs(error) from error.__cause__
        return received

    def _take(self) -> Received:
        return self._try_take() or self._refuse()

    def _refuse(self) -> NoReturn:
        raise QueueEmpty().at(self.name, self._queue.backend)

    def _wait(self, wait: Callable[[float, float], None], attempt: Callable[[], _R], deadline: float) -> _R:
        """Wait and retry until the attempt succeeds, a signal handler has run, or the deadline has passed."""
        queue, since, served, mark = self._queue, monotonic(), False, watch()
        try:
            while True:
                on_channel(queue, lambda _: wait(since, min(deadline, monotonic() + SLICE)))
                try:
                    result = attempt()
                except (QueueEmpty, QueueFull) as error:
                    if interrupted(mark):
                        raise SignalError(queue=error.queue, backend=error.backend) from None
                    if monotonic() >= deadline:
                        raise
                else:
                    served = True
                    return result
        finally:
            unwatch(mark)
            count_wait(queue, served)

    def _deadline(self, timeout: float | None) -> float:
        try:
            return deadline_of(self._block, timeout)
        except InvalidArgument as error:
            raise TypeError(error.detail) from None

    def request_notification(self, notification: int | tuple[Callable[[Any], object], Any] | None = None) -> None:
        """Request one notification when a message arrives in the empty queue and no process waits to receive it.

        This cancels an earlier request of this object. The kernel does not see a waiting `receive` of ipcq: on its
        queues the notification is delivered nevertheless, and that `receive` may have taken the message.

        Args:
            notification: The number of a signal to this process; a function and its argument, which is called in its
                own thread; or None to cancel.

        Raises:
            BusyError: Another process is registered.
            ValueError: The argument is none of these, or the backend has no notification.
        """
        sent: Event | None = None
        callback: Callable[[], object] | None = None
        number: int | None = None
        match notification:
            case None:
                pass
            case int():
                number = notification
                if self._queue.backend != _KERNEL:
                    check_signal(number)
                    sent = Event()
                    callback, number = _signalling(number, sent), None
            case (function, argument) if callable(function):
                callback = partial(function, argument)
            case _:
                raise InvalidArgument(
                    "the notification must be None, an integer, or a tuple of (function, parameter), "
                    f"not {notification!r}"
                )
        with _raising_theirs():
            self._notice = None
            self._queue.notify()
            if notification is not None:
                self._queue.notify(callback, signal=number)
                self._notice = sent

    def _due_notice(self) -> Event | None:
        """Return the event that the signal for the next message sets, or None if no signal is due."""
        notice = self._notice
        if notice is None or notice.is_set() or self.current_messages:
            return None
        return notice

    def close(self) -> None:
        """Close this object; the queue remains."""
        self._queue.close()

    def unlink(self) -> None:
        """Remove the queue's name; open handles keep working.

        Raises:
            ExistentialError: The queue is already removed, even if another queue has the name now.
            PermissionsError: This user lacks the permission.
        """

        def still_there() -> bool:
            if not self._queue.closed and not on_channel(self._queue, lambda channel: channel.linked()):
                raise QueueNotFound
            return True

        with _raising_theirs():
            remove(self.name, descriptor(self._queue), still_there)

    def fileno(self) -> int:
        """Return `mqd`."""
        return self.mqd

    @property
    def mqd(self) -> int:
        """A descriptor that is readable while the queue is not empty; -1 if this object is closed.

        For the kernel's queues it is also writable while the queue is not full.
        """
        if self._queue.closed:
            return -1
        with _raising_theirs():
            if self._read:
                return self._queue.fileno()
            return on_channel(self._queue, lambda channel: channel.fileno())

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._queue.name

    @property
    def mode(self) -> int:
        """The mode that was passed to this object's constructor."""
        return self._mode

    @property
    def block(self) -> bool:
        """Whether `send` and `receive` wait; if False, they raise `BusyError` at once."""
        return self._block

    @block.setter
    def block(self, value: object) -> None:
        self._block = bool(value)

    @property
    def max_messages(self) -> int:
        """Capacity in messages; `sys.maxsize` if only bytes limit it."""
        limit = self._queue.max_messages
        return sys.maxsize if limit is None else limit

    @property
    def max_message_size(self) -> int:
        """Largest message, in bytes."""
        return self._queue.max_message_size

    @property
    def current_messages(self) -> int:
        """Number of messages in the queue."""
        with _raising_theirs():
            return self._queue.qsize()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return (
            f'posix_ipc.MessageQueue("{self.name}", mode=0{self.mode:o}, max_message_size={self.max_message_size}, '
            f"max_messages={self.max_messages}, read={self._read}, write={self._write})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # The receiving process attaches to the queue.
        limits = self.max_messages, self.max_message_size
        return type(self), (self.name, 0, self._mode, *limits, self._read, self._write)


def unlink_message_queue(name: str | bytes) -> None:
    """Remove a queue's name; open handles keep working.

    Raises:
        ExistentialError: The queue does not exist.
        PermissionsError: This user lacks the permission.
        ValueError: The name is invalid.
    """
    with _raising_theirs():
        remove(_checked(name), _backend(), lambda: True)


def _as_bytes(message: Any) -> bytes:
    """Return the bytes of a message, a str or a bytes-like object.

    Raises:
        TypeError: The message is neither.
    """
    if isinstance(message, str):
        return message.encode()
    try:
        return bytes(memoryview(message))
    except TypeError:
        raise TypeError(f"the message must be a str or bytes-like, not {message!r}") from None


def _opened(name: str | bytes | None, flags: int, mode: int, limits: Options, read: bool, write: bool) -> Queue[bytes]:
    backend = _backend()
    of_kernel = backend == _KERNEL
    how: Options = {"read": read, "write": write, "serializer": "raw", "after_unlink": "continue"}
    # The kernel protects its queues from other users. On other backends, a user who may write may also truncate the
    # file.
    how["other_users"] = of_kernel
    mode = _unmasked(mode) & (0o777 if of_kernel else 0o700)
    new: Options = {**how, **limits, "exclusive": True, "mode": mode, "priorities": True}
    # Without limits, because an existing queue keeps its own.
    existing: Options = {**how, "create": False}

    def create(name: str) -> Queue[bytes]:
        return open_queue(name, backend, **new)

    if name is not None:
        name = _checked(name)
    deadline = monotonic() + OPEN_TIMEOUT
    while True:
        try:
            if name is None:
                return create(f"/{token_hex(6)}")
            if flags & O_EXCL:
                return create(name)
            try:
                return open_queue(name, backend, **existing)
            except QueueNotFound:
                if not flags & O_CREAT:
                    raise
            return create(name)
        except QueueExists:  # the random name is in use, or another process created the queue meanwhile
            if (name is not None and flags & O_EXCL) or monotonic() >= deadline:
                raise


def _checked(name: object) -> str:
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str):
        raise TypeError(f"the name must be None or a string, not {shown(name)}")
    return check_name(name)  # which rejects a URL


def _backend() -> str:
    return os.environ.get(PREFERENCE) or (_KERNEL if os.path.isdir(_KERNEL_QUEUES) else AUTO)


def _unmasked(mode: int) -> int:
    mask = os.umask(0o077)  # the mask can only be read by setting it; files of other threads are private meanwhile
    os.umask(mask)
    return mode & ~mask


def _signalling(number: int, sent: Event) -> Callable[[], None]:
    def send() -> None:
        os.kill(os.getpid(), number)
        sent.set()

    return send


_OMITTED: Final = frozenset(
    {
        "SEMAPHORE_TIMEOUT_SUPPORTED",
        "SEMAPHORE_VALUE_MAX",
        "SEMAPHORE_VALUE_SUPPORTED",
        "Semaphore",
        "SharedMemory",
        "unlink_semaphore",
        "unlink_shared_memory",
    }
)


def __getattr__(name: str) -> Any:
    what = f"module {__name__!r} has no attribute {name!r}"
    if name in _OMITTED:
        what += ": it has only message queues; for semaphores and shared memory, import posix_ipc itself too"
    raise AttributeError(what, name=name, obj=sys.modules[__name__])
