"""The message queue of baseplate 2.7.1: ``from ipcq.compat.baseplate import MessageQueue``.

The queues are the kernel's, so programs that use baseplate itself can be the other end. The environment variable
IPCQ_BACKEND selects another backend. ``python -m ipcq.compat.baseplate`` replaces baseplate's command.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from ipcq.compat import posix_ipc
from ipcq.compat.posix_ipc import _as_bytes
from ipcq.errors import (
    InvalidArgument,
    InvalidName,
    LimitExceeded,
    MessageQueueError,
    TimedOutError,
    Unsupported,
    _rebuilt,
)

__all__ = (
    "BeyondLimitError",
    "InvalidParametersError",
    "MessageQueue",
    "MessageQueueError",
    "MessageQueueOSError",
    "RefusedError",
    "TimedOutError",
    "queue_tool",
)


class InvalidParametersError(InvalidArgument):
    """The arguments are invalid."""


class BeyondLimitError(LimitExceeded, InvalidParametersError):
    """The kernel does not allow such large queues or messages (``fs.mqueue.msg_max``, ``fs.mqueue.msgsize_max``)."""


class RefusedError(Unsupported, InvalidParametersError):
    """The backend does not support the operation."""


class MessageQueueOSError(LimitExceeded):
    """A limit of the user or of the machine forbids another queue (``ulimit -q``, ``ulimit -n``)."""


_THEIRS: Final = {
    InvalidArgument: InvalidParametersError,
    InvalidName: InvalidParametersError,
    LimitExceeded: MessageQueueOSError,
    posix_ipc.LimitError: BeyondLimitError,
    posix_ipc.RefusedError: RefusedError,
}


class MessageQueue:
    """A named message queue, created if it does not exist; see ``baseplate.lib.message_queue.MessageQueue``.

    Any number of threads and greenlets may use it. It keeps working after the queue is unlinked, until it is closed. An
    existing queue keeps its limits.

    Args:
        name: The queue's name, with a leading slash.
        max_messages: Capacity, in messages.
        max_message_size: Largest message, in bytes.

    Raises:
        InvalidParametersError: Also a `ValueError`. The arguments are invalid, or beyond the system's limits, which
            raises `BeyondLimitError`.
        MessageQueueOSError: Also an `OSError`. Another limit of the system forbids the queue.
        PermissionDenied: This user lacks the permission.
    """

    queue: posix_ipc.MessageQueue
    """The underlying queue, with the interface of posix_ipc."""

    def __init__(self, name: str, max_messages: int, max_message_size: int) -> None:
        try:
            self.queue = posix_ipc.MessageQueue(
                name, posix_ipc.O_CREAT, 0o644, max_messages=max_messages, max_message_size=max_message_size
            )
        except MessageQueueError as error:
            kind = _THEIRS.get(type(error))
            if kind is None:
                raise
            raise _rebuilt(kind, error.__dict__) from error.__cause__
        self.queue.block = False
        self._put = self.queue._queue.put
        self._get = self.queue._queue.get

    def get(self, timeout: float | None = None) -> bytes:
        """Take the next message.

        Args:
            timeout: Longest time to wait for a message, in seconds on the monotonic clock; None waits without a limit.

        Raises:
            TimedOutError: The queue was empty until the timeout.
            QueueClosed: This object was closed.
            QueueShutDown: The queue was shut down and is empty.
            InvalidArgument: The timeout is not a number, or negative.
        """
        return self._get(True, timeout)

    def put(self, message: bytes | str, timeout: float | None = None) -> None:
        """Put a message into the queue.

        Args:
            message: Any bytes-like object, or a str, which is encoded as UTF-8.
            timeout: Longest time to wait for space, in seconds on the monotonic clock; None waits without a limit.

        Raises:
            TimedOutError: The queue was full until the timeout.
            MessageTooLarge: Also a `ValueError`. The message exceeds `max_message_size`.
            QueueClosed: This object was closed.
            QueueShutDown: The queue was shut down.
            InvalidArgument: The timeout is not a number, or negative.
        """
        if message.__class__ is not bytes:
            message = _as_bytes(message)
        self._put(message, True, timeout)

    def unlink(self) -> None:
        """Remove the queue's name; open handles keep working.

        Raises:
            QueueNotFound: The queue is already removed.
        """
        self.queue.unlink()

    def close(self) -> None:
        """Close this object; the queue remains."""
        self.queue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def queue_tool(arguments: Sequence[str] | None = None) -> None:
    """Run the command: create a queue, print its messages, or put lines into it.

    Args:
        arguments: Command-line arguments; None takes those of this process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m ipcq.compat.baseplate", description="Create, read or write a message queue."
    )
    parser.add_argument(
        "--max-messages", type=int, default=10, metavar="N", help="capacity of a queue that is created (%(default)s)"
    )
    parser.add_argument(
        "--max-message-size",
        type=int,
        default=8096,
        metavar="BYTES",
        help="largest message of a queue that is created (%(default)s)",
    )
    modes = parser.add_mutually_exclusive_group(required=True)
    for mode, what in {
        "create": "create the queue if it does not exist",
        "read": "take messages from the queue and print each on a line, until interrupted",
        "write": "put each line of stdin into the queue",
    }.items():
        modes.add_argument(f"--{mode}", action="store_const", dest="mode", const=mode, help=what)
    parser.add_argument("queue_name", help="name of the queue, which is created if it does not exist")
    given = parser.parse_args(arguments)
    try:
        with MessageQueue(given.queue_name, given.max_messages, given.max_message_size) as queue:
            if given.mode == "read":
                _print_messages(queue)
            elif given.mode == "write":
                _put_lines(queue)
    except MessageQueueError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130)


def _print_messages(queue: MessageQueue) -> None:
    # Write bytes, so that a message that is not text is not lost.
    out = sys.stdout.buffer
    try:
        while True:
            out.write(queue.get() + b"\n")
            out.flush()
    except BrokenPipeError:
        # The reader has closed the pipe. Without this, Python would print an error when it flushes stdout at exit.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _put_lines(queue: MessageQueue) -> None:
    for line in sys.stdin.buffer:
        queue.put(line.removesuffix(b"\n").removesuffix(b"\r"))


if __name__ == "__main__":
    queue_tool()
