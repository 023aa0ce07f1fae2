"""What a forked child must not keep: descriptors and mappings of queues that belong to no handle of its own.

A child inherits what another thread was opening or closing at that instant. No handle of the child knows of it, and as
long as the child keeps the descriptor, or a mapping of it, the kernel keeps the locks that live by it: what its parent
was stays alive after the parent died, for all others who ask.

So each descriptor is noted here from the call that opens it to the call that closes it, or until it is a channel's; and
each channel from then on. A child closes the descriptors, and abandons the channels that no open handle has.

Only the call that opens or closes and the note of it stand under a lock that a fork waits for. A lock around the whole
of `open` would be simpler, but a fork would wait for what `open` waits for (another process, a gibibyte of memory), and
would come to a deadlock with backends' own locks, which forks take in another order than `open` does.
"""

import os
import weakref
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final

from ipcq._gevent import NativeRLock

#: Keeps forks out. The last lock that a fork takes: hold it for a call of the system, and take no other inside. Its own
#: thread can take it again, since a signal handler may fork.
no_fork: Final = NativeRLock()

#: Seconds that a fork waits for it. Signal handlers and finalisers run inside too, and may wait for a lock that the
#: forking thread has, as that of `logging`: a descriptor too many in a child is better than a deadlock.
_PATIENCE: Final = 10.0

_descriptors: set[int] = set()
_channels: "weakref.WeakSet[Any]" = weakref.WeakSet()


class _Opening:
    """While a channel is being opened for a handle; others are their makers' to see to, and no child abandons them."""

    def __enter__(self) -> None:
        _openings.append(None)

    def __exit__(self, *_: object) -> None:
        _openings.pop()


# One entry for each thread that is inside; a child keeps those of its parent's, which does no harm.
_openings: list[None] = []
opening: Final = _Opening()


def opened(call: Callable[[], int]) -> int:
    """Return the descriptor that a call opens, and let forked children close it as long as it is nobody's.

    It has to be given to `closed` or `belongs`.
    """
    with no_fork:
        descriptor = call()
        _descriptors.add(descriptor)
    return descriptor


def closed(descriptor: int, closing: Callable[[], object] | None = None) -> None:
    """Close a descriptor that came from `opened`, by `closing` if given; a child that has closed it does nothing."""
    with no_fork:
        if descriptor in _descriptors:
            _descriptors.discard(descriptor)
            if closing is None:
                os.close(descriptor)
            else:
                closing()


def belongs(channel: object, *descriptors: int) -> None:
    """Note that a channel has these descriptors, and that children in which no handle has it are to abandon it."""
    with no_fork:
        if _openings:
            _channels.add(channel)
        _descriptors.difference_update(descriptors)


def forget(*descriptors: int) -> None:
    """Note no longer that these are to be closed in children."""
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
