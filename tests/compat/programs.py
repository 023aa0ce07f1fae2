"""Programs for other processes in the tests of the compatibility modules."""

import os
import signal
import warnings
from typing import Any

from ipcq.compat.shmqueue import ShmQueue
from ipcq.testing.processes import hear, say


def opened(name: str, **options: Any) -> ShmQueue:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning that it reads pickles
        return ShmQueue(name, **options)


def hold(name: str) -> None:
    """Keep the queue open until the parent writes."""
    queue = opened(name)
    say(queue.qsize())
    hear()


def put_one(name: str, item: Any) -> None:
    queue = opened(name)
    queue.put(item)
    say("put")
    hear()
    queue.shutdown()


def put_forever(name: str) -> None:
    queue = opened(name)
    say("putting")
    while True:
        queue.put(b"x" * 100)


def leave_with_the_interpreter(name: str) -> None:
    """Exit without closing the queue."""
    opened(name, allow_pickle=False).put("left")


def end_by_signal(name: str, number: int) -> None:
    queue = opened(name)
    queue.set_console_handlers()
    os.kill(os.getpid(), number)
    say("still here")
    hear()


def put_in_a_child(name: str) -> None:
    """Use an inherited handle in a forked child."""
    queue = opened(name)
    child = os.fork()
    if child == 0:
        queue.put(["from the child", queue.refs])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    say([queue.get(timeout=10), queue.refs])
