"""Getting and printing items, for `get` and ``tail --consume``."""

from time import monotonic
from typing import Any

import ipcq
from ipcq._cli import _items
from ipcq._cli._exits import Failure, complain
from ipcq._cli._options import timeout_of
from ipcq._cli._printer import Printer, report_undecodable
from ipcq.errors import DecodeError, QueueEmpty, QueueShutDown

NO_ITEM: Any = object()


class Taker:
    """Gets items, prints them, and counts both; with `latest` it gets the newest and drops the older ones."""

    def __init__(self, queue: ipcq.Queue[Any], printer: Printer, *, latest: bool = False) -> None:
        self._queue = queue
        self._get = queue.get_latest if latest else queue.get
        self._printer = printer
        self._taken = 0
        self._undecoded = 0

    def take(self, count: int, until: float | None) -> None:
        """Take `count` items."""
        while self._taken < count:
            try:
                self._take_one(_remaining(until, 0.0))
            except (QueueEmpty, QueueShutDown) as error:
                if count > 1:
                    error.add_note(f"got {self._taken} of {count} items")
                raise
        self._fail_if_undecoded()

    def drain(self, until: float | None) -> None:
        """Wait for one item, then take all items that are in the queue."""
        self._take_one(_remaining(until, 0.0))
        try:
            while True:
                self._take_one(0.0)
        except (QueueEmpty, QueueShutDown):
            self._fail_if_undecoded()

    def follow(self, until: float | None, count: int | None = None) -> None:
        """Take items as they arrive, until the deadline, the shutdown of the queue, or `count` items."""
        while count is None or self._taken < count:
            try:
                self._take_one(_remaining(until, None))
            except QueueShutDown:
                break
            except QueueEmpty:
                if not self._taken:
                    raise
                break
        self._fail_if_undecoded()

    def _fail_if_undecoded(self) -> None:
        if self._undecoded:
            raise Failure  # each one has been reported

    def _take_one(self, timeout: float | None) -> None:
        """Take one item and print it, on stderr if printing it on stdout fails."""
        item = NO_ITEM
        try:
            item = self._get(timeout=timeout)
            self._taken += 1
            self._printer.write(self._printer.text(item))
        except DecodeError as error:
            self._taken += 1
            self._undecoded += 1
            report_undecodable(error, "the message was taken")
        except BaseException:
            if item is not NO_ITEM:
                text = _items.as_json(item).decode("utf-8")
                complain(f"an item of {self._queue.name!r} was taken but not printed: {text}")
            raise


def _remaining(until: float | None, otherwise: float | None) -> float | None:
    """Return the remaining seconds as a timeout, or `otherwise` without a deadline."""
    return otherwise if until is None else timeout_of(max(0.0, until - monotonic()))
