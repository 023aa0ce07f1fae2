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

Some libraries have state that must not cross a fork at all, such as SQLite's record of the locks that its process has.
A channel over such a library gives it up in `before_fork`, and keeps other threads out until the fork is over. It is
called before `no_fork` is taken, since it may wait for a thread that is inside and needs that lock. Then the list of
channels is checked once more under `no_fork`, which keeps further ones from being recorded.

A channel that could not give up its state is not used in the child, and the child does not open that queue again.
"""

import os
import weakref
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from enum import IntEnum
from time import monotonic
from typing import Any, Final, TypeAlias

from ipcq._process import imports
from ipcq._process.gevent import NativeRLock, original


class Step(IntEnum):
    """What ipcq does at a fork, in the order of registration.

    Python goes through it from the last to the first before a fork, and from the first to the last after it.
    """

    IMPORTS = 0
    """Wait for the imports of other threads. Last before a fork, because the `before_fork` of a channel may wait for a
    thread that imports. First after it, because each step that follows may import, and in a child the lock may be held
    by a thread that is not there."""
    CHANNELS = 1
    """Prepare channels, and take `no_fork`. Behind the locks of backends, because a thread that holds one of them opens
    and closes descriptors inside. After a fork `no_fork` is free before handles close descriptors: in a child it, too,
    may be held by a thread that is not there."""
    HANDLES = 2
    """Give up in a child what its handles do not have. Before backends go on in it, because they serve what is left."""
    OTHERS = 3
    """Backends and the faces of other libraries, in any order: they know nothing of each other."""


# The last step that is registered.
_reached = Step.IMPORTS


def at_fork(step: Step, **functions: Callable[[], object]) -> None:
    """Register functions as `os.register_at_fork` does; only this module calls that.

    Raises:
        RuntimeError: A later step is registered already.
    """
    global _reached
    if step < _reached:
        raise RuntimeError(f"at a fork, {step.name} come before {_reached.name}: import that module first")
    _reached = step
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(**functions)


#: Keeps other threads from forking. A fork takes this lock last: hold it for a few system calls, and take no other
#: lock inside. The thread that holds it can take it again, since a signal handler may fork.
no_fork: Final = NativeRLock()

#: Seconds that a fork waits for it. Signal handlers and finalisers run inside too, and may wait for a lock that the
#: forking thread has, as that of `logging`: a descriptor too many in a child is better than a deadlock.
_PATIENCE: Final = 10.0

_descriptors: set[int] = set()
_channels: "weakref.WeakSet[Any]" = weakref.WeakSet()

#: One fork at a time prepares channels: two would wait for each other's locks.
_turn: Final = NativeRLock()

#: Channels that were asked to prepare for a fork, by their `id`, and whether they could.
_Asked: TypeAlias = dict[int, tuple[Any, bool]]

# For each thread that forks, what it asked; several if a signal handler forks during the fork.
_asked: dict[int, list[_Asked]] = {}
_this_thread: Final = original("_thread", "get_ident")

#: In a child: the channels that were prepared.
_prepared: dict[int, Any] = {}

#: Names of queues that this process must not open: at its fork their channels were in use and could not be prepared.
unsafe: Final[set[str]] = set()


class Opening:
    """Surrounds the opening of a channel for a handle. No child abandons other channels: their makers manage them."""

    def __init__(self, name: str = "") -> None:
        self._name = name

    def __enter__(self) -> None:
        _openings.append(self._name)

    def __exit__(self, *_: object) -> None:
        _openings.remove(self._name)


# One entry for each thread that is inside. A child keeps its parent's entries, which does no harm.
_openings: list[str] = []
opening: Final = Opening()


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
    """Record that a channel has these descriptors; a child in which no open handle has the channel abandons it.

    From now on each fork calls the channel's `before_fork`, also while the channel is being opened and closed.
    """
    with no_fork:
        if _openings:
            _channels.add(channel)
        _descriptors.difference_update(descriptors)


def prepares(channel: object) -> None:
    """Let each fork from now on call the channel's `before_fork`."""
    with no_fork:
        _channels.add(channel)


def is_closed(channel: object) -> None:
    """Let forks leave the channel alone from now on."""
    with no_fork:
        _channels.discard(channel)


def hold_over_forks(*locks: Any, in_child: Callable[[], object] | None = None) -> None:
    """Take locks before each fork and release them after it, so that no other thread is inside at a fork.

    A fork may be under way in another thread when this is called. It does not wait for the locks, and in its child they
    are free, whoever held them.

    Args:
        *locks: Locks from `NativeRLock`, in the order in which to take them; none to do only what `in_child` says.
        in_child: What to do in each child before the locks are released.
    """

    def take() -> None:
        for lock in locks:
            lock.acquire()

    def release() -> None:
        for lock in reversed(locks):
            _release(lock)

    def release_in_child() -> None:
        try:
            if in_child is not None:
                in_child()
        finally:
            for lock in reversed(locks):
                _release_in_child(lock)

    at_fork(Step.OTHERS, before=take, after_in_parent=release, after_in_child=release_in_child)


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


def unprepared(held: Iterable[tuple[str, Any]], needs: Callable[[Any], bool]) -> set[int]:
    """Return in a forked child the `id` of each channel that has to be prepared for a fork and was not.

    Args:
        held: The channels of open handles, with the names of their queues.
        needs: Tells whether a channel has to be prepared.
    """
    missed = {id(each) for each in list(_channels) if needs(each) and id(each) not in _prepared}
    _prepared.clear()
    names = {id(channel): name for name, channel in held}
    unsafe.update(names[each] for each in missed & names.keys())
    if missed - names.keys():
        unsafe.update(_openings)  # one of them, and nobody knows which
    return missed


def _before_fork() -> None:
    asked: _Asked = {}
    _asked.setdefault(_this_thread(), []).append(asked)
    errors: list[BaseException] = []
    until = monotonic() + _PATIENCE
    _turn.acquire(timeout=_PATIENCE)
    while no_fork.acquire(timeout=_PATIENCE):
        fresh = [channel for channel in list(_channels) if id(channel) not in asked]
        if not fresh or (asked and monotonic() > until):
            break
        no_fork.release()
        for channel in fresh:
            asked[id(channel)] = (channel, False)
            try:
                channel.before_fork()
                asked[id(channel)] = (channel, True)
            except BaseException as error:  # from a signal handler too, as the other channels have to be prepared
                errors.append(error)
    if errors:
        raise errors[0]  # Python reports it, and forks


def _after_fork_in_parent() -> None:
    errors: list[BaseException] = []
    _release(no_fork)
    for channel, ready in _last_asked().values():
        if ready:
            try:
                channel.after_fork_in_parent()
            except BaseException as error:  # as above
                errors.append(error)
    _release(_turn)
    if errors:
        raise errors[0]


def _last_asked() -> _Asked:
    mine = _asked.get(_this_thread())
    return mine.pop() if mine else {}  # a signal handler may have raised before the fork could begin


def _release(lock: Any) -> None:
    try:
        lock.release()
    except RuntimeError:
        pass  # the wait timed out, or the fork began before the lock was registered


def _release_in_child(lock: Any) -> None:
    try:
        lock.release()  # and not made anew: a signal handler may have forked where its thread holds it
    except RuntimeError:
        lock._at_fork_reinit()  # the thread that holds it is not in this process


def _after_fork_in_child() -> None:
    for lock in (no_fork, _turn):
        _release_in_child(lock)
    _prepared.update({each: channel for each, (channel, ready) in _last_asked().items() if ready})
    _asked.clear()


at_fork(
    Step.IMPORTS,
    before=imports.before_fork,
    after_in_parent=imports.after_fork_in_parent,
    after_in_child=imports.after_fork_in_child,
)
at_fork(
    Step.CHANNELS,
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
