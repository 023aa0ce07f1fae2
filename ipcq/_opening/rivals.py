"""Two queues of one name, made on two backends at the same instant: one of them goes, and its messages move.

Openers that exclude each other by the name's lock never make two. Those that cannot see each other's lock may: other
users, programs with a /tmp of their own, programs that do not take the lock. So each creator looks once more whether
the name is on another backend as well. At least one of two makers sees the other's queue, since each looks after it has
created. It waits for a random time, so that usually one of the two is first. Then it removes its own and attaches to
the other.

A third process may have found the removed queue meanwhile. Its handle raises `QueueGone`, and what it had put moves to
the queue that stays.
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

#: Longest time in seconds that a maker waits for the other one to remove its queue.
_LONGEST_WAIT: Final = 0.005

#: Seconds after which two makers have surely decided: several times the wait of one of them.
_SETTLING: Final = 0.1

#: Longest time in seconds that an opener waits for space for the messages that it moves.
_HAND_OVER_SECONDS: Final = 1.0


def settled(look: Callable[[], T], deadline: float) -> T:
    """Return what a look finds, and raise its `QueueMismatch` only if that outlasts the decision of two makers."""
    since = monotonic()
    until = min(since + _SETTLING, deadline)
    while True:
        try:
            return look()
        except QueueMismatch:
            if monotonic() >= until:
                raise
        pause(since, until)


class Withdrawals:
    """The queues that one opener made and removed again, and the messages that were in them."""

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
            import logging  # here, because this hardly ever happens

            logging.getLogger("ipcq").warning(
                "queue %r: %d messages were lost: it was created on two backends at the same time, and what others had "
                "put into the one that was removed could not be moved: let one program create it, and the others wait",
                self._name,
                len(self._messages),
            )

    def withdrawn(self, backend: Backend, channel: Channel, has_rival: Callable[[], bool]) -> bool:
        """Remove a queue that was created just now if its name is elsewhere too, and return whether it was removed."""
        stays = False
        try:
            stays = not has_rival()
            if not stays:
                time.sleep(_LONGEST_WAIT * os.urandom(1)[0] / 255)  # looked up in the module, where gevent puts its own
                stays = not has_rival()
        finally:
            if not stays:  # also where the look failed
                self._remove(backend, channel)
        return not stays

    def _remove(self, backend: Backend, channel: Channel) -> None:
        request = replace(self._request, read=True, write=False, after_unlink="continue")
        with ExitStack() as ending:
            ending.callback(channel.close)
            reader = None
            with suppress(MessageQueueError):  # what cannot be read cannot be saved
                reader = backend.attach(self._name, request)
                ending.callback(reader.close)
            with suppress(QueueNotFound):
                backend.unlink(self._name)
            with suppress(MessageQueueError):
                while reader is not None and (message := reader.try_get()) is not None:
                    self._messages.append(message)

    def handed_over(self, backend: Backend, channel: Channel, deadline: float) -> Channel:
        """Put as many of the messages as fit into the queue that stays, and return the channel to it."""
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
