"""Waits that do not block other greenlets of the thread (here) or other tasks of the event loop (`ipcq.aio`).

Both wait for the channel's descriptors, or poll if it has none.

A channel's wait may be a system call in C, which blocks the thread and all its greenlets. If gevent has patched
`select` when a handle is opened, the handle waits in gevent's event loop instead. Otherwise it waits as its channel
does, and gevent is not imported.
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

# Seconds until the next attempt to get a descriptor, because a failed attempt may take long.
_RETRY_SECONDS: Final = 1.0

# Events of `gevent.hub.Hub.loop.io`.
_READ: Final = 1
_WRITE: Final = 2


class Descriptor:
    """A descriptor to wait for, or None while there is none.

    Args:
        find: Returns the descriptor or None; this may take long.
    """

    def __init__(self, find: Callable[[], int | None]) -> None:
        self._find = find
        self._next_attempt = PASSED

    def __call__(self) -> int | None:
        if time.monotonic() < self._next_attempt:
            return None
        descriptor = self._find()
        if descriptor is None:
            self._next_attempt = time.monotonic() + _RETRY_SECONDS
        return descriptor


def message_fileno(channel: Channel) -> int | None:
    """Return a descriptor that is readable while there are messages, or None if there is none now."""
    try:
        return channel.fileno()
    except MessageQueueError:  # unsupported, descriptor table full, stopped process; if it ended, the next try raises
        return None


def space_fileno(channel: Channel) -> int | None:
    """Return a descriptor that is writable while there is space, or None."""
    return channel.space_fileno()


class Waits(Protocol):
    """The two waits of a handle; a channel has them (clause 13 of `ipcq.backend`)."""

    def wait_readable(self, since: float, until: float, /) -> None: ...

    def wait_writable(self, size: int, since: float, until: float, /) -> None: ...


class GeventWaits:
    """Waits in gevent's event loop."""

    def __init__(self, channel: Channel) -> None:
        self._message_descriptor = Descriptor(partial(message_fileno, channel))
        self._space_descriptor = Descriptor(partial(space_fileno, channel))

    def wait_readable(self, since: float, until: float, /) -> None:
        _wait(self._message_descriptor(), _READ, since, until)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        _wait(self._space_descriptor(), _WRITE, since, until)


def _wait(descriptor: int | None, event: int, since: float, until: float) -> None:
    if descriptor is None:
        pause(since, until)
        return
    with importing():
        import gevent.hub

    # Not with gevent's `select.poll`, whose timeout is an exception: if a signal handler raises during its setup, the
    # timeout is raised later in unrelated code. Switching to a waiter after its wait has ended does nothing.
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
    """Return the waits of a handle that is opened now.

    A channel to a server waits in sockets, which gevent has patched too. To poll instead would be a request each time.
    """
    return GeventWaits(channel) if has_patched("select") and not channel.remote else channel
