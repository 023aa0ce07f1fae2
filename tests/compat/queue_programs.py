"""Programs for other processes in the tests of nameless queues."""

import os
import pickle
import signal
import sys
from multiprocessing.connection import wait
from typing import Any

from ipcq.compat import multiprocessing


def put_all(queue: Any, items: list[Any]) -> None:
    for item in items:
        queue.put(item)


def put_much(queue: Any, count: int, size: int) -> None:
    for number in range(count):
        queue.put((number, bytes(size)))


def pass_on(source: Any, target: Any) -> None:
    target.put(source.get())


def put_and_die(queue: Any, item: Any) -> None:
    queue.put(item)
    os.kill(os.getpid(), signal.SIGKILL)


def get_and_die(queue: Any, told: Any) -> None:
    """Take an item and die before `task_done`."""
    told.put(queue.get())
    os.kill(os.getpid(), signal.SIGKILL)


def work(queue: Any) -> None:
    """Process items until None."""
    while queue.get() is not None:
        queue.task_done()
    queue.task_done()


def answer_through(queue: Any) -> None:
    """Put into a queue that arrives through a queue."""
    queue.get().put("answer")


def wait_for_one(queue: Any, told: Any) -> None:
    told.put("waiting")
    ready = wait([queue._reader], 20)
    told.put((ready == [queue._reader], queue.get_nowait()))


def put_and_get_forever(queue: Any) -> None:
    while True:
        queue.put(("anybody", bytes(5000)))
        queue.get()


def produce(queue: Any, producer: int, count: int) -> None:
    """Put numbered messages, some of them too large for a small ring."""
    for number in range(count):
        queue.put((producer, number, bytes(3000 if number % 7 == 0 else 50)))


def consume(queue: Any, ledger: str) -> None:
    """Write items into a ledger until None."""
    end = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while (item := queue.get()) is not None:
        os.write(end, b"%d %d\n" % item[:2])


def leave_a_child_behind(path: str, method: str) -> None:
    """Start a process with a queue that no other process has, and die before that process can attach to it."""
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    queue.put("left")
    context.Process(target=write_down, args=(queue, path)).start()
    os.kill(os.getpid(), signal.SIGKILL)


def write_down(queue: Any, path: str) -> None:
    item = queue.get(timeout=20)
    with open(f"{path}.new", "w", encoding="ascii") as file:
        file.write(item)
    os.rename(f"{path}.new", path)


def be_interrupted(queue: Any, told: Any) -> None:
    """Be interrupted a thousand times inside the queue, report that, and stay."""

    def interrupt(*_: object) -> None:
        raise InterruptedError

    signal.signal(signal.SIGALRM, interrupt)
    interruptions = 0
    while interruptions < 1000:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0001 + interruptions * 1e-6)
            while True:
                put_much(queue, 3, 5000)
                queue.get(timeout=20)
        except InterruptedError:
            interruptions += 1
    told.put(interruptions)
    signal.pause()


def refuse_to_pickle() -> None:
    raise pickle.PicklingError("it does not want to")


class Unwilling:
    """An object that cannot be pickled."""

    def __reduce__(self) -> Any:
        return refuse_to_pickle()


def refuse_to_load() -> Any:
    raise ValueError("on purpose")


class Unloadable:
    """An object that can be pickled but not loaded."""

    def __reduce__(self) -> Any:
        return refuse_to_load, ()


class Point:
    """An object for whose class a reducer is registered."""

    def __init__(self, x: int) -> None:
        self.x = x


class Putting:
    """An object that puts another while it is pickled."""

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def __reduce__(self) -> Any:
        self.queue.put("inner")
        return str, ("outer",)


if __name__ == "__main__":
    leave_a_child_behind(*sys.argv[1:])
