"""A program under gevent that uses queues of objects, and prints: ``python green_queues.py early|late KIND``.

It patches the standard library before or after it imports the compatibility modules.
"""

import sys

if sys.argv[1] == "early":
    from gevent import monkey

    monkey.patch_all()

from ipcq.compat import faster_fifo, shmqueue
from ipcq.compat import multiprocessing as mp

if sys.argv[1] == "late":
    from gevent import monkey

    monkey.patch_all()

import json
import queue
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import gevent

from ipcq.testing.processes import fresh_name

PATIENCE = 20
#: A message that fills a small queue soon.
LARGE = bytes(3000)
#: A message that does not fit into the ring of a queue for any size.
LARGEST = bytes(100_000)

Facts = dict[str, Any]

QUEUES: dict[str, Callable[[], Any]] = {
    "Queue": mp.Queue,
    "bounded Queue": lambda: mp.Queue(3),
    "JoinableQueue": mp.JoinableQueue,
    "SimpleQueue": mp.SimpleQueue,
    "faster_fifo": lambda: faster_fifo.Queue(max_size_bytes=10_000),
    "shmqueue": lambda: shmqueue.ShmQueue(fresh_name()[1:], buffer_size=10_000, allow_pickle=False),
}


def blocked_get(q: Any) -> Facts:
    """Wait in a get until another greenlet serves it."""
    gevent.spawn_later(0.05, q.put, b"item")
    began = time.monotonic()
    return {"got": q.get() == b"item", "in time": time.monotonic() - began < PATIENCE / 2}


def blocked_put(q: Any) -> Facts:
    """Wait in puts until another greenlet serves them; none of these queues holds 100 large messages."""
    taken: list[bool] = []

    def take() -> None:
        while len(taken) < 100:
            taken.append(q.get() == LARGE)

    taker = gevent.spawn_later(0.05, take)
    for _ in range(100):
        q.put(LARGE, timeout=PATIENCE)
    taker.join(PATIENCE)
    return {"taken": sum(taken)}


def joined(q: Any) -> Facts:
    """Wait in a join until another greenlet serves it."""
    q.put(b"work")
    q.get()
    gevent.spawn_later(0.05, q.task_done)
    q.join()
    return {"joined": True}


def given_up(q: Any) -> Facts:
    """Kill a waiting greenlet and time another out; neither may take a message."""
    waiting = gevent.spawn(q.get)
    gevent.sleep(0.05)
    waiting.kill()
    try:
        with gevent.Timeout(0.05):
            q.get()
    except gevent.Timeout:
        q.put(b"kept")
    return {"rest": q.get() == b"kept"}


def struck(q: Any) -> Facts:
    """Raise in a signal handler at arbitrary instants, which must leave no lock taken."""

    class Struck(Exception):
        pass

    def strike(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code is work.__code__:
                raise Struck
            frame = frame.f_back

    item = LARGEST if isinstance(q, mp.Queue) else LARGE

    def work() -> None:
        while True:
            # An interrupted put may leave its item. If the full queue were not drained, this would wait forever in
            # gevent's hub, where nothing is raised.
            with suppress(queue.Full):
                q.put(item, timeout=0.001)
            with suppress(queue.Empty):
                q.get(timeout=0.001)

    raised = 0
    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0003)
    while raised < 600:
        try:
            work()
        except Struck:
            raised += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    with suppress(queue.Empty):
        while True:
            q.get(timeout=0.1)
    return {"greenlet": whole(gevent.spawn, q), "thread": whole(gevent.get_hub().threadpool.spawn, q)}


def whole(spawn: Callable[..., Any], q: Any) -> bool:
    """Return whether others can use the queue: the greenlet that left a lock taken could take it again."""

    def use() -> bool:
        q.put(b"after")
        return bool(q.get(timeout=PATIENCE) == b"after")

    try:
        return bool(spawn(use).get(timeout=PATIENCE / 2))
    except gevent.Timeout:
        return False


def cases(kind: str) -> list[Callable[[Any], Facts]]:
    chosen = [joined] if kind == "JoinableQueue" else []
    chosen += [blocked_get, given_up]
    if kind in {"bounded Queue", "faster_fifo", "shmqueue"}:
        chosen.append(blocked_put)
    if kind != "SimpleQueue":  # it has no timeouts
        chosen.append(struck)
    return chosen


def main(kind: str) -> None:
    q = QUEUES[kind]()
    try:
        print(json.dumps({case.__name__: case(q) for case in cases(kind)}))
    finally:
        end = q.shutdown if kind == "shmqueue" else q.close
        end()


main(sys.argv[2])
