"""A program of baseplate's kind under gevent that says what it saw: ``python green.py NAME``.

baseplate's own programs are served so: everything patched first, and `MessageQueue` used by greenlets.
"""

from gevent import monkey

monkey.patch_all()

import json
import sys
from collections.abc import Callable
from typing import Any

import gevent

from ipcq.compat import baseplate, posix_ipc

NAME = sys.argv[1]
PATIENCE = 20

Facts = dict[str, Any]


def told(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def outcome(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return what a call returns, or the name of what it raises."""
    try:
        return call(*arguments, **named)
    except Exception as error:
        return type(error).__name__


def served(queue: baseplate.MessageQueue) -> Facts:
    """What waits, here or in the face below, is served by another greenlet, which has to run for that."""
    facts: Facts = {}
    with posix_ipc.MessageQueue(NAME) as below:
        for verb, take in {"get": queue.get, "receive": lambda timeout: below.receive(timeout)[0]}.items():
            gevent.spawn_later(0.05, queue.put, verb)
            facts[verb] = outcome(lambda take=take: take(timeout=PATIENCE).decode())
        queue.put("1")
        queue.put("2")
        for verb, put in {"put": queue.put, "send": below.send}.items():
            gevent.spawn_later(0.05, queue.get)
            facts[verb] = outcome(put, verb, timeout=PATIENCE)
    return facts | {"rest": [queue.get(0).decode(), queue.get(0).decode()]}


def given_up(queue: baseplate.MessageQueue) -> Facts:
    """A greenlet that is killed or timed out has taken nothing."""
    waiting = gevent.spawn(queue.get)
    gevent.sleep(0.05)
    waiting.kill()
    facts = {"own": outcome(queue.get, timeout=0.05)}
    try:
        with gevent.Timeout(0.05):
            queue.get()
    except gevent.Timeout:
        queue.put("kept")
    return facts | {"rest": queue.get(0).decode()}


def closed() -> Any:
    """A close in another greenlet ends a get."""
    queue = baseplate.MessageQueue(NAME, 2, 16)
    waiting = gevent.spawn(outcome, queue.get)
    gevent.sleep(0.05)
    queue.close()
    return waiting.get(timeout=PATIENCE)


def main() -> None:
    with baseplate.MessageQueue(NAME, 2, 16) as queue:
        told(served=served(queue), given_up=given_up(queue), closed=closed())
        # Others put and take from here on.
        taken: list[str] = []

        def take() -> None:
            taken.extend(iter(lambda: queue.get(timeout=PATIENCE).decode(), "end"))
            queue.put("end")

        takers = [gevent.spawn(take) for _ in range(3)]
        gevent.joinall(takers, timeout=PATIENCE)
        queue.get(0)
        told(taken=sorted(taken, key=int))
        putters = [gevent.spawn(queue.put, str(number), timeout=PATIENCE) for number in range(40)]
        gevent.joinall(putters, timeout=PATIENCE, raise_error=True)


main()
