"""When a wait ends: a timeout becomes a point on the monotonic clock once, and only that travels further down."""

import math
import time
from contextvars import ContextVar
from threading import Event
from time import monotonic

from ipcq.errors import InvalidArgument

NEVER = math.inf
PASSED = -math.inf

# How long a wait may go without looking around: it bounds how late a close, a shutdown, an unlink or a lost
# wake-up is noticed (C13, C14 allow 250 ms), and costs ten wake-ups a second while idle.
SLICE = 0.1


def deadline_of(block: bool, timeout: float | None) -> float:
    """Turn the arguments of a public method into a deadline on `time.monotonic`, in seconds.

    Raises:
        InvalidArgument: `block` is not a bool, or `timeout` is neither None nor a number of seconds from 0 on.
    """
    if block is not True and block is not False:
        raise InvalidArgument(f"block is True or False, not {block!r}: give seconds as timeout={block!r}")
    if timeout is None:
        return NEVER if block else PASSED
    seconds = seconds_of(timeout, "timeout")
    if not block or not seconds:
        return PASSED
    return monotonic() + seconds


def seconds_of(value: object, argument: str) -> float:
    """Check a length of time given by a user, in seconds.

    Raises:
        InvalidArgument: `value` is not a number of seconds from 0 on; NaN and bools are none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidArgument(f"{argument} is a number of seconds or None, not {value!r}")
    if not value >= 0:
        raise InvalidArgument(f"{argument} is 0 or more seconds, not {value!r}")
    try:
        return float(value)
    except OverflowError:
        return NEVER


class Abandoned(BaseException):
    """Ends a call that nobody waits for any more."""


#: Where a call runs for somebody who may give it up meanwhile, what is set then.
abandonment: ContextVar[Event | None] = ContextVar("abandonment", default=None)


def nap(since: float, until: float, longest: float = 0.05) -> float:
    """Return for how many seconds to sleep in a wait that began at `since` and ends at `until`.

    A quarter of the time waited so far, from 0.5 ms to `longest`: a short wait answers fast, a long one is cheap, and
    nothing has to be remembered between two sleeps.
    """
    now = monotonic()
    return max(0.0, min(max((now - since) / 4, 0.0005), longest, until - now))


def pause(since: float, until: float, longest: float = 0.05) -> None:
    """Sleep once, as long as `nap` says, within a wait between two points on `time.monotonic`.

    Raises:
        Abandoned: The call was given up.
    """
    seconds = nap(since, until, longest)
    given_up = abandonment.get()
    if given_up is None:
        time.sleep(seconds)  # by way of the module, where gevent puts another
    elif given_up.wait(seconds):
        raise Abandoned
