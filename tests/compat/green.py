"""A program in the style of baseplate under gevent that prints what it observes: ``python green.py NAME``.

Programs of baseplate run in this way: everything is patched first, and greenlets use `MessageQueue`.
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
    """Return the result of a call, or the name of its exception."""
    try:
        return call(*arguments, **named)
    except Exception as error:
        return type(error).__name__


def served(queue: baseplate.MessageQueue) -> Facts:
    """Wait in baseplate's and in posix_ipc's calls until another greenlet serves them, for which it has to run."""
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
    """Kill a waiting greenlet and time another out; neither may take a message."""
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
    """Close the queue during a get of another greenlet."""
    queue = baseplate.MessageQueue(NAME, 2, 16)
    waiting = gevent.spawn(outcome, queue.get)
    gevent.sleep(0.05)
    queue.close()
    return waiting.get(timeout=PATIENCE)


def main() -> None:
    with baseplate.MessageQueue(NAME, 2, 16) as queue:
        told(served=served(queue), given_up=given_up(queue), closed=closed())
        # From here on, other programs put and take.
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
