"""Faulty contestants that the benchmark has to detect. Workers import them by name."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from ipcq._bench.contestant import ReadEnd, WriteEnd
from ipcq._bench.references import MultiprocessingQueue
from ipcq._bench.workload import Workload


class Liar(MultiprocessingQueue):
    """A queue that does something wrong at the third get; each method is one fault."""

    def __init__(self, fault: str) -> None:
        self.name = fault
        self._fault = fault

    def reader(self, address: Any, workload: Workload) -> ReadEnd:
        return ReadEnd(get=getattr(self, self._fault)(address.get))

    def loses(self, get: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: (self.third() and get(), get())[1]

    def doubles(self, get: Callable[[], Any]) -> Callable[[], Any]:
        kept: list[Any] = []

        def double() -> Any:
            if kept and self.third():
                return kept.pop()
            kept[:] = [get()]
            return kept[0]

        return double

    def swaps(self, get: Callable[[], Any]) -> Callable[[], Any]:
        kept: list[Any] = []

        def swap() -> Any:
            if self.third():
                kept.append(get())
                return get()
            return kept.pop() if kept else get()

        return swap

    def damages(self, get: Callable[[], Any]) -> Callable[[], Any]:
        def damage() -> Any:
            message = get()
            return message[:9] + b"!" + message[10:] if self.third() else message

        return damage

    def dies(self, get: Callable[[], Any]) -> Callable[[], Any]:
        def die() -> Any:
            if self.third():
                os.kill(os.getpid(), signal.SIGKILL)
            return get()

        return die

    def raises(self, get: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: 1 // (not self.third()) and get()

    def leaves(self, get: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: os._exit(0) if self.third() else get()

    def stalls(self, get: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: time.sleep(1000) if self.third() else get()

    def third(self) -> bool:
        """Return whether this is the third call."""
        self.calls = getattr(self, "calls", 0) + 1
        return self.calls == 3


class Stayer(MultiprocessingQueue):
    """A producer that does not exit when it is told to."""

    def writer(self, address: Any, workload: Workload) -> WriteEnd:
        return WriteEnd(put=address.put, finish=lambda: time.sleep(1000))


class Leaver(MultiprocessingQueue):
    """A producer that exits with an error."""

    def writer(self, address: Any, workload: Workload) -> WriteEnd:
        return WriteEnd(put=address.put, finish=lambda: os._exit(3))
