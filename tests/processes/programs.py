"""What the processes under test run, beside what a single test needs."""

import os
import random
import signal
import time
from collections.abc import Sequence

import ipcq
from ipcq.testing.oracle import Ledger, Tag
from ipcq.testing.processes import hear, say

SMALL = {"max_messages": 4, "max_message_size": 512}

#: Seconds within which a survivor has to go on, ten times what CONTRACT C15 says.
GOES_ON = 10.0


#: Bytes of messages; some of these are drawn more often.
SIZES = (0, 0, 0, 64, 500)


def produce(
    name: str,
    backend: str,
    producer: int,
    ledger: str,
    count: int | None = None,
    *,
    sizes_of: Sequence[int] = SIZES,
    batch: int = 1,
) -> None:
    """Put numbered messages of many sizes, for ever or so many, with each entered before and after."""
    book = Ledger(ledger)
    sizes = random.Random(producer)
    number = 0
    with ipcq.open(name, backend, create=False) as queue:
        say("ready")
        while count is None or number < count:
            tags = [Tag(producer, number + which) for which in range(batch)]
            messages = [tag.message(sizes.choice(sizes_of)) for tag in tags]
            for tag in tags:
                book.intend(tag)
            stored = 0
            try:
                if batch == 1:
                    queue.put(messages[0], timeout=GOES_ON)
                    stored = 1
                else:
                    stored = queue.put_many(messages, timeout=GOES_ON)
            except BaseException as error:
                book.refused(tags[0], error)
                raise
            for tag in tags[:stored]:
                book.accepted(tag)
            for tag in tags[stored:]:
                book.refused(tag, ipcq.QueueFull())
            number += batch
    say("done")


def consume(name: str, backend: str, ledger: str, *, look: bool = False, batch: int = 1) -> None:
    """Take messages until the queue is shut down, with each entered; with `look`, now and then without waiting."""
    book = Ledger(ledger)
    turns = 0
    with ipcq.open(name, backend, create=False) as queue:
        say("ready")
        while True:
            turns += 1
            since = time.monotonic_ns()
            try:
                if batch > 1:
                    messages = queue.get_many(batch, timeout=GOES_ON)
                else:
                    messages = [queue.get(block=False) if look and turns % 4 == 0 else queue.get(timeout=GOES_ON)]
            except ipcq.QueueShutDown:
                break
            except ipcq.QueueEmpty:
                if not look or turns % 4:
                    raise
                book.empty(since)
                continue
            for message in messages:
                try:
                    book.took(Tag.of(message), since)
                except ValueError:
                    book.torn(message)
    say("done")


def put_and_die(name: str, backend: str, producer: int) -> None:
    """Put one message and die by SIGKILL as the next statement."""
    queue = ipcq.open(name, backend, create=False)
    tag = Tag(producer, 0).message()
    queue.put(tag)
    os.kill(os.getpid(), signal.SIGKILL)


def wait_in(verb: str, name: str, backend: str, item: object = None) -> None:
    """Get or put once, without a time limit, and say what came of it and when."""
    with ipcq.open(name, backend, create=False) as queue:
        say("waiting")
        try:
            result = queue.get() if verb == "get" else queue.put(item)
            say(["returned", result, time.monotonic()])
        except ipcq.MessageQueueError as error:
            say(["raised", type(error).__name__, time.monotonic()])


def open_at(backend: str, exclusive: bool) -> None:
    """Open the queues that the test names, each at the instant that it gives, and say how that went."""
    while True:
        order = hear()
        if order is None:
            return
        name, instant = order
        while time.monotonic() < instant:
            pass
        try:
            queue = ipcq.open(name, backend, exclusive=exclusive, **SMALL)
        except ipcq.MessageQueueError as error:
            say(type(error).__name__)
            continue
        say("opened")
        hear()
        queue.close()
        say("closed")
