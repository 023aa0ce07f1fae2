"""Operations that ask a server: their deadline, their identity, and how they are repeated after a lost connection.

A request may be lost, or its reply. So the same operation is asked again, with the same identity: a server that
remembers its reply to an identity repeats the reply, and does nothing twice.

The deadline of the user's call is in a context variable, because it must reach every operation of a channel or backend.
As a parameter it would be in every method of both, and most backends never ask a server.
"""

import itertools
import secrets
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, copy_context
from time import monotonic
from typing import Final, Generic, NamedTuple, ParamSpec, TypeVar

from ipcq._process.deadline import NEVER, pause
from ipcq._process.forks import Step, at_fork
from ipcq.errors import ConnectionLost, MessageQueueError

P = ParamSpec("P")
R = TypeVar("R")

#: The time for all attempts of an operation if the user's call has no timeout of its own, in seconds.
OPERATION_SECONDS: Final = 10.0

#: The time that a call which must not wait allows for the answer of a server, and that the first attempt of any
#: operation allows, in seconds.
ANSWER_SECONDS: Final = 2.0

#: The time that each further attempt allows, in seconds. An answer that takes longer is one that the server remembers.
_LATER_ANSWER_SECONDS: Final = 4.0

#: The least and the most time that an attempt has if the deadline is near or has passed, in seconds. A get whose wait
#: ends at the deadline looks once more after it. Without the time for an answer it would fail on each slow connection.
_LEAST_SECONDS: Final = 0.05
_MOST_SECONDS: Final = 1.0

#: How many times the usual time of an answer an attempt has at least.
_PATIENCE: Final = 4

#: The longest pause between two attempts, in seconds.
_PAUSE_SECONDS: Final = 0.25


# How long the answers of servers take, in seconds. Of several servers, the slower one counts for a while.
_usual_seconds = 0.0


def _least_seconds() -> float:
    """Return the least time for an attempt."""
    return min(max(_LEAST_SECONDS, _PATIENCE * _usual_seconds), _MOST_SECONDS)


def _note_answer(seconds: float) -> None:
    global _usual_seconds
    _usual_seconds = max(seconds, (3 * _usual_seconds + seconds) / 4)


class Operation(NamedTuple):
    """One operation of a backend on its server, in one of its attempts."""

    identity: str
    """Unique among the operations of all processes, and the same in each attempt."""
    until: float
    """Time of `time.monotonic` at which this attempt has to end."""
    attempt: int
    """Number of the attempt, from 1."""


class _Call(NamedTuple):
    """What the operations of a user's call have to know about it."""

    deadline: float
    check: Callable[[], object]


_call: ContextVar[_Call | None] = ContextVar("call", default=None)


def _permitted() -> None:
    """Check nothing."""


class Asking:
    """Runs a user's call, whose operations end at the deadline.

    Args:
        deadline: On `time.monotonic`.
        check: Called between attempts; raises to end the operation.
    """

    # No context manager: an exception of a signal handler in its methods would leave the deadline to later calls.
    __slots__ = ("_call",)

    def __init__(self, deadline: float, check: Callable[[], object] = _permitted) -> None:
        self._call = _Call(deadline, check)

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what the function returns; its operations end at the deadline."""
        context = copy_context()
        context.run(_call.set, self._call)
        return context.run(function, *args, **kwargs)


def asking_deadline(seconds: float) -> float:
    """Return the deadline of the surrounding `Asking`, or the time `seconds` from now if there is none."""
    call = _call.get()
    return monotonic() + seconds if call is None else call.deadline


_numbers = itertools.count(1)
_process = ""


def _forget_process() -> None:  # pragma: no cover - only in a forked child
    global _process
    _process = ""


at_fork(Step.CHANNELS, after_in_child=_forget_process)


def _this_process() -> str:
    """Return a text that no other process has."""
    global _process
    if not _process:
        _process = secrets.token_hex(8)
    return _process


def ask(attempt: Callable[[Operation], R], *, remembered: float = 0.0, harmless: bool = False) -> R:
    """Carry out one operation on a server; repeat it after a lost connection, until the deadline of the user's call.

    The deadline is that of the timeout, or of `open_timeout`. A call without a timeout ends after 10 seconds if it is
    one that does not wait, such as ``qsize``; a put or get without a timeout has no deadline.

    An operation that was not done is repeated. If it is unknown whether it was done, it is repeated if it is harmless,
    or while the server remembers its reply.

    Args:
        attempt: Makes one attempt, with the operation's identity and the end of this attempt. If it gets no answer, it
            closes its connection and raises `ConnectionLost`, with the outcome ``"not done"`` if it sent nothing.
        remembered: Seconds for which the server remembers its reply to an identity.
        harmless: It makes no difference whether the operation is done once or twice.

    Raises:
        ConnectionLost: No attempt was answered in time, or it must not be repeated.
    """
    return _Asked(remembered, harmless).answer(attempt)


class _Asked:
    """One operation, in all its attempts."""

    def __init__(self, remembered: float, harmless: bool) -> None:
        self.process = _this_process()
        self.identity = f"{self.process}-{next(_numbers)}"
        self._remembered = NEVER if harmless else remembered
        self.lost_since = NEVER
        """When the first attempt with an unknown outcome began."""

    @property
    def forgotten_at(self) -> float:
        """When the server may have forgotten its reply."""
        return self.lost_since + self._remembered

    def answer(self, attempt: Callable[[Operation], R]) -> R:
        """Attempt until there is an answer."""
        since = monotonic()
        call = _call.get() or _Call(since + OPERATION_SECONDS, _permitted)
        patience = ANSWER_SECONDS
        number = 0
        while True:
            number += 1
            began = monotonic()
            # The last attempt begins at the deadline, and is late by the least time.
            until = max(min(call.deadline, began + patience), began + _least_seconds())
            try:
                answer = attempt(Operation(self.identity, min(until, self.forgotten_at), number))
            except ConnectionLost as error:
                self._note(error, began)
                if not self._is_repeatable(error, call):
                    raise
                try:
                    call.check()
                except MessageQueueError as ended:
                    if self.lost_since < NEVER:
                        raise error from ended  # because something may have been done
                    raise
                if call.deadline == NEVER and number == 1:
                    _log(error)
            except BaseException:
                self.lost_since = min(self.lost_since, began)
                raise
            else:
                _note_answer(monotonic() - began)
                return answer
            pause(since, min(call.deadline, self.forgotten_at), longest=_PAUSE_SECONDS)
            patience = _LATER_ANSWER_SECONDS

    def _note(self, error: ConnectionLost, began: float) -> None:
        """Take account of a lost attempt, and let the error tell the outcome of all attempts."""
        if error.outcome == "unknown":
            self.lost_since = min(self.lost_since, began)
        elif error.outcome == "not done" and self.lost_since < NEVER:
            error.outcome = "unknown"  # an earlier attempt may have been carried out

    def _is_repeatable(self, error: ConnectionLost, call: _Call) -> bool:
        if self.process != _this_process():  # pragma: no cover - only in a child, which a signal handler has forked
            return False  # the answer is the parent's
        return error.outcome != "done" and monotonic() < min(call.deadline, self.forgotten_at)


def _log(error: ConnectionLost) -> None:
    logging = sys.modules.get("logging")  # if it was never imported, there is no handler
    if logging is not None:
        logging.getLogger("ipcq").warning(
            "a call without a timeout waits until the server answers again: %s", error.detail or error.wording
        )


class Unanswered(Generic[R]):
    """Takes messages; if the answer of a take was lost, the next take returns its messages.

    So a get that times out while its answer is on the way loses nothing. A channel has one for its gets, and another
    one for its leases.

    Args:
        remembered: Seconds for which the server remembers its reply to an identity.
    """

    def __init__(self, remembered: float) -> None:
        self._remembered = remembered
        self._lost: deque[_Asked] = deque()
        self._late: deque[R] = deque()
        self._process = _this_process()

    def take(self, attempt: Callable[[Operation], list[R]], limit: int) -> list[R]:
        """Return up to `limit` messages: late ones if there are any, otherwise those that an attempt takes.

        Args:
            attempt: Takes up to `limit` messages, as for `ask`.
            limit: At least 1.

        Raises:
            ConnectionLost: As for `ask`.
        """
        if self._process != _this_process():  # pragma: no cover - only in a forked child: they are the parent's
            self._process = _this_process()
            self._lost.clear()
            self._late.clear()
        # Other threads take too, so each step may find that nothing is left.
        while not self._late:
            asked = self._next_lost()
            if asked is None:
                return self._answer(_Asked(self._remembered, False), attempt)
            if monotonic() < asked.forgotten_at:
                self._late.extend(self._answer(asked, attempt))
        batch: list[R] = []
        with suppress(IndexError):
            while len(batch) < limit:
                batch.append(self._late.popleft())
        return batch

    def _next_lost(self) -> _Asked | None:
        with suppress(IndexError):
            return self._lost.popleft()
        return None

    def _answer(self, asked: _Asked, attempt: Callable[[Operation], list[R]]) -> list[R]:
        try:
            return asked.answer(attempt)
        except BaseException as error:
            is_answer = isinstance(error, MessageQueueError) and not isinstance(error, ConnectionLost)
            if asked.lost_since < NEVER and not is_answer:
                self._lost.appendleft(asked)
            raise
