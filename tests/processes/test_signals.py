"""C12: signals end waits when their handlers raise, and change nothing when they return."""

import os
import signal
import time
from typing import Any

import pytest

import ipcq
from ipcq._namelock import name_lock
from ipcq.testing.oracle import Ledger, Tag
from ipcq.testing.processes import Peers, hear, say, until
from ipcq.testing.workers import attached, consume
from processes.programs import SMALL

ROUNDS = 20
SOON = 1.0
"""Ten times the 100 ms of the clause."""

RAISED = {"SIGINT": "KeyboardInterrupt", "SIGTERM": "SystemExit", "SIGALRM": "Custom"}


class Custom(Exception):
    """What no library knows."""


def leave(number: int, frame: object) -> None:
    """Handle SIGTERM as servers do."""
    raise SystemExit(3)


def custom(number: int, frame: object) -> None:
    """Handle SIGALRM with an exception of the user's own."""
    raise Custom


def wait_interrupted(verb: str, name: str, backend: str) -> None:
    """Wait in one verb again and again, say what came out of each wait and when, and at last use the handle."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGALRM, custom)
    queue = ipcq.open(name, backend, create=False)
    while hear() == "again":
        try:
            say("waiting")
            if verb == "open":
                ipcq.open(f"{name}-other", backend, open_timeout=None, **SMALL).close()
            elif verb == "get":
                queue.get()
            else:
                queue.put("one too many")
            say(["returned", time.monotonic()])
        except BaseException as error:
            say([type(error).__name__, time.monotonic()])
    if verb == "get":
        say(queue.get(timeout=10))
    elif verb == "put":
        say([queue.get(timeout=10) for _ in range(4)])


@pytest.mark.parametrize("verb", ["get", "put", "open"])
def test_an_exception_out_of_a_handler_ends_a_wait_at_once(
    verb: str, name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C12: KeyboardInterrupt, SystemExit and a user's exception leave get, put and the wait in open unchanged."""
    items = [0, 1, 2, 3] if verb == "put" else []
    queue.put_many(items)
    waiter = peers.spawn(wait_interrupted, verb, name, backend)
    with name_lock(f"{name}-other", float("inf")):
        latest = 0.0
        for _ in range(ROUNDS):
            for number, expected in RAISED.items():
                waiter.say("again")
                assert waiter.hear() == "waiting"
                until(waiter.asleep)
                time.sleep(peers.random.uniform(0, 0.01))
                sent = time.monotonic()
                waiter.send(getattr(signal, number))
                raised, instant = waiter.hear()
                assert raised == expected
                latest = max(latest, instant - sent)
    waiter.say("enough")
    print(f"{backend} {verb}: {ROUNDS * len(RAISED)} signals, latest exception after {latest * 1000:.1f} ms")
    assert latest <= SOON
    if verb == "get":
        queue.put("whole")
        assert waiter.hear() == "whole"
    elif verb == "put":
        assert waiter.hear() == items
    waiter.done()


def count_time(verb: str, name: str, backend: str, timeout: float) -> None:
    """Time out in one verb under a timer of 1 kHz whose handler returns, and say how long that took."""
    ticks = 0

    def tick(number: int, frame: object) -> None:
        nonlocal ticks
        ticks += 1

    with ipcq.open(name, backend, create=False) as queue:
        signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        began = time.monotonic()
        try:
            if verb == "get":
                queue.get(timeout=timeout)
            else:
                queue.put(None, timeout=timeout)
        except ipcq.TimedOutError:
            say([time.monotonic() - began, ticks])
        signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.mark.parametrize("verb", ["get", "put"])
def test_a_handler_that_returns_makes_a_wait_neither_shorter_nor_longer(
    verb: str, name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C12: under a timer of 1 kHz a timeout of one second takes one second."""
    if verb == "put":
        queue.put_many([0, 1, 2, 3])
    seconds, ticks = peers.spawn(count_time, verb, name, backend, 1.0).hear()
    assert 1.0 <= seconds <= 1.5
    assert ticks > 100


def produce_under_timer(name: str, backend: str, ledger: str, seconds: float) -> None:
    """Put for some seconds under a timer of 1 kHz."""
    book = Ledger(ledger)
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    end = time.monotonic() + seconds
    count = 0
    with ipcq.open(name, backend, create=False) as queue:
        while time.monotonic() < end:
            tag = Tag(0, count)
            book.intend(tag)
            queue.put(tag.message(), timeout=10)
            book.accepted(tag)
            count += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    say(count)


def consume_under_timer(name: str, backend: str, ledger: str) -> None:
    """Take messages under a timer of 1 kHz."""
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        consume(attached, [name, backend], 0, ledger)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_a_timer_of_one_kilohertz_causes_no_error(
    name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C12: for two seconds under a timer on both sides nothing is raised, lost or doubled."""
    consumer = peers.spawn(consume_under_timer, name, backend, peers.ledger("consumer", 0))
    producer = peers.spawn(produce_under_timer, name, backend, peers.ledger("producer", 0), 2.0)
    count = producer.hear()
    producer.done()
    queue.shutdown()
    consumer.done()
    verdict = peers.judge()
    print(f"{backend}: {verdict}")
    assert verdict.sound and not verdict.lost and verdict.received == count > 0, verdict


def call_inside_handler(verb: str, name: str, backend: str) -> None:
    """Wait in one verb while a handler calls the same handle, and say what each gave."""
    queue = ipcq.open(name, backend, create=False)
    said: list[Any] = []

    def handler(number: int, frame: object) -> None:
        for call in (queue.qsize, queue.empty, lambda: queue.put_nowait("in a handler"), queue.get_nowait):
            try:
                call()
                said.append("worked")
            except ipcq.MessageQueueError as error:
                said.append(type(error).__name__)

    signal.signal(signal.SIGUSR1, handler)
    say("waiting")
    try:
        if verb == "get":
            queue.get(timeout=0.5)
        else:
            queue.put("one more", timeout=0.5)
        said.append("worked")
    except ipcq.MessageQueueError as error:
        said.append(type(error).__name__)
    say(said)


@pytest.mark.parametrize("verb", ["get", "put"])
def test_a_handler_may_call_the_handle_that_it_interrupts(
    verb: str, name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C12: queue methods inside a handler work or raise, and never deadlock."""
    if verb == "put":
        queue.put_many([0, 1, 2, 3])
    caller = peers.spawn(call_inside_handler, verb, name, backend)
    caller.hear()
    until(caller.asleep)
    caller.send(signal.SIGUSR1)
    said = caller.hear(10)
    caller.done()
    assert len(said) == 5
    assert set(said) <= {"worked", "QueueEmpty", "QueueFull", "Unsupported"}


def close_inside_handler(name: str, backend: str) -> None:
    """Wait in get while a handler closes the handle."""
    queue = ipcq.open(name, backend, create=False)
    signal.signal(signal.SIGUSR1, lambda number, frame: queue.close())
    say("waiting")
    try:
        queue.get(timeout=10)
    except ipcq.MessageQueueError as error:
        say([type(error).__name__, sum(os.path.exists(f"/proc/self/fd/{fd}") for fd in range(64))])


def test_a_handler_may_close_the_handle_that_it_interrupts(
    name: str, backend: str, queue: object, peers: Peers
) -> None:
    """C12: `close` inside a handler returns, and the call it interrupted raises QueueClosed."""
    closer = peers.spawn(close_inside_handler, name, backend)
    closer.hear()
    until(closer.asleep)
    closer.send(signal.SIGUSR1)
    assert closer.hear(10)[0] == "QueueClosed"
    closer.done()
