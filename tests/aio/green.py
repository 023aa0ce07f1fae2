"""A program under gevent that says what it saw: ``python green.py early|late BACKEND NAME``.

The standard library is patched before ipcq is imported, or after that.
"""

import sys

if sys.argv[1] == "early":
    from gevent import monkey

    monkey.patch_all()

import ipcq

if sys.argv[1] == "late":
    from ipcq._opening import registry

    for _plugin in registry.plugins():  # their modules as well
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
    """Return what a call returns, or the name of what it raises."""
    try:
        return call(*arguments, **named)
    except Exception as error:
        return type(error).__name__


def blocked(queue: "ipcq.Queue[Any]") -> Facts:
    """A blocked get and a blocked put are served by other greenlets, which have to run for that."""

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
    """A blocked get and a blocked put keep their time."""

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
    """An unrelated program without gevent puts what a greenlet waits for, and takes what others cannot put."""
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
    """A greenlet that is killed or timed out has taken nothing."""
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
    """A real thread uses the handle beside the greenlets."""
    taking = gevent.get_hub().threadpool.spawn(queue.get, timeout=PATIENCE)
    gevent.sleep(0.05)
    queue.put("from a greenlet")
    return {"thread": taking.get(timeout=PATIENCE)}


def noticed(queue: "ipcq.Queue[Any]") -> Facts:
    """Asking for a notice holds nobody up."""
    if not queue.capabilities.notify:
        return {}
    told: list[bool] = []
    queue.notify(lambda: told.append(True))
    gevent.spawn_later(0.05, queue.put, "item")  # which nobody would do if what awaits the notice held others up
    until = time.monotonic() + PATIENCE
    while not told and time.monotonic() < until:
        time.sleep(0.01)
    queue.clear()
    return {"told": told}


def met(queue: "ipcq.Queue[Any]") -> Facts:
    """A newcomer gets in while no greenlet gives way."""
    if BACKEND == "memory":
        return {}
    script = "import sys, ipcq; ipcq.open(sys.argv[1], sys.argv[2], create=False).close()"
    run = monkey.get_original("os", "fork")()
    if not run:  # without gevent's own ways of waiting
        os.execv(sys.executable, [sys.executable, "-W", "error", "-c", script, NAME, BACKEND])
    _, status = monkey.get_original("os", "waitpid")(run, 0)
    return {"status": status}


def interrupted(queue: "ipcq.Queue[Any]") -> Facts:
    """What a signal handler raises comes out of the main greenlet's get."""

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
    """What a signal handler raises at any instant leaves nothing locked."""

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
            queue.get(timeout=0.001)  # short, as nothing is raised while gevent's hub waits

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

    # Whoever left a lock taken may take it again, and would not notice.
    return {
        "greenlet": gevent.spawn(use).get(timeout=PATIENCE / 2),
        "thread": gevent.get_hub().threadpool.spawn(use).get(timeout=PATIENCE / 2),
    }


def closed(queue: "ipcq.Queue[Any]") -> Facts:
    """A close in another greenlet ends a get, and so does one in a signal handler."""
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
    # Greenlets are no threads, and what serves newcomers has ended.
    facts["threads"]["left"] = [each.name for each in threading.enumerate() if "ipcq" in each.name]
    print(json.dumps(facts))


main()
