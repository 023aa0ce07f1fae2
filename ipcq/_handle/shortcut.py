"""The class of a handle: `Queue`, or a faster subclass from its channel (clause 21 of `ipcq.backend`)."""

from functools import cache
from typing import Any

from ipcq._handle.queue import Queue
from ipcq._process.shortcuts import shortcuts_enabled
from ipcq.backend import Channel


def class_for(channel: Channel) -> type[Queue[Any]]:
    """Return the class for handles over this channel."""
    return _class_over(type(channel)) if shortcuts_enabled() else Queue


@cache
def _class_over(kind: type[Channel]) -> type[Queue[Any]]:
    return kind.shortcut(Queue)
