"""A program under gevent that prints what it observes: ``python green.py early|late BACKEND NAME``.

It patches the standard library before or after it imports ipcq.
"""

import sys

if sys.argv[1] == "early":
    from gevent import monkey

    monkey.patch_all()

import ipcq

if sys.argv[1] == "late":
    from ipcq._opening import registry

    for _plugin in registry.plugins():  # imports their modules as well
        assert _plugin
    from gevent import monkey

    monkey.patch_all()

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

import gevent

BACKEND, NAME = sys.argv[2:4]
LIMITS = {"max_messages": 4, "max_message_size": 512}
PATIENCE = 20

Facts = dict[str, Any]


def opened(name: str = NAME) -> "ipcq.Queue[Any]":
    return ipcq.open(name, BACKEND, **LIMITS)


def quiet(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return the result of a call, or the name of its exception."""
    try:
        return call(*arguments, **named)
    except Exception as error:
        return type(error).__name__


def blocked(queue: "ipcq.Queue[Any]") -> Facts:
    """Block in get and put until another greenlet serves them, for which it has to run."""

    def served(by: Callable[[], Any], call: Callable[..., Any], *arguments: Any) -> Any:
        gevent.spawn_later(0.05, by)
        return quiet(call, *arguments, timeout=PATIENCE)

    facts = {"get": served(lambda: queue.put("item"), queue.get)}
    for number in range(4):
        queue.put(number)
    facts |= {"put": served(queue.get, queue.put, 4), "put_many": served(queue.get, queue.put_many, [5])}
    queue.clear()
    return facts


def timed(queue: "ipcq.Queue[Any]") -> Facts:
    """Block in get and put until the timeout."""

    def during(call: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
        began = time.monotonic()
        return quiet(call, *arguments, timeout=0.3), time.monotonic() - began

    facts = {"get": during(queue.get)}
    for number in range(4):
        queue.put(number)
    facts |= {"put": during(queue.put, 4), "put_many": during(queue.put_many, [4, 5])}
    queue.clear()
    return facts


def apart(queue: "ipcq.Queue[Any]") -> Facts:
    """Share the queue with an unrelated program without gevent, which puts messages for waiting greenlets."""
    if BACKEND == "memory":
        return {}
    script = (
        "import sys, ipcq\n"
        "q = ipcq.open(sys.argv[1], sys.argv[2], create=False)\n"
        "for number in range(200): q.put(number)\n"
        "q.put(None)\n"
        "q.close()"
    )
    taken: list[int] = []

    def take() -> None:
        taken.extend(iter(lambda: queue.get(timeout=PATIENCE), None))
        queue.put(None)

    greenlets = [gevent.spawn(take) for _ in range(3)]
    program = subprocess.Popen([sys.executable, "-W", "error", "-c", script, NAME, BACKEND])
    gevent.joinall(greenlets, timeout=PATIENCE)
    code = program.wait(PATIENCE)
    return {"taken": sorted(taken), "code": code, "rest": queue.clear()}


def given_up(queue: "ipcq.Queue[Any]") -> Facts:
    """Kill a waiting greenlet and time another out; neither may take a message."""
    waiting = gevent.spawn(queue.get)
    gevent.sleep(0.05)
    waiting.kill()
    try:
        with gevent.Timeout(0.05):
            queue.get()
    except gevent.Timeout:
        queue.put("kept")
    return {"rest": quiet(queue.get, timeout=0)}


def threads(queue: "ipcq.Queue[Any]") -> Facts:
    """Use the handle in a native thread and in greenlets at the same time."""
    taking = gevent.get_hub().threadpool.spawn(queue.get, timeout=PATIENCE)
    gevent.sleep(0.05)
    queue.put("from a greenlet")
    return {"thread": taking.get(timeout=PATIENCE)}


def noticed(queue: "ipcq.Queue[Any]") -> Facts:
    """Request a notice, which must not block greenlets."""
    if not queue.capabilities.notify:
        return {}
    told: list[bool] = []
    queue.notify(lambda: told.append(True))
    gevent.spawn_later(0.05, queue.put, "item")  # it could not run if waiting for the notice blocked the thread
    until = time.monotonic() + PATIENCE
    while not told and time.monotonic() < until:
        time.sleep(0.01)
    queue.clear()
    return {"told": told}


def met(queue: "ipcq.Queue[Any]") -> Facts:
    """Let another process attach while no greenlet switches."""
    if BACKEND == "memory":
        return {}
    script = "import sys, ipcq; ipcq.open(sys.argv[1], sys.argv[2], create=False).close()"
    run = monkey.get_original("os", "fork")()
    if not run:  # without the functions that gevent has patched
        os.execv(sys.executable, [sys.executable, "-W", "error", "-c", script, NAME, BACKEND])
    _, status = monkey.get_original("os", "waitpid")(run, 0)
    return {"status": status}


def interrupted(queue: "ipcq.Queue[Any]") -> Facts:
    """Raise in a signal handler during a get of the main greenlet."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        outcome = quiet(queue.get, timeout=PATIENCE)
    except KeyboardInterrupt:
        outcome = "KeyboardInterrupt"
    signal.signal(signal.SIGALRM, before)
    return {"outcome": outcome}


def struck(queue: "ipcq.Queue[Any]") -> Facts:
    """Raise in a signal handler at arbitrary instants, which must leave no lock taken."""

    class Struck(Exception):
        pass

    def strike(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            if frame.f_code is work.__code__:
                raise Struck
            frame = frame.f_back

    def work() -> None:
        while True:
            with suppress(ipcq.QueueFull):
                queue.put_nowait("item")
            queue.get(timeout=0.001)  # short, because nothing is raised while gevent's hub waits

    raised = 0
    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0003)
    while raised < 600:
        try:
            work()
        except Struck:
            raised += 1
        except ipcq.QueueEmpty:
            pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    queue.clear()

    def use() -> Any:
        queue.put("after")
        return queue.get(timeout=PATIENCE)

    # The greenlet that left a lock taken could take it again, so others have to try.
    return {
        "greenlet": gevent.spawn(use).get(timeout=PATIENCE / 2),
        "thread": gevent.get_hub().threadpool.spawn(use).get(timeout=PATIENCE / 2),
    }


def closed(queue: "ipcq.Queue[Any]") -> Facts:
    """Close the handle during a get, in another greenlet and in a signal handler."""
    waiting = gevent.spawn(quiet, queue.get)
    gevent.sleep(0.05)
    queue.close()
    first = waiting.get(timeout=PATIENCE)
    again = opened()
    waiting = gevent.spawn(quiet, again.get)
    before = signal.signal(signal.SIGALRM, lambda number, frame: again.close())
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    second = waiting.get(timeout=PATIENCE)
    signal.signal(signal.SIGALRM, before)
    again.close()
    return {"by a greenlet": first, "by a handler": second}


def main() -> None:
    with opened() as queue:
        try:
            facts = {
                case.__name__: case(queue)
                for case in (blocked, timed, apart, given_up, threads, noticed, met, interrupted, struck, closed)
            }
        finally:
            with suppress(ipcq.QueueNotFound):
                ipcq.unlink(NAME, BACKEND)
    # Greenlets are not threads, and the thread that serves attaching processes has ended.
    facts["threads"]["left"] = [each.name for each in threading.enumerate() if "ipcq" in each.name]
    print(json.dumps(facts))


main()
