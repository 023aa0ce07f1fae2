"""A producer or consumer process of ``ipcq demo``. It is given only the name of the queue.

A worker reports that it is ready, waits for the start signal, reports its progress regularly and its result at the end,
and then waits until it may exit. If the demo dies, `ipcq.testing.processes` ends the workers and removes the queue.
"""

import threading
from time import monotonic
from typing import Any

import ipcq
from ipcq.errors import DecodeError, QueueShutDown
from ipcq.testing.processes import hear, say
from ipcq.testing.tally import Tally

REPORT_SECONDS = 0.1

#: Upper bound for everything in an object but its payload.
OVERHEAD_BYTES = 256

#: Item that ends a consumer, on backends without shutdown.
END_MARKER = {"end": True}


class Payloads:
    """The objects of the demo. Producer and number determine each object, so damage is detected."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._block = bytes(index * 131 & 0xFF for index in range(251)) * (size // 251 + 2)

    def make(self, producer: int, number: int) -> dict[str, Any]:
        """Return the object with this number."""
        start = (number * 31 + producer) % 251
        return {
            "producer": producer,
            "number": number,
            "text": f"Grüße no. {number} from producer {producer}",
            "payload": self._block[start : start + self._size],
        }


class Producer:
    """Puts objects numbered from 0, until the time is over or all are put."""

    def __init__(self, queue: ipcq.Queue[Any], size: int, index: int, seconds: float, messages: int | None) -> None:
        self.count = 0
        self._queue = queue
        self._payloads = Payloads(size)
        self._index = index
        self._seconds = seconds
        self._messages = messages

    def run(self) -> dict[str, Any]:
        """Put the objects, and return the report."""
        until = monotonic() + self._seconds
        while self.count != self._messages and monotonic() < until:
            self._queue.put(self._payloads.make(self._index, self.count))
            self.count += 1
        return {}


class Consumer:
    """Gets and tallies objects, until the queue is shut down and empty or `END_MARKER` arrives."""

    def __init__(self, queue: ipcq.Queue[Any], size: int) -> None:
        self.count = 0
        self._queue = queue
        self._payloads = Payloads(size)
        self._tally = Tally()

    def run(self) -> dict[str, Any]:
        """Get the objects, and return the report."""
        last = monotonic()
        while True:
            try:
                item = self._queue.get()
            except QueueShutDown:
                break
            except DecodeError as error:
                item = error
            if item == END_MARKER:
                break
            last = monotonic()
            self.count += 1
            self._tally_item(item)
        return {"seen": self._tally.report(), "last": last}

    def _tally_item(self, item: Any) -> None:
        try:
            producer, number = item["producer"], item["number"]
            if item != self._payloads.make(producer, number):
                raise ValueError("not the object of that producer and number")
        except (TypeError, KeyError, ValueError):
            self._tally.torn(item)
        else:
            self._tally.took(producer, number)


def produce(name: str, backend: str, size: int, index: int, seconds: float, messages: int | None) -> None:
    """Run as the producer with this index."""
    with ipcq.open(name, backend, create=False, read=False) as queue:
        work(Producer(queue, size, index, seconds, messages))


def consume(name: str, backend: str, size: int) -> None:
    """Run as a consumer."""
    with ipcq.open(name, backend, create=False, write=False) as queue:
        work(Consumer(queue, size))


def work(worker: Producer | Consumer) -> None:
    """Run the worker, and exchange messages with the demo before and after."""
    say({"ready": True})
    hear()
    done = threading.Event()
    reporter = threading.Thread(target=_report_progress, args=(worker, done), daemon=True)
    reporter.start()
    try:
        report = worker.run()
    finally:
        done.set()
        reporter.join()
    say({"count": worker.count, "report": report})
    hear()


def _report_progress(worker: Producer | Consumer, done: threading.Event) -> None:
    """Report progress until the worker is done."""
    while not done.wait(REPORT_SECONDS):
        say({"count": worker.count})
