"""One-shot notices of a message that arrives in an empty queue.

The mechanism keeps the registration: in the kernel, in shared memory, or in this process.
"""

import errno
import os
from collections.abc import Callable
from typing import TypeAlias

from ipcq.errors import LimitExceeded

#: How `Channel.notify` gives notice: it calls a function in a new thread, or sends this process a signal.
Notice: TypeAlias = Callable[[], object] | int


def give_notice(notice: Notice) -> None:
    """Call the function of the notice, or send its signal to this process."""
    if isinstance(notice, int):
        os.kill(os.getpid(), notice)
    else:
        notice()


def notice_taken() -> LimitExceeded:
    """Return the error for a second request of a notice, with the errno of ``mq_notify(3)``."""
    return LimitExceeded(
        limit="pending notice requests on this queue",
        value=1,
        asked=2,
        remedy="wait until the other notice was given, or cancel it",
        errno=errno.EBUSY,
    )
