"""What a forked child must not keep: descriptors and mappings of queues that belong to none of its handles.

A child inherits whatever another thread was opening or closing at the fork. No handle of the child knows of it. As long
as the child keeps the descriptor, or a mapping of it, the kernel keeps the locks of that open file, and after the
parent's death other processes still see the parent as alive.

So each descriptor is recorded here from the call that opens it to the call that closes it, or until it belongs to a
channel; from then on the channel is recorded. A child closes the descriptors, and abandons the channels that none of
its open handles has.

A fork waits for a lock that is held only for the call that opens or closes and for its record. A lock around the whole
of `open` would be simpler. But then a fork would wait for whatever `open` waits for (another process, a gibibyte of
memory), and it could deadlock with locks of backends, which forks and `open` take in different orders.
"""

import os
import weakref
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final

from ipcq._gevent import NativeRLock

#: Keeps other threads from forking. A fork takes this lock last: hold it for a few system calls, and take no other
#: lock inside. The thread that holds it can take it again, since a signal handler may fork.
no_fork: Final = NativeRLock()

#: Seconds that a fork waits for it. Signal handlers and finalisers run inside too, and may wait for a lock that the
#: forking thread has, as that of `logging`: a descriptor too many in a child is better than a deadlock.
_PATIENCE: Final = 10.0

_descriptors: set[int] = set()
_channels: "weakref.WeakSet[Any]" = weakref.WeakSet()


class _Opening:
    """Surrounds the opening of a channel for a handle. No child abandons other channels: their makers manage them."""

    def __enter__(self) -> None:
        _openings.append(None)

    def __exit__(self, *_: object) -> None:
        _openings.pop()


# One entry for each thread that is inside. A child keeps its parent's entries, which does no harm.
_openings: list[None] = []
opening: Final = _Opening()


def opened(call: Callable[[], int]) -> int:
    """Return the descriptor that a call opens; a forked child closes it until it belongs to a channel.

    Pass it to `closed` or `belongs` in the end.
    """
    with no_fork:
        descriptor = call()
        _descriptors.add(descriptor)
    return descriptor


def closed(descriptor: int, closing: Callable[[], object] | None = None) -> None:
    """Close a descriptor that came from `opened`, by `closing` if given; do nothing in a child that has closed it."""
    with no_fork:
        if descriptor in _descriptors:
            _descriptors.discard(descriptor)
            if closing is None:
                os.close(descriptor)
            else:
                closing()


def belongs(channel: object, *descriptors: int) -> None:
    """Record that a channel has these descriptors; a child in which no open handle has the channel abandons it."""
    with no_fork:
        if _openings:
            _channels.add(channel)
        _descriptors.difference_update(descriptors)


def forget(*descriptors: int) -> None:
    """Let children keep these descriptors from now on."""
    with no_fork:
        _descriptors.difference_update(descriptors)


def abandon_others(held: Collection[int]) -> None:
    """Let go in a forked child of all but the channels of which these are the `id`."""
    while _descriptors:
        # One by one, since a finaliser that runs here may close one of them, or open another.
        with suppress(OSError, KeyError):
            os.close(_descriptors.pop())
    for channel in list(_channels):
        if id(channel) not in held:
            channel.abandon()


def _before_fork() -> None:
    no_fork.acquire(timeout=_PATIENCE)


def _after_fork_in_parent() -> None:
    try:
        no_fork.release()
    except RuntimeError:
        pass  # the wait timed out


def _after_fork_in_child() -> None:
    try:
        no_fork.release()  # and not made anew: a signal handler may have forked where its thread holds it
    except RuntimeError:
        no_fork._at_fork_reinit()  # the thread that holds it is not in this process


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
