"""Putting message after message into a queue that may be full, so that signals are noticed in between."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import ipcq
from ipcq._cli._exits import complain
from ipcq._cli._progress import PATIENCE, Progress
from ipcq._cli._signals import Stop, end_by, rest
from ipcq._handle.interface import on_channel
from ipcq.errors import QueueFull, QueueShutDown

#: Seconds after which a signal is noticed at the latest while a put waits for space.
BEAT = 0.1

#: Seconds between two checks whether a queue is still full.
LOOK = 0.01


def check_that_it_takes(queue: ipcq.Queue[Any]) -> None:
    """Refuse a queue that is shut down, as far as its backend says so without a message.

    Raises:
        QueueShutDown: It is.
    """
    try:
        on_channel(queue, lambda channel: channel.try_put_many(()))
    except QueueShutDown as error:
        raise error.at(queue.name, queue.backend)


class Putter:
    """Puts messages, and waits for space.

    Args:
        queue: Where to put them.
        stop: Ends a wait.
        progress: Shown meanwhile.
        wait: Seconds that each message may wait.
        quiet: Do not say that there is a wait.
        signals: How many signals end a wait.
    """

    def __init__(
        self, queue: ipcq.Queue[Any], stop: Stop, progress: Progress, *, wait: float, quiet: bool, signals: int = 1
    ) -> None:
        self._queue = queue
        self._stop = stop
        self._progress = progress
        self._wait = wait
        self._told = quiet
        self._signals = signals

    def put(self, item: Any, priority: int, show: Callable[[], None]) -> None:
        """Put one; a signal ends the wait between two tries and never within one.

        Raises:
            QueueFull: No space came free in time.
        """
        began = monotonic()
        while True:
            self._end_if_stopped()
            left = max(0.0, began + self._wait - monotonic())
            try:
                return self._queue.put(item, timeout=min(left, BEAT), priority=priority)
            except QueueFull:
                if left <= BEAT:
                    raise
            show()
            self._tell(monotonic() - began)

    def wait_for_space(self, source: ipcq.Queue[Any], show: Callable[[], None]) -> None:
        """Wait until there is space for at least a small message, or until the source is empty.

        Raises:
            QueueFull: No space came free in time.
            QueueShutDown: It is shut down.
        """
        began = monotonic()
        while not self._stop.number and self._queue.full() and not source.empty():
            waited = monotonic() - began
            if waited >= self._wait:
                raise QueueFull(queue=self._queue.name, backend=self._queue.backend)
            check_that_it_takes(self._queue)  # nobody gets space for a queue that is shut down
            show()
            self._tell(waited)
            rest(LOOK)

    def _end_if_stopped(self) -> None:
        if self._stop.count >= self._signals:
            end_by(self._stop.number)

    def _tell(self, waited: float) -> None:
        if waited > PATIENCE and not self._told and not self._progress.shown:
            self._told = True
            complain(f"queue {self._queue.name!r} is full, waiting for space (--wait 0 fails instead)")
