"""The hidden verb ``demo-worker``: one producer or consumer of ``ipcq demo``, in a process of its own.

It knows the queue by its name alone, as a stranger would. With the demo it speaks lines of JSON: it says on stdout when
it is ready, how far it is, and at the end what it saw. A byte on stdin starts it, and another one at the end dismisses
it. That stdin ends instead means that the demo died, and then nobody else would remove the queue: the worker does, and
goes.
"""

import errno
import json
import os
import select
import threading
from base64 import b64encode
from time import monotonic
from typing import Any

import click

import ipcq
from ipcq.errors import DecodeError, MessageQueueError, QueueShutDown

#: Seconds between two reports of how far a worker is.
BEAT = 0.1

#: What surrounds the payload in an object of the demo is smaller, in bytes.
OVERHEAD = 256

#: What tells a consumer that nothing more comes for it, where the queue cannot be shut down.
END = {"end": True}

INLET, OUTLET = 0, 1


class Goods:
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

    def __init__(self, queue: ipcq.Queue[Any], goods: Goods, index: int, seconds: float, messages: int | None) -> None:
        self.count = 0
        self._queue = queue
        self._goods = goods
        self._index = index
        self._seconds = seconds
        self._messages = messages

    def run(self) -> dict[str, Any]:
        """Do it, and return what there is to report."""
        until = monotonic() + self._seconds
        while self.count != self._messages and monotonic() < until:
            self._queue.put(self._goods.make(self._index, self.count))
            self.count += 1
        return {}


class Consume:
    """Takes objects until the queue is shut down and empty or `END` comes, and keeps book: a bit for each object."""

    def __init__(self, queue: ipcq.Queue[Any], goods: Goods, producers: int) -> None:
        self.count = 0
        self._queue = queue
        self._goods = goods
        self._seen = [bytearray() for _ in range(producers)]
        self._last = [-1] * producers
        self._wrong = dict.fromkeys(("damaged", "repeated", "reordered"), 0)

    def run(self) -> dict[str, Any]:
        """Do it, and return what there is to report."""
        last = monotonic()
        while True:
            try:
                item = self._queue.get()
            except QueueShutDown:
                break
            except DecodeError:
                item = None
            if item == END:
                break
            last = monotonic()
            self.count += 1
            if fault := self._enter(item):
                self._wrong[fault] += 1
        seen = [b64encode(bits).decode("ascii") for bits in self._seen]
        return {**self._wrong, "seen": seen, "last": last}

    def _enter(self, item: Any) -> str:
        """Enter one object into the book, and return what is wrong with it, if anything."""
        try:
            producer, number = item["producer"], item["number"]
            bits = self._seen[producer]
            if number < 0 or item != self._goods.make(producer, number):
                return "damaged"
        except (TypeError, KeyError, IndexError):
            return "damaged"
        if number >> 3 >= len(bits):
            bits.extend(bytes((number >> 3) + 4096 - len(bits)))
        mask = 1 << (number & 7)
        if bits[number >> 3] & mask:
            return "repeated"
        bits[number >> 3] |= mask
        if number < self._last[producer]:
            return "reordered"
        self._last[producer] = number
        return ""


@click.command("demo-worker", hidden=True)
@click.argument("name")
@click.argument("backend")
@click.argument("size", type=int)
@click.option("--produce", "index", type=int, help="Be the producer of this number.")
@click.option("--consume", "producers", type=int, help="Be a consumer of that many producers.")
@click.option("--seconds", type=float, default=float("inf"))
@click.option("--messages", type=int)
def command(
    name: str,
    backend: str,
    size: int,
    index: int | None,
    producers: int | None,
    seconds: float,
    messages: int | None,
) -> None:
    """Be one producer or consumer of ``ipcq demo``, which starts this verb; it is of no use alone."""
    with ipcq.open(name, backend, create=False, read=index is None, write=index is not None) as queue:
        goods = Goods(size)
        if index is not None:
            work(queue, Produce(queue, goods, index, seconds, messages))
        else:
            work(queue, Consume(queue, goods, producers or 0))


def work(queue: ipcq.Queue[Any], worker: Produce | Consume) -> None:
    """Talk with the demo, and let the worker run in between."""
    try:
        tell({"ready": queue.backend})
        hear()
        done = threading.Event()
        watch = threading.Thread(target=_watch, args=(queue, worker, done), daemon=True)
        watch.start()
        try:
            report = worker.run()
        finally:
            done.set()
            watch.join()
        tell({"count": worker.count, "report": report})
        hear()
    except BrokenPipeError:
        abandon(queue)
        raise


def tell(news: dict[str, Any]) -> None:
    """Send one line to the demo, at once and whole.

    Raises:
        BrokenPipeError: The demo is dead.
    """
    line = memoryview(json.dumps(news).encode() + b"\n")
    while line:
        line = line[os.write(OUTLET, line) :]


def hear() -> None:
    """Wait for the demo's word.

    Raises:
        BrokenPipeError: The demo is dead.
    """
    if not os.read(INLET, 1):
        raise BrokenPipeError(errno.EPIPE, "the demo died")


def _watch(queue: ipcq.Queue[Any], worker: Produce | Consume, done: threading.Event) -> None:
    """Report how far the worker is, and end it when the demo has died."""
    while not done.is_set():
        readable, _, _ = select.select([INLET], [], [], BEAT)
        try:
            if readable:
                # The demo says nothing at this time, so this is the end of stdin.
                hear()
            tell({"count": worker.count})
        except BrokenPipeError:
            abandon(queue)
            return


def abandon(queue: ipcq.Queue[Any]) -> None:
    """Do what the demo cannot do any more: remove the queue, and end the call that waits in this handle."""
    try:
        queue.unlink()
    except MessageQueueError:
        pass  # another worker did it, and this handle may be closed
    queue.close()
