"""The class of a handle: `Queue`, or a faster subclass from its channel (clause 21 of `ipcq.backend`)."""

import os
from functools import cache
from typing import Any, Final

from ipcq._handle.queue import Queue
from ipcq.backend import Channel

#: The environment variable that disables all shortcuts if it is 0.
SHORTCUTS: Final = "IPCQ_SHORTCUTS"


def class_for(channel: Channel) -> type[Queue[Any]]:
    """Return the class for handles over this channel."""
    return Queue if os.environ.get(SHORTCUTS) == "0" else _class_over(type(channel))


@cache
def _class_over(kind: type[Channel]) -> type[Queue[Any]]:
    return kind.shortcut(Queue)
