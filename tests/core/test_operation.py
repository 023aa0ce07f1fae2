"""Clauses 38 to 40: an operation on a server ends by its deadline, and is repeated with one identity."""

import gc
import itertools
import logging
import os
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from ipcq._process import deadline as _deadline
from ipcq._process import operation
from ipcq._process.deadline import NEVER
from ipcq._process.operation import (
    ANSWER_SECONDS,
    OPERATION_SECONDS,
    Asking,
    Operation,
    Unanswered,
    ask,
    asking_deadline,
)
from ipcq.errors import ConnectionLost, QueueClosed, QueueShutDown

START = 1000.0


class Clock:
    """A clock that only attempts and pauses advance."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock."""
    clock = Clock()
    monkeypatch.setattr(operation, "monotonic", clock)
    monkeypatch.setattr(_deadline, "monotonic", clock)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    monkeypatch.setattr(operation, "_usual_seconds", 0.0)
    return clock


class Server:
    """A server with a list of what happens to the requests; afterwards it answers.

    An outcome of `ConnectionLost` is one; a float is the time after which an answer comes, if that is in time.
    """

    def __init__(self, clock: Clock, *happens: Any) -> None:
        self.clock = clock
        self.happens = list(happens)
        self.seen: list[Operation] = []

    def __call__(self, asked: Operation) -> Any:
        self.seen.append(asked)
        event = self.happens.pop(0) if self.happens else 0.0
        if isinstance(event, BaseException):
            raise event
        if isinstance(event, str):
            raise ConnectionLost("it is gone", outcome=event)  # type: ignore[arg-type]  # one of the outcomes
        if self.clock.now + event > asked.until:
            self.clock.now = asked.until
            raise ConnectionLost("no answer", outcome="unknown")
        self.clock.now += event
        return "answer"


MakeServer = Callable[..., Server]


@pytest.fixture
def server(clock: Clock) -> MakeServer:
    return lambda *happens: Server(clock, *happens)


def lost(call: Callable[[], object]) -> ConnectionLost:
    with pytest.raises(ConnectionLost) as caught:
        call()
    return caught.value


# Repetition


def test_an_answer_is_returned(server: MakeServer) -> None:
    """One attempt suffices."""
    asked = server(0.1)
    assert ask(asked) == "answer"
    assert [each.attempt for each in asked.seen] == [1]


@pytest.mark.parametrize("arguments", [{}, {"remembered": 60.0}, {"harmless": True}])
def test_what_was_not_done_is_repeated(server: MakeServer, arguments: dict[str, Any]) -> None:
    """Clause 40: it makes no difference whether the server remembers."""
    asked = server("not done", "not done")
    assert ask(asked, **arguments) == "answer"
    assert [each.attempt for each in asked.seen] == [1, 2, 3]


def test_all_attempts_have_one_identity(server: MakeServer) -> None:
    """Clause 39: so the server knows them as the same operation."""
    asked = server("unknown", "not done", "unknown")
    ask(asked, remembered=60.0)
    assert len({each.identity for each in asked.seen}) == 1


def test_two_operations_have_different_identities(server: MakeServer) -> None:
    """Clause 39: the reply to one is not that to the other."""
    asked = server()
    ask(asked)
    ask(asked)
    assert asked.seen[0].identity != asked.seen[1].identity


def test_what_may_have_been_done_is_repeated_only_if_the_server_remembers(server: MakeServer) -> None:
    """Clause 39: otherwise it could be done twice."""
    asked = server("unknown")
    assert lost(lambda: ask(asked)).outcome == "unknown"
    assert len(asked.seen) == 1


def test_a_harmless_operation_is_repeated(server: MakeServer) -> None:
    """Clause 39: looking twice changes nothing."""
    assert ask(server("unknown", "unknown"), harmless=True) == "answer"


def test_nothing_is_repeated_once_the_server_may_have_forgotten(server: MakeServer, clock: Clock) -> None:
    """Clause 39: no attempt ends later than the memory, counted from the first that may have been carried out."""
    asked = server(*[99.0] * 9)
    assert lost(lambda: Asking(NEVER).run(ask, asked, remembered=5.0)).outcome == "unknown"
    assert clock.now <= START + 5
    assert all(each.until <= START + 5 for each in asked.seen[1:])


def test_what_was_done_is_not_repeated(server: MakeServer) -> None:
    """Clause 40: its result is lost."""
    asked = server("done")
    assert lost(lambda: ask(asked, remembered=60.0, harmless=True)).outcome == "done"
    assert len(asked.seen) == 1


def test_an_earlier_attempt_makes_the_outcome_unknown(server: MakeServer) -> None:
    """Clause 40: the last attempt did nothing, but the first may have."""
    asked = server("unknown", *["not done"] * 99)
    error = lost(lambda: Asking(START + 1).run(ask, asked, remembered=60.0))
    assert error.outcome == "unknown"


def test_other_errors_are_answers(server: MakeServer) -> None:
    """The server has answered: there is nothing to repeat."""
    asked = server(QueueShutDown())
    with pytest.raises(QueueShutDown):
        ask(asked, remembered=60.0)
    assert len(asked.seen) == 1


# Deadlines


@pytest.mark.parametrize("event", ["not done", 99.0])
def test_the_users_deadline_ends_it(server: MakeServer, clock: Clock, event: Any) -> None:
    """Clause 38: whether the server refuses or is silent."""
    lost(lambda: Asking(START + 0.3).run(ask, server(*[event] * 999), remembered=60.0))
    assert START + 0.3 <= clock.now <= START + 0.36


def test_a_call_without_a_timeout_ends(server: MakeServer, clock: Clock) -> None:
    """Clause 38: as `qsize`."""
    lost(lambda: ask(server(*[99.0] * 99), harmless=True))
    assert START + OPERATION_SECONDS <= clock.now <= START + OPERATION_SECONDS + 0.1


def test_a_wait_without_a_limit_goes_on(server: MakeServer, clock: Clock) -> None:
    """Clause 38: it continues when the server is back."""
    assert Asking(NEVER).run(ask, server(*["not done"] * 400)) == "answer"
    assert clock.now > START + 60


def test_a_silent_server_is_asked_again(server: MakeServer) -> None:
    """Clause 38: the reply may be lost while the connection seems to live."""
    asked = server(99.0)
    assert Asking(NEVER).run(ask, asked, remembered=60.0) == "answer"
    assert asked.seen[0].until == START + ANSWER_SECONDS


def test_an_attempt_at_the_deadline_has_time_for_an_answer(server: MakeServer, clock: Clock) -> None:
    """Clause 38: a wait that ends at the deadline is followed by one more try."""
    assert Asking(START - 1).run(ask, server(0.04)) == "answer"


def test_a_slow_connection_gets_more_time(server: MakeServer, clock: Clock) -> None:
    """Clause 38: otherwise each short timeout would fail on it."""
    ask(server(0.2))
    assert Asking(clock.now).run(ask, server(0.7)) == "answer"
    assert [operation._least_seconds() for _ in range(1)] == [1.0]


def test_the_usual_time_is_learnt_anew(server: MakeServer, clock: Clock) -> None:
    """The effect of one slow answer wears off."""
    for event in (0.2, *[0.0] * 20):
        ask(server(event))
    assert operation._least_seconds() == operation._LEAST_SECONDS


def test_deadlines_nest(server: MakeServer) -> None:
    """The innermost counts, and ends with its call."""

    def call() -> None:
        assert Asking(START + 1).run(asking_deadline, 9) == START + 1
        assert asking_deadline(9) == START + 5

    Asking(START + 5).run(call)
    assert asking_deadline(9) == START + 9


def test_no_interruption_leaves_a_deadline_behind(clock: Clock) -> None:
    """C12: otherwise a signal handler that raises, at any step, would shorten the later calls of this thread."""

    class Interrupted(BaseException):
        pass

    def is_interrupted(step: int) -> bool:
        steps = itertools.count(1)

        def trace(frame: FrameType, _event: str, _argument: object) -> Any:
            frame.f_trace_opcodes = True
            if next(steps) == step:
                raise Interrupted
            return trace

        before = sys.gettrace()
        gc.disable()  # a collection calls Hypothesis, which would be interrupted instead
        try:
            sys.settrace(trace)
            Asking(START + 1).run(lambda: None)
        except Interrupted:
            return True
        finally:
            sys.settrace(before)
            gc.enable()
        return False

    steps = 0
    while is_interrupted(steps + 1):
        steps += 1
        assert asking_deadline(9) == START + 9
    assert steps > 10


def test_a_wait_without_a_limit_tells_of_the_loss_once(
    server: MakeServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators see why nothing happens."""
    caplog.set_level(logging.WARNING, "ipcq")
    Asking(NEVER).run(ask, server(*["not done"] * 3))
    assert [record.message for record in caplog.records] == [
        "a call without a timeout waits until the server answers again: it is gone"
    ]
    monkeypatch.delitem(__import__("sys").modules, "logging")
    Asking(NEVER).run(ask, server("not done"))
    assert len(caplog.records) == 1


# Ends


def closed() -> None:
    raise QueueClosed


def test_a_closed_handle_repeats_nothing(server: MakeServer) -> None:
    """Clause 38: what was not done is not done later."""
    asked = server("not done")
    with pytest.raises(QueueClosed):
        Asking(NEVER, closed).run(ask, asked)
    assert len(asked.seen) == 1


def test_a_closed_handle_tells_what_may_have_been_done(server: MakeServer) -> None:
    """Clause 40: this matters more than the close."""
    error = lost(lambda: Asking(NEVER, closed).run(ask, server("unknown"), remembered=60.0))
    assert error.outcome == "unknown"
    assert isinstance(error.__cause__, QueueClosed)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_child_does_not_repeat_its_parents_operation() -> None:
    """Clause 39: it would get the parent's message."""

    def attempt(asked: Operation) -> int:
        if asked.attempt > 1:
            os._exit(8)  # only in a child that repeats it
        if (child := os.fork()) == 0:
            raise ConnectionLost(outcome="not done")
        return os.waitpid(child, 0)[1]

    try:
        status = Asking(NEVER).run(ask, attempt)
    except ConnectionLost:
        os._exit(7)
    assert os.waitstatus_to_exitcode(status) == 7


# Takes


class Store(Server):
    """A server that hands out numbers, and remembers what it gave to whom."""

    def __init__(self, clock: Clock, *happens: Any) -> None:
        super().__init__(clock, *happens)
        self.left = [0, 1, 2, 3, 4, 5]
        self.replies: dict[str, list[int]] = {}

    def taker(self, limit: int) -> Callable[[Operation], list[int]]:
        def take(asked: Operation) -> list[int]:
            if asked.identity not in self.replies:
                self.replies[asked.identity] = self.left[:limit]
                del self.left[:limit]
            self(asked)
            return self.replies[asked.identity]

        return take


@pytest.fixture
def unanswered() -> Unanswered[int]:
    return Unanswered(60.0)


def test_a_take_whose_answer_is_late_is_returned_by_the_next(clock: Clock, unanswered: Unanswered[int]) -> None:
    """Clause 39: a timeout at the wrong moment loses nothing, and keeps the order."""
    store = Store(clock, 99.0, 99.0)
    for _ in range(2):
        lost(lambda: Asking(clock.now + 0.1).run(unanswered.take, store.taker(1), 1))
    assert [unanswered.take(store.taker(1), 1) for _ in range(3)] == [[0], [1], [2]]


def test_a_late_batch_is_handed_out_in_parts(clock: Clock, unanswered: Unanswered[int]) -> None:
    """Clause 39: a smaller limit is kept."""
    store = Store(clock, 99.0)
    lost(lambda: Asking(clock.now + 0.1).run(unanswered.take, store.taker(3), 3))
    assert [unanswered.take(store.taker(2), 2) for _ in range(3)] == [[0, 1], [2], [3, 4]]


def test_an_interrupted_take_is_returned_by_the_next(clock: Clock, unanswered: Unanswered[int]) -> None:
    """Clause 39: an exception of a signal handler loses nothing either."""
    store = Store(clock, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        unanswered.take(store.taker(1), 1)
    assert unanswered.take(store.taker(1), 1) == [0]


def test_a_take_that_was_not_carried_out_is_forgotten(clock: Clock, unanswered: Unanswered[int]) -> None:
    """Clause 40: nothing was taken."""
    lost(lambda: Asking(clock.now).run(unanswered.take, Server(clock, *["not done"] * 9), 1))
    store = Store(clock)
    assert unanswered.take(store.taker(1), 1) == [0]
    assert len(store.seen) == 1


def test_a_take_that_the_server_has_forgotten_is_given_up(clock: Clock, unanswered: Unanswered[int]) -> None:
    """Clause 39: to ask again would take another message."""
    store = Store(clock, 99.0)
    lost(lambda: Asking(clock.now + 0.1).run(unanswered.take, store.taker(1), 1))
    clock.sleep(61)
    assert unanswered.take(store.taker(1), 1) == [1]


def test_an_error_of_the_server_ends_a_late_take(clock: Clock, unanswered: Unanswered[int]) -> None:
    """Clause 39: the server has answered."""
    store = Store(clock, 99.0, QueueShutDown())
    lost(lambda: Asking(clock.now + 0.1).run(unanswered.take, store.taker(1), 1))
    with pytest.raises(QueueShutDown):
        unanswered.take(store.taker(1), 1)
    assert unanswered.take(store.taker(1), 1) == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_child_leaves_late_messages_to_its_parent(clock: Clock, unanswered: Unanswered[int]) -> None:
    """Clause 39: both would return them."""
    store = Store(clock, 99.0)
    lost(lambda: Asking(clock.now + 0.1).run(unanswered.take, store.taker(1), 1))
    if (child := os.fork()) == 0:
        os._exit(unanswered.take(store.taker(1), 1)[0])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert unanswered.take(store.taker(1), 1) == [0]
