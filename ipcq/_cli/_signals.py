"""What Ctrl-C, SIGTERM and SIGHUP do to a verb that has something to finish or to clean up."""

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import NoReturn

from ipcq._process.deadline import SLICE


def end_by(number: int) -> NoReturn:
    """End the verb as the signal would have."""
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Turn the first signal into an exception, and ignore what follows until all is cleaned up."""

    def stop(number: int, _: object) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        end_by(number)

    with _handled_by(stop) as handled:
        yield


def slices(seconds: float) -> Iterator[float]:
    """Yield how long to wait, again and again until the time is over.

    CPython runs a signal's handler between two instructions of Python. A signal that comes after the last of them and
    before the system call interrupts neither, and its handler waits until the call is over: Ctrl-C would take as long
    as the whole wait.
    """
    until = monotonic() + seconds
    while (left := until - monotonic()) > 0:
        yield min(left, SLICE)


def rest(seconds: float) -> None:
    """Sleep so that no signal has to wait for the end."""
    for each in slices(seconds):
        sleep(each)


class Stop:
    """The signals that came so far. They raise nothing where a message is under way, and are asked for in between."""

    def __init__(self) -> None:
        self.number = 0
        self.count = 0
        self._most: float = math.inf

    def note(self, number: int, _: object) -> None:
        """Take a signal."""
        self.number = number
        self.count += 1
        if self.count >= self._most:
            end_by(number)

    @contextmanager
    def raising(self, count: int) -> Iterator[None]:
        """Let the signal of that count raise, inside something that may take for ever."""
        self._most = count
        try:
            yield
        finally:
            self._most = math.inf


@contextmanager
def noted_signals() -> Iterator[Stop]:
    """Note signals instead of being ended by them."""
    stop = Stop()
    with _handled_by(stop.note):
        yield stop


@contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[list[int]]:
    # What nohup or a shell's & ignores stays ignored. Windows has no SIGHUP.
    signals = [getattr(signal, each, None) for each in ("SIGINT", "SIGTERM", "SIGHUP")]
    before = {each: signal.getsignal(each) for each in signals if each and signal.getsignal(each) != signal.SIG_IGN}
    for each in before:
        signal.signal(each, handler)
    try:
        yield list(before)
    finally:
        for each, handler_before in before.items():
            signal.signal(each, handler_before)
