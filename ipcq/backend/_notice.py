"""One-shot notices: what tells that a message arrived in an empty queue.

Who is registered for one stands where the mechanism keeps it: in the kernel, in shared memory, or in this process.
"""

import errno
import os
from collections.abc import Callable
from typing import TypeAlias

from ipcq.errors import LimitExceeded

#: How `Channel.notify` tells: a function called in a thread of its own, or the number of a signal to this process.
Notice: TypeAlias = Callable[[], object] | int


def give_notice(notice: Notice) -> None:
    """Call the function of a notice, or send its signal to this process."""
    if isinstance(notice, int):
        os.kill(os.getpid(), notice)
    else:
        notice()


def notice_taken() -> LimitExceeded:
    """Make the error for a notice that somebody else has asked for already, with the number of ``mq_notify(3)``."""
    return LimitExceeded(
        limit="registrants for notice on this queue",
        value=1,
        asked=2,
        remedy="wait until the other was told, or let it take its request back",
        errno=errno.EBUSY,
    )
