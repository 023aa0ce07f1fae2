"""Two queues of one name, made on two backends at the same instant: one of them goes, and its messages move.

Openers that exclude each other by the name's lock never make two. Those that cannot see each other's lock may: other
users, programs with a /tmp of their own, programs that do not take the lock. So whoever has created a queue looks once
more whether the name is on another backend as well. Of two makers one at least sees the other's queue, since each looks
after it has created. It waits for a random time, so that mostly one of the two is first. Then it removes its own and
attaches to the other.

A third process may have found the removed queue meanwhile. Its handle says `QueueGone`, and what it had put moves to
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

from ipcq._deadline import pause
from ipcq.backend import Backend, Channel, Received, Request
from ipcq.errors import MessageQueueError, QueueMismatch, QueueNotFound

T = TypeVar("T")

#: Seconds that a maker waits at the most for the other one to remove its queue.
_LONGEST_WAIT: Final = 0.005

#: Seconds after which a name on two backends is not just being decided: some times the wait of a maker.
_SETTLING: Final = 0.1

#: Seconds that an opener waits at the most for space for the messages that it moves.
_HAND_OVER_SECONDS: Final = 1.0


def settled(look: Callable[[], T], deadline: float) -> T:
    """Return what a look finds, and raise its `QueueMismatch` only if that lasts longer than two makers take."""
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
                "queue %r: %d messages were lost that others had put into a queue of this name, which was made at the "
                "same time as another one on another backend and had to be removed",
                self._name,
                len(self._messages),
            )

    def withdrawn(self, backend: Backend, channel: Channel, has_rival: Callable[[], bool]) -> bool:
        """Remove a queue that was created just now if its name is elsewhere too, and return whether it was removed."""
        stays = False
        try:
            stays = not has_rival()
            if not stays:
                time.sleep(_LONGEST_WAIT * os.urandom(1)[0] / 255)  # by way of the module, where gevent puts another
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
        """Put the messages into the queue that stays, as far as it takes them, and return the channel to it."""
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
