"""The exceptions of shmqueue: ipcq's own classes where they mean the same, else subclasses of `MessageQueueError`."""

from ipcq.errors import (
    DecodeError,
    EncodeError,
    MessageQueueError,
    QueueClosed,
    QueueEmpty,
    QueueFull,
)

__all__ = (
    "ShmQueueBufferOverflow",
    "ShmQueueDeserializationError",
    "ShmQueueEmpty",
    "ShmQueueException",
    "ShmQueueFull",
    "ShmQueueNotInitializedError",
    "ShmQueueRuntimeError",
    "ShmQueueSerializationError",
    "ShmQueueTypeError",
    "ShmQueueValueError",
)

ShmQueueException = MessageQueueError
ShmQueueEmpty = QueueEmpty
ShmQueueFull = QueueFull
ShmQueueSerializationError = EncodeError
ShmQueueDeserializationError = DecodeError


class ShmQueueValueError(MessageQueueError, ValueError):
    """An argument has an invalid value, or the item can never fit in the buffer."""

    wording = "the value is invalid"


class ShmQueueTypeError(MessageQueueError, TypeError):
    """An argument has an invalid type."""

    wording = "the type is invalid"


class ShmQueueBufferOverflow(MessageQueueError, OverflowError):
    """Never raised, neither by shmqueue nor here."""

    wording = "the buffer is too small"


class ShmQueueRuntimeError(MessageQueueError, RuntimeError):
    """Never raised: shmqueue raises it for inconsistent shared memory, ipcq raises `ipcq.CorruptQueue`."""

    wording = "the shared memory is inconsistent"


class ShmQueueNotInitializedError(QueueClosed, RuntimeError):
    """This handle was shut down; the queue itself may still exist."""

    wording = "this handle was shut down: create another ShmQueue with the same name"
