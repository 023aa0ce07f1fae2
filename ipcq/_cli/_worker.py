"""One producer or consumer of ``ipcq demo``, in a process of its own, which knows the queue by its name alone.

It says when it is ready, waits for the word, says now and then how far it is, and at the end what it saw. It stays
until it is dismissed. Where the demo dies, `ipcq.testing.processes` ends the workers and removes the queue.
"""

import threading
from time import monotonic
from typing import Any

import ipcq
from ipcq.errors import DecodeError, QueueShutDown
from ipcq.testing.processes import hear, say
from ipcq.testing.tally import Tally

#: Seconds between two reports of how far a worker is.
BEAT = 0.1

#: What surrounds the payload in an object of the demo is smaller, in bytes.
OVERHEAD = 256

#: What tells a consumer that nothing more comes for it, where the queue cannot be shut down.
END = {"end": True}


class Payloads:
    """The objects that the demo moves: each one is determined by its producer and number, so that damage is seen."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._block = bytes(index * 131 & 0xFF for index in range(251)) * (size // 251 + 2)

    def make(self, producer: int, number: int) -> dict[str, Any]:
        """Make the object of that number."""
        start = (number * 31 + producer) % 251
        return {
            "producer": producer,
            "number": number,
            "text": f"Grüße no. {number} from producer {producer}",
            "payload": self._block[start : start + self._size],
        }


class Produce:
    """Puts objects with numbers from 0 on, until the time is over or all are in."""

    def __init__(self, queue: ipcq.Queue[Any], size: int, index: int, seconds: float, messages: int | None) -> None:
        self.count = 0
        self._queue = queue
        self._payloads = Payloads(size)
        self._index = index
        self._seconds = seconds
        self._messages = messages

    def run(self) -> dict[str, Any]:
        """Do it, and return what there is to report."""
        until = monotonic() + self._seconds
        while self.count != self._messages and monotonic() < until:
            self._queue.put(self._payloads.make(self._index, self.count))
            self.count += 1
        return {}


class Consume:
    """Takes objects until the queue is shut down and empty or `END` comes, and keeps a tally of them."""

    def __init__(self, queue: ipcq.Queue[Any], size: int) -> None:
        self.count = 0
        self._queue = queue
        self._payloads = Payloads(size)
        self._tally = Tally()

    def run(self) -> dict[str, Any]:
        """Do it, and return what there is to report."""
        last = monotonic()
        while True:
            try:
                item = self._queue.get()
            except QueueShutDown:
                break
            except DecodeError as error:
                item = error
            if item == END:
                break
            last = monotonic()
            self.count += 1
            self._enter(item)
        return {"seen": self._tally.report(), "last": last}

    def _enter(self, item: Any) -> None:
        try:
            producer, number = item["producer"], item["number"]
            if item != self._payloads.make(producer, number):
                raise ValueError("it is not what that producer puts under that number")
        except (TypeError, KeyError, ValueError):
            self._tally.torn(item)
        else:
            self._tally.took(producer, number)


def produce(name: str, backend: str, size: int, index: int, seconds: float, messages: int | None) -> None:
    """Be the producer of that index."""
    with ipcq.open(name, backend, create=False, read=False) as queue:
        work(Produce(queue, size, index, seconds, messages))


def consume(name: str, backend: str, size: int) -> None:
    """Be a consumer."""
    with ipcq.open(name, backend, create=False, write=False) as queue:
        work(Consume(queue, size))


def work(worker: Produce | Consume) -> None:
    """Talk with the demo, and let the worker run in between."""
    say({"ready": True})
    hear()
    done = threading.Event()
    beats = threading.Thread(target=_beat, args=(worker, done), daemon=True)
    beats.start()
    try:
        report = worker.run()
    finally:
        done.set()
        beats.join()
    say({"count": worker.count, "report": report})
    hear()


def _beat(worker: Produce | Consume, done: threading.Event) -> None:
    """Say how far the worker is, until it is done."""
    while not done.wait(BEAT):
        say({"count": worker.count})
