"""Waiting without holding up others: other greenlets of the thread here, other tasks of the event loop in `ipcq.aio`.

Both wait by the channel's descriptors, and where it has none, by looking again and again.

A wait of a channel's own may be a system call in C, which blocks the thread and with it every greenlet. Where gevent
made `select` cooperative, handles that are opened wait in its event loop instead. Without it each handle waits as its
channel does, and gevent is not imported.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from ipcq._process.deadline import PASSED, pause
from ipcq._process.gevent import has_patched
from ipcq._process.imports import importing
from ipcq.backend import Channel
from ipcq.errors import MessageQueueError

# Seconds without asking for a descriptor after there was none: it may take long to find that out.
_RESPITE: Final = 1.0

# Events of `gevent.hub.Hub.loop.io`.
_READ: Final = 1
_WRITE: Final = 2


class Descriptor:
    """A descriptor to wait for: returns it where it is to be had, else None.

    Args:
        ask: Returns it or None; this may take a moment.
    """

    def __init__(self, ask: Callable[[], int | None]) -> None:
        self._ask = ask
        self._next = PASSED

    def __call__(self) -> int | None:
        if time.monotonic() < self._next:
            return None
        descriptor = self._ask()
        if descriptor is None:
            self._next = time.monotonic() + _RESPITE
        return descriptor


def of_messages(channel: Channel) -> int | None:
    """Return what is readable while there are messages; None where the channel has no such thing, or not now."""
    try:
        return channel.fileno()
    except (
        MessageQueueError
    ):  # Unsupported, no place in the table, a stopped process, or the end, as the next try tells
        return None


def of_space(channel: Channel) -> int | None:
    """Return what is writable while there is space, or None."""
    return channel.space_fileno()


class Waits(Protocol):
    """How a handle waits; a channel is one (clause 13 of `ipcq.backend`)."""

    def wait_readable(self, since: float, until: float, /) -> None: ...

    def wait_writable(self, size: int, since: float, until: float, /) -> None: ...


class Cooperative:
    """Waits in gevent's event loop."""

    def __init__(self, channel: Channel) -> None:
        self._messages = Descriptor(partial(of_messages, channel))
        self._space = Descriptor(partial(of_space, channel))

    def wait_readable(self, since: float, until: float, /) -> None:
        _wait(self._messages(), _READ, since, until)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        _wait(self._space(), _WRITE, since, until)


def _wait(descriptor: int | None, event: int, since: float, until: float) -> None:
    if descriptor is None:
        pause(since, until)
        return
    with importing():
        import gevent.hub

    # Not by gevent's `select.poll`, whose timeout is an exception: if a signal handler raises while it is being set up,
    # it strikes somewhere else later on. To switch to a waiter that nobody waits in does nothing.
    hub = gevent.hub.get_hub()
    waiter = gevent.hub.Waiter(hub)
    ready = hub.loop.io(descriptor, event)
    timer = hub.loop.timer(max(0.0, until - time.monotonic()))
    try:
        ready.start(waiter.switch, None)
        timer.start(waiter.switch, None)
        waiter.get()
    finally:
        for watcher in (ready, timer):
            watcher.stop()
            watcher.close()


def waits_of(channel: Channel) -> Waits:
    """Return how a handle that is opened now is to wait."""
    return Cooperative(channel) if has_patched("select") else channel
