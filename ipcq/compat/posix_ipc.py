"""posix_ipc's message queues, as posix_ipc 1.3.2 has them: ``from ipcq.compat import posix_ipc``.

The queues are the kernel's, and messages the bytes alone, so that programs which use posix_ipc itself, or the calls of
another language, are the other end. The environment variable IPCQ_BACKEND names another backend.
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

from ipcq._handle.interface import check_signal, count_wait, on_channel, taker, waits
from ipcq._handle.queue import Queue
from ipcq._opening.directory import OPEN_TIMEOUT, remove
from ipcq._opening.names import check_name
from ipcq._opening.open import open as open_queue
from ipcq._opening.options import Options
from ipcq._opening.rendezvous import AUTO, PREFERENCE
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

#: The release whose interface this is.
VERSION: Final = "1.3.2"
__version__ = VERSION

O_CREX: Final = O_CREAT | O_EXCL
O_NONBLOCK: Final = int(getattr(os, "O_NONBLOCK", 0o4000))  # Windows has none
MESSAGE_QUEUES_SUPPORTED: Final = True
QUEUE_MESSAGES_MAX_DEFAULT: Final = 10
QUEUE_MESSAGE_SIZE_MAX_DEFAULT: Final = 8192
QUEUE_PRIORITY_MAX: Final = HIGHEST_PRIORITY
# posix_ipc has them where the platform has signals of real time.
USER_SIGNAL_MIN: Final = int(getattr(signal, "SIGRTMIN", 0))
USER_SIGNAL_MAX: Final = int(getattr(signal, "SIGRTMAX", 0))

#: What this face imitates.
_KERNEL: Final = "mqueue"
# Where the kernel has such queues, whatever is installed: two programs must not end on two backends.
_KERNEL_QUEUES: Final = "/proc/sys/fs/mqueue"

# Seconds within which a notice to this process is given once the message is there.
_NOTICE: Final = 1.0


class Error(MessageQueueError):
    """Root of posix_ipc's errors."""


class SignalError(Error):
    """A signal handler ran while the call waited, and returned."""

    wording = "a signal came while the call waited: call it again"


class PermissionsError(Error, PermissionDenied):
    """This user or this handle may not do that."""


class ExistentialError(Error):
    """The queue is missing, or there already, or is of no use any more."""


class BusyError(Error):
    """The queue was full or empty all the time, or somebody else is to be notified."""


# What is raised is an error of posix_ipc's and of ipcq's.


class EmptyError(BusyError, QueueEmpty):
    """No message was there within the time given."""


class FullError(BusyError, QueueFull):
    """No space for the message came free within the time given."""


class RegisteredError(BusyError, LimitExceeded):
    """Somebody else is to be notified of the next message."""


class NotFoundError(ExistentialError, QueueNotFound):
    """No queue has this name."""

    wording = "no such queue: create it with O_CREAT"


class ExistsError(ExistentialError, QueueExists):
    """The name is taken and O_EXCL was given."""

    wording = "the queue already exists: leave out O_EXCL, or unlink it first"


class ClosedError(ExistentialError, QueueClosed):
    """This object was closed."""


class ShutDownError(ExistentialError, QueueShutDown):
    """Somebody ended the queue by `ipcq.Queue.shutdown` or ``ipcq shutdown``."""


class LimitError(LimitExceeded, ValueError):
    """The kernel does not allow queues or messages as large."""


class RefusedError(Unsupported, ValueError):
    """The backend has nothing of the kind."""


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

# What `ipcq.open` can be given, and nothing here can.
_ANOTHER_BACKEND: Final = re.compile(r"backend='(\w+)'")


def _theirs(error: MessageQueueError) -> MessageQueueError:
    """Return what posix_ipc would raise, which tells the same."""
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
    """A message queue, made or found by its name; see ``posix_ipc.MessageQueue``.

    Any number of threads may use it. It works on after the queue was unlinked, until it is closed.

    Args:
        name: As a str or bytes, with a slash in front; None for a new one, with O_CREX.
        flags: O_CREAT to create it if there is none, O_CREX to create it or fail, and O_NONBLOCK not to block.
        mode: Permission bits of a queue that is created, less the umask. On other backends than the kernel's the queue
            is for this user alone.
        max_messages: Capacity of a queue that is created, in messages.
        max_message_size: Largest message of a queue that is created, in bytes.
        read: It receives.
        write: It sends.

    Raises:
        ExistentialError: There is no such queue, or with O_CREX there is one.
        PermissionsError: This user may not.
        ValueError: The arguments are not right, or the limits are beyond what the system allows: `LimitError` then.
        LimitExceeded: As an `OSError`; another limit of the system stands against it.
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
            message: A str, which travels as UTF-8, or bytes of any kind.
            timeout: Seconds to wait for space at the most, on the monotonic clock; None waits for ever, 0 does not
                wait. If `block` is False it counts for nothing.
            priority: From 0 to QUEUE_PRIORITY_MAX; the highest is received first.

        Raises:
            BusyError: No space came free in time.
            SignalError: A signal handler ran meanwhile, and nothing was sent.
            PermissionsError: It was opened with ``write=False``.
            ExistentialError: It was closed, or the queue was shut down.
            ValueError: The message is too long, or the priority out of range.
            TypeError: The timeout is no number from 0 on, or the message is no bytes.
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
            notice.wait(_NOTICE)

    def receive(self, timeout: float | None = None) -> tuple[bytes, int]:
        """Take the oldest message of the highest priority, and return it with its priority.

        Args:
            timeout: Seconds to wait for one at the most, as for `send`.

        Raises:
            BusyError: None came in time.
            SignalError: A signal handler ran meanwhile, and nothing was received.
            PermissionsError: It was opened with ``read=False``.
            ExistentialError: It was closed, or the queue was shut down and is empty.
            TypeError: The timeout is no number from 0 on.
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
        """Wait and attempt again and again, until it works, a signal handler has run, or the time is over."""
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
        """Ask for one notice when a message comes into the empty queue while nobody waits to receive it.

        What this object asked for before is cancelled. On the kernel's queues a `receive` of ipcq that waits does not
        count, as the kernel does not see it: the notice is given, and the message may be gone then.

        Args:
            notification: The number of a signal to this process; a function and its argument, which is called in a
                thread of its own; or None to cancel.

        Raises:
            BusyError: Somebody else has asked and waits.
            ValueError: It is none of these, or the backend gives no notice.
        """
        told: Event | None = None
        callback: Callable[[], object] | None = None
        number: int | None = None
        match notification:
            case None:
                pass
            case int():
                number = notification
                if self._queue.backend != _KERNEL:
                    check_signal(number)
                    told = Event()
                    callback, number = _signalling(number, told), None
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
                self._notice = told

    def _due_notice(self) -> Event | None:
        """Return what tells that the next message has been signalled, if this object has asked and it will be."""
        notice = self._notice
        if notice is None or notice.is_set() or self.current_messages:
            return None
        return notice

    def close(self) -> None:
        """Close this object; the queue stays."""
        self._queue.close()

    def unlink(self) -> None:
        """Remove the queue's name; who has the queue open goes on with it.

        Raises:
            ExistentialError: It is gone already, even if another queue has the name since.
            PermissionsError: This user may not.
        """

        def still_there() -> bool:
            if not self._queue.closed and not on_channel(self._queue, lambda channel: channel.linked()):
                raise QueueNotFound
            return True

        with _raising_theirs():
            remove(self.name, self._queue.backend, still_there)

    def fileno(self) -> int:
        """Return `mqd`."""
        return self.mqd

    @property
    def mqd(self) -> int:
        """A descriptor that is readable while the queue is not empty, and writable, on the kernel's, while not full.

        It is -1 once this object is closed.
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
        """The mode that was given when this object was made."""
        return self._mode

    @property
    def block(self) -> bool:
        """Whether `send` and `receive` wait; False lets them raise `BusyError` at once."""
        return self._block

    @block.setter
    def block(self, value: object) -> None:
        self._block = bool(value)

    @property
    def max_messages(self) -> int:
        """Capacity in messages; `sys.maxsize` where bytes alone bound it."""
        limit = self._queue.max_messages
        return sys.maxsize if limit is None else limit

    @property
    def max_message_size(self) -> int:
        """Largest message, in bytes."""
        return self._queue.max_message_size

    @property
    def current_messages(self) -> int:
        """How many messages are in the queue."""
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
        # It attaches, in the process that it is sent to.
        limits = self.max_messages, self.max_message_size
        return type(self), (self.name, 0, self._mode, *limits, self._read, self._write)


def unlink_message_queue(name: str | bytes) -> None:
    """Remove a queue's name; who has the queue open goes on with it.

    Raises:
        ExistentialError: There is none.
        PermissionsError: This user may not.
        ValueError: The name breaks the rule.
    """
    with _raising_theirs():
        remove(_checked(name), _backend(), lambda: True)


def _as_bytes(message: Any) -> bytes:
    """Return the bytes of a message that may be a str or any buffer.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(message, str):
        return message.encode()
    try:
        return bytes(memoryview(message))
    except TypeError:
        raise TypeError(f"the message must be a str or bytes of some kind, not {message!r}") from None


def _opened(name: str | bytes | None, flags: int, mode: int, limits: Options, read: bool, write: bool) -> Queue[bytes]:
    backend = _backend()
    of_kernel = backend == _KERNEL
    how: Options = {"read": read, "write": write, "serializer": "raw", "after_unlink": "continue"}
    # The kernel guards its queues against other users; elsewhere who may write may also cut the memory off.
    how["other_users"] = of_kernel
    mode = _unmasked(mode) & (0o777 if of_kernel else 0o700)
    new: Options = {**how, **limits, "exclusive": True, "mode": mode, "priorities": True}
    # Without limits, as those of a queue that exists are what they are.
    there: Options = {**how, "create": False}

    def create(name: str) -> Queue[bytes]:
        return open_queue(name, backend, **new)

    if name is not None:
        name = _checked(name)
    patience = monotonic() + OPEN_TIMEOUT
    while True:
        try:
            if name is None:
                return create(f"/{token_hex(6)}")
            if flags & O_EXCL:
                return create(name)
            try:
                return open_queue(name, backend, **there)
            except QueueNotFound:
                if not flags & O_CREAT:
                    raise
            return create(name)
        except QueueExists:  # a name of chance is taken, or another process was faster
            if (name is not None and flags & O_EXCL) or monotonic() >= patience:
                raise


def _checked(name: object) -> str:
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    if not isinstance(name, str):
        raise TypeError(f"the name must be None or a string, not {shown(name)}")
    return check_name(name)  # else it might be a URL


def _backend() -> str:
    return os.environ.get(PREFERENCE) or (_KERNEL if os.path.isdir(_KERNEL_QUEUES) else AUTO)


def _unmasked(mode: int) -> int:
    mask = os.umask(0o077)  # there is no asking without setting; a file of another thread's is private meanwhile
    os.umask(mask)
    return mode & ~mask


def _signalling(number: int, told: Event) -> Callable[[], None]:
    def tell() -> None:
        os.kill(os.getpid(), number)
        told.set()

    return tell


_ELSEWHERE: Final = frozenset(
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
    if name in _ELSEWHERE:
        what += ": it has the message queues alone; semaphores and shared memory are in posix_ipc itself, import it too"
    raise AttributeError(what, name=name, obj=sys.modules[__name__])
