"""Handling of Ctrl-C, SIGTERM and SIGHUP in verbs that must finish or clean up."""

import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import NoReturn

from ipcq._process.deadline import SLICE


def raise_for_signal(number: int) -> NoReturn:
    """Raise the exception that ends the verb as the signal would."""
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Turn the first signal into an exception, and ignore further signals until cleanup is done."""

    def stop(number: int, _: object) -> None:
        for each in handled:
            signal.signal(each, signal.SIG_IGN)
        raise_for_signal(number)

    with _handlers_replaced(stop) as handled:
        yield


def slices(seconds: float) -> Iterator[float]:
    """Split a wait into slices, and yield the length of each until the time is over.

    CPython runs a signal handler between two bytecode instructions. A signal that arrives after the last instruction
    and before the system call interrupts neither. Its handler runs only after the call returns, so without slices
    Ctrl-C could take as long as the whole wait.
    """
    until = monotonic() + seconds
    while (left := until - monotonic()) > 0:
        yield min(left, SLICE)


def sleep_in_slices(seconds: float) -> None:
    """Sleep in slices, so that a signal is handled promptly."""
    for each in slices(seconds):
        sleep(each)


class Stop:
    """The signals received so far. They do not raise while a message is in transit; verbs poll them in between."""

    def __init__(self) -> None:
        self.number = 0
        self.count = 0
        self._raise_from: float = math.inf

    def note(self, number: int, _: object) -> None:
        """Record a signal."""
        self.number = number
        self.count += 1
        if self.count >= self._raise_from:
            raise_for_signal(number)

    @contextmanager
    def raising(self, count: int) -> Iterator[None]:
        """Let the signal with this count, and later ones, raise in a call that may block indefinitely."""
        self._raise_from = count
        try:
            yield
        finally:
            self._raise_from = math.inf


@contextmanager
def record_signals() -> Iterator[Stop]:
    """Record signals instead of ending."""
    stop = Stop()
    with _handlers_replaced(stop.note):
        yield stop


@contextmanager
def _handlers_replaced(handler: Callable[[int, object], None]) -> Iterator[list[int]]:
    # Signals ignored by nohup or a shell's & stay ignored. Windows has no SIGHUP.
    signals = [getattr(signal, each, None) for each in ("SIGINT", "SIGTERM", "SIGHUP")]
    before = {each: signal.getsignal(each) for each in signals if each and signal.getsignal(each) != signal.SIG_IGN}
    for each in before:
        signal.signal(each, handler)
    try:
        yield list(before)
    finally:
        for each, handler_before in before.items():
            signal.signal(each, handler_before)
