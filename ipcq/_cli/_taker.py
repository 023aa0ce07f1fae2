"""Taking items and printing them: what `get` and ``tail --consume`` do."""

from time import monotonic
from typing import Any

import ipcq
from ipcq._cli import _items
from ipcq._cli._exits import Failure, complain
from ipcq._cli._options import timeout_of
from ipcq._cli._printer import Printer, complain_of
from ipcq.errors import DecodeError, QueueEmpty, QueueShutDown

NOTHING: Any = object()


class Taker:
    """Takes items and prints them, and keeps account of both."""

    def __init__(self, queue: ipcq.Queue[Any], printer: Printer) -> None:
        self._queue = queue
        self._printer = printer
        self._taken = 0
        self._undecoded = 0

    def count(self, wanted: int, until: float | None) -> None:
        """Take so many."""
        while self._taken < wanted:
            try:
                self._move(_left(until, 0.0))
            except (QueueEmpty, QueueShutDown) as error:
                if wanted > 1:
                    error.add_note(f"{self._taken} of {wanted} items were there")
                raise
        self._judge()

    def drain(self, until: float | None) -> None:
        """Take one, and then what is there."""
        self._move(_left(until, 0.0))
        try:
            while True:
                self._move(0.0)
        except (QueueEmpty, QueueShutDown):
            self._judge()

    def follow(self, until: float | None, wanted: int | None = None) -> None:
        """Take what comes, until the time or the queue ends or there were as many as wanted."""
        while wanted is None or self._taken < wanted:
            try:
                self._move(_left(until, None))
            except QueueShutDown:
                break
            except QueueEmpty:
                if not self._taken:
                    raise
                break
        self._judge()

    def _judge(self) -> None:
        if self._undecoded:
            raise Failure  # each of them has its line already

    def _move(self, timeout: float | None) -> None:
        """Take one item and print it; whatever happens in between, the item is somewhere to be found."""
        item = NOTHING
        try:
            item = self._queue.get(timeout=timeout)
            self._taken += 1
            self._printer.write(self._printer.text(item))
        except DecodeError as error:
            self._taken += 1
            self._undecoded += 1
            complain_of(error, "it was taken")
        except BaseException:
            if item is not NOTHING:
                kept = _items.as_json(item).decode("utf-8")
                complain(f"stopped before this item of {self._queue.name!r} was printed, and it is taken: {kept}")
            raise


def _left(until: float | None, otherwise: float | None) -> float | None:
    """Return what is left of the time, in seconds, as a timeout."""
    return otherwise if until is None else timeout_of(max(0.0, until - monotonic()))
