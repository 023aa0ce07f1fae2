"""baseplate's message queue, as baseplate 2.7.1 has it: ``from ipcq.compat.baseplate import MessageQueue``.

The queues are the kernel's, so that programs which use baseplate itself are the other end; the environment variable
IPCQ_BACKEND names another backend. ``python -m ipcq.compat.baseplate`` is the command.
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
    """The queue cannot be made with such arguments."""


class BeyondLimitError(LimitExceeded, InvalidParametersError):
    """The kernel does not allow queues or messages as large (``fs.mqueue.msg_max``, ``fs.mqueue.msgsize_max``)."""


class RefusedError(Unsupported, InvalidParametersError):
    """The backend has nothing of the kind."""


class MessageQueueOSError(LimitExceeded):
    """A limit of the user or of the machine stands against another queue (``ulimit -q``, ``ulimit -n``)."""


_THEIRS: Final = {
    InvalidArgument: InvalidParametersError,
    InvalidName: InvalidParametersError,
    LimitExceeded: MessageQueueOSError,
    posix_ipc.LimitError: BeyondLimitError,
    posix_ipc.RefusedError: RefusedError,
}


class MessageQueue:
    """A message queue, made if there is none of the name; see ``baseplate.lib.message_queue.MessageQueue``.

    Any number of threads and greenlets may use it. It works on after the queue was unlinked, until it is closed. A
    queue that exists keeps its limits.

    Args:
        name: Begins with a slash.
        max_messages: Capacity, in messages.
        max_message_size: Largest message, in bytes.

    Raises:
        InvalidParametersError: As a `ValueError`; the arguments are not right, or with `BeyondLimitError` beyond what
            the system allows.
        MessageQueueOSError: As an `OSError`; another limit of the system stands against it.
        PermissionDenied: This user may not.
    """

    queue: posix_ipc.MessageQueue
    """What posix_ipc would call the queue."""

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
            timeout: Seconds to wait for one at the most, on the monotonic clock; None waits for ever.

        Raises:
            TimedOutError: None came in time.
            QueueClosed: This object was closed.
            QueueShutDown: The queue was shut down and is empty.
            InvalidArgument: The timeout is no number from 0 on.
        """
        return self._get(True, timeout)

    def put(self, message: bytes | str, timeout: float | None = None) -> None:
        """Put a message into the queue.

        Args:
            message: Bytes of any kind, or a str, which travels as UTF-8.
            timeout: Seconds to wait for space at the most, on the monotonic clock; None waits for ever.

        Raises:
            TimedOutError: No space came free in time.
            MessageTooLarge: As a `ValueError`; the message can never fit.
            QueueClosed: This object was closed.
            QueueShutDown: The queue was shut down.
            InvalidArgument: The timeout is no number from 0 on.
        """
        if message.__class__ is not bytes:
            message = _as_bytes(message)
        self._put(message, True, timeout)

    def unlink(self) -> None:
        """Remove the queue's name; who has the queue open goes on with it.

        Raises:
            QueueNotFound: It is gone already.
        """
        self.queue.unlink()

    def close(self) -> None:
        """Close this object; the queue stays."""
        self.queue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def queue_tool(arguments: Sequence[str] | None = None) -> None:
    """Be the command: create a queue, print what comes through it, or put lines into it.

    Args:
        arguments: Those of the command line; None for this process's own.
    """
    parser = argparse.ArgumentParser(prog="python -m ipcq.compat.baseplate", description="Look into a message queue.")
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
        "create": "create the queue if there is none",
        "read": "take messages out of the queue and print each as a line, until interrupted",
        "write": "put each line of the standard input into the queue",
    }.items():
        modes.add_argument(f"--{mode}", action="store_const", dest="mode", const=mode, help=what)
    parser.add_argument("queue_name", help="name of the queue, which is created if there is none")
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
    # Bytes as they are: a message that is no text is not lost over that.
    out = sys.stdout.buffer
    try:
        while True:
            out.write(queue.get() + b"\n")
            out.flush()
    except BrokenPipeError:
        # Whoever read this has seen enough; Python would complain once more when it flushes at the end.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _put_lines(queue: MessageQueue) -> None:
    for line in sys.stdin.buffer:
        queue.put(line.removesuffix(b"\n").removesuffix(b"\r"))


if __name__ == "__main__":
    queue_tool()
