"""Programs that several tests run in other processes."""

import os
import signal
import time
from contextlib import suppress

import ipcq
from ipcq.testing.oracle import Tag
from ipcq.testing.processes import hear, say

SMALL = {"max_messages": 4, "max_message_size": 512}


def put_and_die(name: str, backend: str, producer: int) -> None:
    """Put one message and die by SIGKILL in the next statement."""
    queue = ipcq.open(name, backend, create=False)
    tag = Tag(producer, 0).message()
    queue.put(tag)
    os.kill(os.getpid(), signal.SIGKILL)


def hammer(name: str, backend: str) -> None:
    """Put and get one message in an endless loop, without waiting."""
    with ipcq.open(name, backend, create=False) as queue:
        say("ready")
        while True:
            with suppress(ipcq.TimedOutError):
                queue.put_nowait("item")
            with suppress(ipcq.TimedOutError):
                queue.get_nowait()


def wait_in(verb: str, name: str, backend: str, item: object = None) -> None:
    """Get or put once, without a timeout, and report the result and when it came."""
    with ipcq.open(name, backend, create=False) as queue:
        say("waiting")
        try:
            result = queue.get() if verb == "get" else queue.put(item)
            say(["returned", result, time.monotonic()])
        except ipcq.MessageQueueError as error:
            say(["raised", type(error).__name__, time.monotonic()])


def open_at(backend: str, exclusive: bool) -> None:
    """Open the queues that the test names, each at the instant that it gives, and report the result."""
    while True:
        order = hear()
        if order is None:
            return
        name, instant = order
        time.sleep(max(0.0, instant - time.monotonic()))  # a busy loop would take the processors from the others
        try:
            queue = ipcq.open(name, backend, exclusive=exclusive, **SMALL)
        except ipcq.MessageQueueError as error:
            say(type(error).__name__)
            continue
        say("opened")
        hear()
        queue.close()
        say("closed")
