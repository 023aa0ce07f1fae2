"""A race between two creators: queues of one name on two backends. One is removed, and its messages are moved.

Processes that take the same name lock never create two queues. Processes that do not see the same lock may: other
users, programs with a private /tmp, programs that do not take the lock. So after a creation each process looks whether
the name also exists on another backend. At least one of two creators finds the other's queue, because each looks after
it has created its own. It waits for a random time, so that usually one of the two is first. Then it removes its own
queue and attaches to the other.

A third process may already have attached to the removed queue. Its handle raises `QueueGone`, and its messages are
moved to the remaining queue.
"""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from time import monotonic
from types import TracebackType
from typing import Final, Self, TypeVar

from ipcq._process.deadline import pause
from ipcq.backend import Backend, Channel, Received, Request
from ipcq.errors import MessageQueueError, QueueMismatch, QueueNotFound

T = TypeVar("T")

#: The longest time that a creator waits for the other creator to remove its queue.
_MAX_WAIT_SECONDS: Final = 0.005

#: The time after which two creators have certainly decided: many times `_MAX_WAIT_SECONDS`.
_SETTLE_SECONDS: Final = 0.1

#: The longest wait for space for the messages that are moved.
_HAND_OVER_SECONDS: Final = 1.0


def retry_during_race(look: Callable[[], T], deadline: float) -> T:
    """Return the result of `look`; raise its `QueueMismatch` only if it outlasts a race of two creators."""
    since = monotonic()
    until = min(since + _SETTLE_SECONDS, deadline)
    while True:
        try:
            return look()
        except QueueMismatch:
            if monotonic() >= until:
                raise
        pause(since, until)


class Withdrawals:
    """The queues that one `open` created and removed again, and their messages."""

    def __init__(self, name: str, request: Request) -> None:
        self._name = name
        self._request = request
        self._messages: list[Received] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._messages:
            import logging  # here, because this is rare

            logging.getLogger("ipcq").warning(
                "queue %r: %d messages were lost: it was created on two backends at the same time, and the messages in "
                "the queue that was removed could not be moved: create it in one program, and let the others wait",
                self._name,
                len(self._messages),
            )

    def withdraw_if_rival(self, backend: Backend, channel: Channel, has_rival: Callable[[], bool]) -> bool:
        """Remove a newly created queue if its name also exists elsewhere, and return whether it was removed."""
        keep = False
        try:
            keep = not has_rival()
            if not keep:
                time.sleep(_MAX_WAIT_SECONDS * os.urandom(1)[0] / 255)  # gevent patches the module
                keep = not has_rival()
        finally:
            if not keep:  # also if the look failed
                self._remove(backend, channel)
        return not keep

    def _remove(self, backend: Backend, channel: Channel) -> None:
        request = replace(self._request, read=True, write=False, after_unlink="continue")
        with ExitStack() as stack:
            stack.callback(channel.close)
            reader = None
            with suppress(MessageQueueError):  # if the queue cannot be read, its messages are lost
                reader = backend.attach(self._name, request)
                stack.callback(reader.close)
            with suppress(QueueNotFound):
                backend.unlink(self._name)
            with suppress(MessageQueueError):
                while reader is not None and (message := reader.try_get()) is not None:
                    self._messages.append(message)

    def hand_over(self, backend: Backend, channel: Channel, deadline: float) -> Channel:
        """Put as many of the messages as fit into the remaining queue, and return its channel."""
        if self._messages:
            request = replace(self._request, read=False, write=True)
            with suppress(MessageQueueError), closing(backend.attach(self._name, request)) as writer:
                self._put_all(writer, deadline)
        return channel

    def _put_all(self, writer: Channel, deadline: float) -> None:
        since = monotonic()
        until = min(since + _HAND_OVER_SECONDS, deadline)
        number = 0
        while number < len(self._messages):
            data, priority = self._messages[number]
            fits = len(data) <= writer.attributes.max_message_size
            if fits and writer.try_put(data, priority if writer.attributes.priorities else 0):
                del self._messages[number]
            elif fits and monotonic() < until:
                pause(since, until)
            else:
                number += 1
