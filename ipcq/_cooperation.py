"""Waiting without holding up the other greenlets of the thread, where gevent has patched the standard library.

A wait of a channel's own may be a system call in C, which blocks the thread and with it every greenlet. Where gevent
made `select` cooperative, handles that are opened wait by that instead: by the channel's descriptors, and where it has
none, by looking again and again. Nothing here imports gevent, and without it each handle waits as its channel does.
"""

import select
import time
from typing import Protocol

from ipcq._deadline import pause
from ipcq._gevent import has_patched
from ipcq.backend import Channel
from ipcq.errors import MessageQueueError


class Waits(Protocol):
    """How a handle waits; a channel is one (clause 13)."""

    def wait_readable(self, since: float, until: float, /) -> None: ...

    def wait_writable(self, size: int, since: float, until: float, /) -> None: ...


class Cooperative:
    """Waits by what gevent has patched."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def wait_readable(self, since: float, until: float, /) -> None:
        self._wait(message_descriptor(self._channel), "POLLIN", since, until)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        self._wait(self._channel.space_fileno(), "POLLOUT", since, until)

    def _wait(self, descriptor: int | None, event: str, since: float, until: float) -> None:
        if descriptor is None:
            pause(since, until)
            return
        poll = select.poll()
        poll.register(descriptor, getattr(select, event))
        poll.poll(max(0.0, until - time.monotonic()) * 1000)


def message_descriptor(channel: Channel) -> int | None:
    """Return the channel's descriptor that is readable while there are messages, or None where none is to be had."""
    try:
        return channel.fileno()
    except MessageQueueError:  # Unsupported, the descriptor table is full, or the queue ended, as the next try tells
        return None


def waits_of(channel: Channel) -> Waits:
    """Return how a handle that is opened now is to wait."""
    return Cooperative(channel) if has_patched("select") else channel
