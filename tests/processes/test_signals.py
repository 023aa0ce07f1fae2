"""C12: a signal ends a wait if its handler raises, and changes nothing if it returns."""

import os
import random
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import ipcq
from ipcq._opening.name_lock import name_lock
from ipcq.testing.oracle import Ledger, Tag, judge
from ipcq.testing.processes import Peer, Peers, fresh_name, hear, say, until
from ipcq.testing.workers import attached, consume
from processes.programs import SMALL, hammer
from processes.sizes import size
from processes.stopping import held, stop_inside

ROUNDS = 20
SOON_SECONDS = 1.0
"""Seconds: ten times the 100 ms of the promise."""

RAISED = {"SIGINT": "KeyboardInterrupt", "SIGTERM": "SystemExit", "SIGALRM": "Custom"}


class Custom(Exception):
    """An exception that no library knows."""


def exit_on_sigterm(number: int, frame: object) -> None:
    """Handle SIGTERM as servers do."""
    raise SystemExit(3)


def raise_custom(number: int, frame: object) -> None:
    """Handle SIGALRM with a user-defined exception."""
    raise Custom


def call(verb: str, queue: "ipcq.Queue[object]") -> None:
    """Wait in one verb, without a timeout."""
    match verb:
        case "open":
            ipcq.open(f"{queue.name}-other", queue.backend, open_timeout=None, **SMALL).close()
        case "put":
            queue.put("one too many")
        case "put_many":
            queue.put_many(["one too many", "two too many"])
        case _:
            getattr(queue, verb)()


def wait_interrupted(verb: str, name: str, backend: str) -> None:
    """Wait in one verb again and again, report the result of each wait and when it came, and finally use the handle."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, exit_on_sigterm)
    signal.signal(signal.SIGALRM, raise_custom)
    queue = ipcq.open(name, backend, create=False)
    while hear() == "again":
        try:
            say("waiting")
            call(verb, queue)
            say(["returned", time.monotonic()])
        except BaseException as error:
            say([type(error).__name__, time.monotonic()])
    if verb != "open":
        say([queue.get(timeout=10) for _ in range(4)])


def interrupt(waiter: Peer, rounds: int, dice: random.Random) -> float:
    """Send signals to a process that runs `wait_interrupted`; return the seconds that the slowest exception took."""
    latest = 0.0
    for _ in range(rounds):
        for number, expected in RAISED.items():
            waiter.say("again")
            assert waiter.hear() == "waiting"
            until(waiter.asleep)
            time.sleep(dice.uniform(0, 0.01))
            sent = time.monotonic()
            waiter.send(getattr(signal, number))
            raised, instant = waiter.hear()
            assert raised == expected
            latest = max(latest, instant - sent)
    return latest


@pytest.mark.parametrize("verb", ["get", "get_many", "get_message", "put", "put_many", "open"])
def test_an_exception_of_a_handler_ends_a_wait_at_once(
    verb: str, name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C12: KeyboardInterrupt, SystemExit and a user's exception leave every wait unchanged, and the queue whole."""
    items = [0, 1, 2, 3]
    if verb.startswith("put"):
        queue.put_many(items)
    waiter = peers.spawn(wait_interrupted, verb, name, backend)
    with name_lock(f"{name}-other", float("inf")):
        latest = interrupt(waiter, ROUNDS, peers.random)
    waiter.say("enough")
    print(f"{backend} {verb}: {ROUNDS * len(RAISED)} signals, latest exception after {latest * 1000:.1f} ms")
    assert latest <= SOON_SECONDS
    if verb.startswith("get"):
        queue.put_many(items)
    if verb != "open":
        assert waiter.hear() == items
    waiter.done()


def test_an_exception_of_a_handler_ends_a_wait_for_a_lock_at_once(lockable: str, name: str, peers: Peers) -> None:
    """C12: the same from get and put while a stopped process holds the lock of the queue."""
    latest = 0.0
    with ipcq.open(name, lockable, exclusive=True, **SMALL) as queue:
        for _ in range(5):
            holder = peers.fork(hammer, name, lockable)
            holder.hear()
            stop_inside(holder, peers.random)
            verb = held(queue)
            if verb is not None:
                waiter = peers.spawn(wait_interrupted, verb, name, lockable)
                latest = max(latest, interrupt(waiter, 3, peers.random))
                waiter.kill()
            holder.resume()
            holder.kill()
            queue.clear()
    print(f"{lockable}: latest exception out of a wait for a lock after {latest * 1000:.1f} ms")
    assert 0 < latest <= SOON_SECONDS


def count_time(verb: str, name: str, backend: str, timeout: float) -> None:
    """Time out in one verb under a timer of 1 kHz whose handler returns, and report how long that took."""
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
    assert ticks > 10


def produce_under_timer(name: str, backend: str, ledger: str, number: int, seconds: float) -> None:
    """Put for some seconds under a timer of 1 kHz, singly and in batches."""
    book = Ledger(ledger)
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    end = time.monotonic() + seconds
    count = 0
    with ipcq.open(name, backend, create=False) as queue:
        while time.monotonic() < end:
            tags = [Tag(number, count + place) for place in range(3)]
            book.intend(*tags)
            queue.put(tags[0].message(), timeout=10)
            assert queue.put_many([tag.message() for tag in tags[1:]], timeout=10) == 2
            book.accepted(*tags)
            count += len(tags)
            time.sleep(0.001)  # makes consumers wait, and limits the messages to judge
    signal.setitimer(signal.ITIMER_REAL, 0)
    say(count)


def consume_under_timer(name: str, backend: str, ledger: str, number: int) -> None:
    """Take messages under a timer of 1 kHz."""
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        consume(attached, [name, backend], number, ledger, batch=1 + number % 2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def work_under_timer(seconds: float, at: list[tuple[str, str]], peers: Peers) -> None:
    """Run a producer and a consumer under timers on each of several queues, and judge them."""
    consumers = [
        peers.spawn(consume_under_timer, *place, peers.ledger("consumer", number), number)
        for number, place in enumerate(at)
    ]
    producers = [
        peers.spawn(produce_under_timer, *place, peers.ledger("producer", number), number, seconds)
        for number, place in enumerate(at)
    ]
    counts = [producer.hear(seconds + 20) for producer in producers]
    for producer in producers:
        producer.done()
    for name, backend in at:
        with ipcq.open(name, backend, create=False) as queue:
            queue.shutdown()
    for consumer in consumers:
        consumer.done()
    for number, (_, backend) in enumerate(at):
        # Each queue separately: there is no order between two queues.
        verdict = judge(*([Path(peers.ledger(role, number))] for role in ("producer", "consumer")))
        print(f"{seconds:g} s on {backend}: {verdict}")
        assert verdict.sound and not verdict.lost and verdict.received == counts[number] > 0, verdict


def test_a_timer_of_one_kilohertz_causes_no_error(
    name: str, backend: str, queue: "ipcq.Queue[object]", peers: Peers
) -> None:
    """C12: for two seconds under a timer on both sides nothing is raised, lost or duplicated."""
    work_under_timer(2.0, [(name, backend)], peers)


@pytest.mark.storm
@pytest.mark.timeout(0)
def test_a_timer_of_one_kilohertz_causes_no_error_for_long() -> None:
    """C12: the same for 15 seconds, nightly for a minute, on all backends at the same time."""
    with ExitStack() as stack, Peers(patience=120) as peers:
        at = []
        for info in ipcq.backends():
            if info.usable and info.capabilities is not None and info.capabilities.scope == ipcq.Scope.HOST:
                at.append((fresh_name(), info.name))
                queue = stack.enter_context(ipcq.open(*at[-1], exclusive=True, **SMALL))
                stack.callback(queue.unlink)
        work_under_timer(size(15, 60), at, peers)


def call_inside_handler(verb: str, name: str, backend: str) -> None:
    """Wait in one verb while a handler calls the same handle, and report the result of each call."""
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
    """C12: `close` inside a handler returns, and the interrupted call raises QueueClosed."""
    closer = peers.spawn(close_inside_handler, name, backend)
    closer.hear()
    until(closer.asleep)
    closer.send(signal.SIGUSR1)
    assert closer.hear(10)[0] == "QueueClosed"
    closer.done()
