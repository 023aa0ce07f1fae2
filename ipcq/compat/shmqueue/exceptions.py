"""The exceptions of shmqueue: each is a `ipcq.MessageQueueError` too, and ipcq's own class where that says the same."""

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
    """An argument has a value that can never work, or the item can never fit into the buffer."""

    wording = "the value can never work"


class ShmQueueTypeError(MessageQueueError, TypeError):
    """An argument has a type that can never work."""

    wording = "the type can never work"


class ShmQueueBufferOverflow(MessageQueueError, OverflowError):
    """Nothing raises it, there as here."""

    wording = "the buffer is too small"


class ShmQueueRuntimeError(MessageQueueError, RuntimeError):
    """There it says that the shared memory contradicts itself, which `ipcq.CorruptQueue` does here."""

    wording = "the queue is not as it has to be"


class ShmQueueNotInitializedError(QueueClosed, RuntimeError):
    """This handle was shut down; the queue itself may live on."""

    wording = "this handle was shut down: make another ShmQueue of the name"
