"""C10: a timeout becomes a point on the monotonic clock once."""

import math
import threading
import time
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from ipcq._process import deadline as _deadline
from ipcq._process.deadline import NEVER, PASSED, Abandoned, abandonment, deadline_of, pause, seconds_of
from ipcq.errors import InvalidArgument

NOW = 1000.0


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Stop the clock, and record sleeps instead of sleeping."""
    slept: list[float] = []
    monkeypatch.setattr(_deadline, "monotonic", lambda: NOW)
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize(
    ("block", "timeout", "deadline"),
    [
        (True, None, NEVER),
        (False, None, PASSED),
        (True, 0, PASSED),
        (True, 0.0, PASSED),
        (True, -0.0, PASSED),
        (False, 5, PASSED),
        (True, 1, NOW + 1),
        (True, 0.25, NOW + 0.25),
        (True, 1e-300, NOW),
        (True, math.inf, NEVER),
        (True, 10**400, NEVER),
        (True, 1e308, NOW + 1e308),
    ],
)
def test_a_timeout_becomes_a_deadline(block: bool, timeout: float | None, deadline: float) -> None:
    """C10: 0 tries once, None waits without a limit, and block=False never waits."""
    assert deadline_of(block, timeout) == deadline


@pytest.mark.parametrize("block", [0, 1, None, 0.5, "yes", 2, [], 1.0])
def test_block_is_a_bool_and_nothing_else(block: Any) -> None:
    """C10: get(0.5) is an error; it must not block indefinitely."""
    with pytest.raises(InvalidArgument, match="timeout="):
        deadline_of(block, None)


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize(
    "timeout",
    [-1, -1e-9, -math.inf, math.nan, -(10**400), True, False, "1", b"1", [], 1j, Decimal(1), Fraction(1, 2), object()],
)
def test_a_bad_timeout_is_refused_even_if_the_call_does_not_block(block: bool, timeout: Any) -> None:
    """C10: a negative timeout, or one that is not a number, raises InvalidArgument."""
    with pytest.raises(InvalidArgument, match="timeout must be"):
        deadline_of(block, timeout)


def test_a_refusal_names_the_argument() -> None:
    """The text begins with the name of the argument."""
    with pytest.raises(InvalidArgument, match="open_timeout must be 0 seconds or more, not -3"):
        seconds_of(-3, "open_timeout")


@pytest.mark.parametrize(
    ("since", "until", "seconds"),
    [
        (NOW, NEVER, 0.0005),  # short at first, for latency
        (NOW - 0.04, NEVER, 0.01),  # then a quarter of the time waited so far
        (NOW - 60, NEVER, 0.05),  # at most this, so that a long wait costs little
        (NOW - 60, NOW + 0.02, 0.02),  # never past the deadline
        (NOW, NOW + 0.0001, 0.0001),
        (NOW - 60, NOW, 0.0),
        (NOW - 60, NOW - 1, 0.0),  # never negative
        (NOW - 60, PASSED, 0.0),
        (NOW + 1, NEVER, 0.0005),
    ],
)
def test_a_pause_grows_with_the_wait_and_ends_with_it(
    slept: list[float], since: float, until: float, seconds: float
) -> None:
    """C10: a pause lasts 0.5 ms to 50 ms and ends at the deadline."""
    pause(since, until)
    assert slept == [pytest.approx(seconds)]


def test_an_abandoned_call_ends_at_its_next_pause(slept: list[float]) -> None:
    """It does not sleep again."""
    given_up = threading.Event()
    token = abandonment.set(given_up)
    try:
        pause(NOW, NOW + 1, longest=0.001)
        given_up.set()
        with pytest.raises(Abandoned):
            pause(NOW, NOW + 1)
    finally:
        abandonment.reset(token)
    assert slept == []
