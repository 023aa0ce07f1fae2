"""Short timeouts in tests of queues on a server, which may be slower to answer on a busy machine."""

from collections.abc import Callable
from typing import Final, TypeVar

from ipcq.errors import ConnectionLost

T = TypeVar("T")

#: The longest timeout that a call gets, in seconds.
_LONGEST_SECONDS: Final = 20.0


def until_answered(call: Callable[[float], T], seconds: float) -> T:
    """Make a call with a timeout, and return what it returns.

    A server that does not answer in this time is a `ConnectionLost`, however busy the machine is. Then make the call
    again, with twice the timeout.

    Args:
        call: Takes the timeout, in seconds; it may be made several times.
        seconds: The first timeout, more than 0.

    Raises:
        ConnectionLost: The server has not answered in 20 seconds either.
    """
    while True:
        try:
            return call(seconds)
        except ConnectionLost:
            seconds *= 2
            if seconds > _LONGEST_SECONDS:
                raise
