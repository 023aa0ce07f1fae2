"""Puts into a queue that may be full, with signals handled between tries."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import ipcq
from ipcq._cli._exits import complain
from ipcq._cli._progress import DELAY_SECONDS, Progress
from ipcq._cli._signals import Stop, raise_for_signal, sleep_in_slices
from ipcq._handle.interface import on_channel
from ipcq.errors import QueueFull, QueueShutDown

#: The longest wait of one try, and so the longest delay of a signal.
TRY_SECONDS = 0.1
#: Time between two polls of a full queue.
POLL_SECONDS = 0.01


def check_not_shut_down(queue: ipcq.Queue[Any]) -> None:
    """Check that the queue is not shut down, if its backend reports that without a message.

    Raises:
        QueueShutDown: It is shut down.
    """
    try:
        on_channel(queue, lambda channel: channel.try_put_many(()))
    except QueueShutDown as error:
        raise error.at(queue.name, queue.backend)


class Putter:
    """Puts messages, and waits for space.

    Args:
        queue: The queue.
        stop: Signals received so far. They end a wait.
        progress: Suppresses the note about a wait while its line is visible.
        wait: Seconds that each message may wait for space.
        quiet: Print no note about a wait.
        signals: Number of signals that end a wait.
    """

    def __init__(
        self, queue: ipcq.Queue[Any], stop: Stop, progress: Progress, *, wait: float, quiet: bool, signals: int = 1
    ) -> None:
        self._queue = queue
        self._stop = stop
        self._progress = progress
        self._wait = wait
        self._noted = quiet
        self._signals = signals

    def put(self, item: Any, priority: int, show: Callable[[], None]) -> None:
        """Put one message. A signal ends the wait between two tries, never during a try.

        Raises:
            QueueFull: No space became free in time.
        """
        began = monotonic()
        while True:
            self._end_if_stopped()
            left = max(0.0, began + self._wait - monotonic())
            try:
                return self._queue.put(item, timeout=min(left, TRY_SECONDS), priority=priority)
            except QueueFull:
                if left <= TRY_SECONDS:
                    raise
            show()
            self._note_wait(monotonic() - began)

    def wait_for_space(self, source: ipcq.Queue[Any], show: Callable[[], None]) -> None:
        """Wait until there is space for at least a small message, or the source is empty.

        Raises:
            QueueFull: No space became free in time.
            QueueShutDown: The queue is shut down.
        """
        began = monotonic()
        while not self._stop.number and self._queue.full() and not source.empty():
            waited = monotonic() - began
            if waited >= self._wait:
                raise QueueFull(queue=self._queue.name, backend=self._queue.backend)
            check_not_shut_down(self._queue)  # waiting is pointless once the queue is shut down
            show()
            self._note_wait(waited)
            sleep_in_slices(POLL_SECONDS)

    def _end_if_stopped(self) -> None:
        if self._stop.count >= self._signals:
            raise_for_signal(self._stop.number)

    def _note_wait(self, waited: float) -> None:
        if waited > DELAY_SECONDS and not self._noted and not self._progress.shown:
            self._noted = True
            complain(f"queue {self._queue.name!r} is full, waiting for space (--wait 0 fails instead)")
