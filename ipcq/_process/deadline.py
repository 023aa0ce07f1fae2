"""Deadlines: a public method converts its timeout once to a time on the monotonic clock, and passes only that down."""

import math
import time
from contextvars import ContextVar
from threading import Event
from time import monotonic

from ipcq.errors import InvalidArgument

NEVER = math.inf
PASSED = -math.inf

# The longest time in seconds that a wait may take without checking the state of handle and queue. It limits the delay
# until a close, a shutdown, an unlink or a lost wake-up is noticed (C13, C14 allow 250 ms), and costs an idle waiter
# ten wake-ups per second.
SLICE = 0.1


def deadline_of(block: bool, timeout: float | None) -> float:
    """Convert the arguments of a public method to a deadline on `time.monotonic`, in seconds.

    Raises:
        InvalidArgument: `block` is not a bool, or `timeout` is neither None nor a number of 0 or more.
    """
    if block is not True and block is not False:
        raise InvalidArgument(f"block must be True or False, not {block!r}: pass seconds as timeout={block!r}")
    if timeout is None:
        return NEVER if block else PASSED
    seconds = seconds_of(timeout, "timeout")
    if not block or not seconds:
        return PASSED
    return monotonic() + seconds


def seconds_of(value: object, argument: str) -> float:
    """Check a duration in seconds that a user gave, and return it as a float.

    Raises:
        InvalidArgument: `value` is not a number of 0 or more; NaN and bools are refused.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(f"{argument} must be a number of seconds or None, not {value!r}")
    if not value >= 0:
        raise InvalidArgument(f"{argument} must be 0 seconds or more, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        return NEVER


class Abandoned(BaseException):
    """Ends a call whose caller has given it up."""


#: The event that is set when the caller gives up the current call; None if it cannot.
abandonment: ContextVar[Event | None] = ContextVar("abandonment", default=None)


def nap(since: float, until: float, longest: float = 0.05) -> float:
    """Return the number of seconds to sleep next in a polling wait from `since` to `until`.

    It is a quarter of the time waited so far, between 0.5 ms and `longest` seconds. So short waits end quickly, long
    waits are cheap, and no state is kept between two sleeps.
    """
    now = monotonic()
    return max(0.0, min(max((now - since) / 4, 0.0005), longest, until - now))


def pause(since: float, until: float, longest: float = 0.05) -> None:
    """Sleep once in a polling wait, for the time that `nap` returns.

    Raises:
        Abandoned: The caller has given up the call.
    """
    seconds = nap(since, until, longest)
    given_up = abandonment.get()
    if given_up is None:
        time.sleep(seconds)  # looked up in the module, because gevent patches it there
    elif given_up.wait(seconds):
        raise Abandoned
