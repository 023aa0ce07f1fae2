"""The class of a handle: `Queue`, and before it what a channel offers that is faster (clause 21 of `ipcq.backend`)."""

import os
from functools import cache
from types import new_class
from typing import Any, Final

from ipcq._queue import Queue, T
from ipcq.backend import Channel

#: The environment variable that leaves every shortcut out if it is 0.
SHORTCUTS: Final = "IPCQ_SHORTCUTS"


def class_for(channel: Channel) -> type[Queue[Any]]:
    """Return the class for handles over this channel."""
    if channel.shortcut is None or os.environ.get(SHORTCUTS) == "0":
        return Queue
    return _class_with(channel.shortcut)


@cache
def _class_with(shortcut: type[Any]) -> type[Queue[Any]]:
    facts = {"__slots__": (), "__module__": Queue.__module__, "__doc__": Queue.__doc__}
    return new_class(Queue.__name__, (shortcut, Queue[T]), exec_body=lambda space: space.update(facts))
