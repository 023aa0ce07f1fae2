"""The register of what must not leak into a forked child: descriptors and mappings that none of its handles owns.

A child inherits every descriptor that another thread is opening or closing at the fork, although none of its handles
owns it. While the child keeps the descriptor, or a mapping of it, the kernel keeps the locks of that open file. Then
other processes still see the parent as alive after its death.

So each descriptor is recorded here from the call that opens it to the call that closes it, or until a channel owns it;
from then on the channel is recorded. The child closes the recorded descriptors, and abandons the recorded channels that
none of its open handles uses.

A fork waits for the lock `no_fork`, which is held only for the call that opens or closes and for its record. A lock
around the whole of `open` would be simpler. But then a fork would wait for everything that `open` waits for (another
process, a gibibyte of memory), and could deadlock: forks and `open` take it and the locks of backends in different
orders.

Some libraries have state that must not cross a fork at all, such as SQLite's record of its process's locks. A channel
over such a library releases the state in `before_fork`, and blocks other threads until the fork is over. `before_fork`
is called before `no_fork` is taken, because it may wait for a thread that needs `no_fork`. Then the list of channels is
checked once more under `no_fork`, which prevents further records.

If a channel could not release its state, the child neither uses the channel nor opens its queue again.
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
    """The steps of ipcq at a fork, in the order of registration.

    Python runs them from the last to the first before a fork, and from the first to the last after it.
    """

    IMPORTS = 0
    """Wait for the imports of other threads. Last before a fork, because a channel's `before_fork` may wait for an
    importing thread. First after it, because every later step may import, and in a child the lock may be held by a
    thread that does not exist there."""
    CHANNELS = 1
    """Prepare channels, and take `no_fork`. Before a fork it comes after the locks of backends, because a thread that
    holds one of them opens and closes descriptors. After a fork it releases `no_fork` before handles close descriptors:
    in a child this lock, too, may be held by a thread that does not exist there."""
    HANDLES = 2
    """In a child, release what none of its handles uses. Before backends continue, because they serve the rest."""
    OTHERS = 3
    """Backends and `ipcq.compat`, in any order: they are independent of each other."""


# The last registered step.
_reached = Step.IMPORTS


def at_fork(step: Step, **functions: Callable[[], object]) -> None:
    """Register functions as `os.register_at_fork` does; only this module calls that.

    Raises:
        RuntimeError: A later step is registered already.
    """
    global _reached
    if step < _reached:
        raise RuntimeError(f"fork step {step.name} must be registered before {_reached.name}: import its module first")
    _reached = step
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(**functions)


#: Prevents other threads from forking. A fork takes this lock last: hold it for a few system calls, and take no other
#: lock inside. It is reentrant, because a signal handler may fork while its thread holds it.
no_fork: Final = NativeRLock()

#: The longest time that a fork waits for `no_fork`. A signal handler or finaliser of the thread that holds it may wait
#: for a lock of the forking thread, such as that of `logging`: a leaked descriptor is better than a deadlock.
_TIMEOUT_SECONDS: Final = 10.0

_descriptors: set[int] = set()
_channels: "weakref.WeakSet[Any]" = weakref.WeakSet()

#: Lets one fork at a time prepare channels: two would deadlock on the locks of channels.
_preparing: Final = NativeRLock()

#: The channels that a fork has tried to prepare, by their `id`, and whether that succeeded.
_Attempts: TypeAlias = dict[int, tuple[Any, bool]]

# The attempts of each thread that forks; several if a signal handler forks during a fork.
_attempts: dict[int, list[_Attempts]] = {}
_this_thread: Final = original("_thread", "get_ident")

#: In a child: the prepared channels.
_prepared: dict[int, Any] = {}

#: Names of queues that this process must not open: at the fork their channels were in use and could not be prepared.
unsafe: Final[set[str]] = set()


class Opening:
    """Surrounds the opening of a channel for a handle. Other channels are not recorded: their creators manage them."""

    def __init__(self, name: str = "") -> None:
        self._name = name

    def __enter__(self) -> None:
        _openings.append(self._name)

    def __exit__(self, *_: object) -> None:
        _openings.remove(self._name)


# One entry for each thread inside `Opening`. A child keeps its parent's entries, which is harmless.
_openings: list[str] = []
opening: Final = Opening()


def opened(call: Callable[[], int]) -> int:
    """Return the descriptor that a call opens, and record it: a child closes it unless a channel owns it by then.

    In the end pass it to `closed` or `belongs`.
    """
    with no_fork:
        descriptor = call()
        _descriptors.add(descriptor)
    return descriptor


def closed(descriptor: int, closing: Callable[[], object] | None = None) -> None:
    """Close a descriptor from `opened`, with `closing` if given; do nothing in a child that has already closed it."""
    with no_fork:
        if descriptor in _descriptors:
            _descriptors.discard(descriptor)
            if closing is None:
                os.close(descriptor)
            else:
                closing()


def belongs(channel: object, *descriptors: int) -> None:
    """Record that a channel owns these descriptors; a child in which no open handle uses the channel abandons it.

    From now on each fork calls the channel's `before_fork`, even while the channel is being opened or closed.
    """
    with no_fork:
        if _openings:
            _channels.add(channel)
        _descriptors.difference_update(descriptors)


def prepares(channel: object) -> None:
    """Record that each fork must call the channel's `before_fork` from now on."""
    with no_fork:
        _channels.add(channel)


def is_closed(channel: object) -> None:
    """Remove a closed channel from the record, so that forks ignore it."""
    with no_fork:
        _channels.discard(channel)


def hold_over_forks(*locks: Any, in_child: Callable[[], object] | None = None) -> None:
    """Take locks before each fork and release them after it, so that no other thread holds them at a fork.

    A fork that another thread has already begun does not wait for the locks. In its child they are free, even if a
    thread held them.

    Args:
        *locks: Locks from `NativeRLock`, in the order in which to take them; without any, only call `in_child`.
        in_child: Called in each child before the locks are released.
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
    """Remove these descriptors from the record, so that children keep them."""
    with no_fork:
        _descriptors.difference_update(descriptors)


def abandon_others(held: Collection[int]) -> None:
    """In a forked child, close the recorded descriptors, and abandon all channels except those with these `id`s."""
    while _descriptors:
        # One by one, because a finaliser that runs here may close one of them, or open another.
        with suppress(OSError, KeyError):
            os.close(_descriptors.pop())
    for channel in list(_channels):
        if id(channel) not in held:
            channel.abandon()


def unprepared(held: Iterable[tuple[str, Any]], needs: Callable[[Any], bool]) -> set[int]:
    """In a forked child, return the `id` of each channel that had to be prepared for the fork but was not.

    Args:
        held: The names of queues and the channels of their open handles.
        needs: Returns whether a channel must be prepared.
    """
    missed = {id(each) for each in list(_channels) if needs(each) and id(each) not in _prepared}
    _prepared.clear()
    names = {id(channel): name for name, channel in held}
    unsafe.update(names[each] for each in missed & names.keys())
    if missed - names.keys():
        unsafe.update(_openings)  # one of them; it is unknown which
    return missed


def _before_fork() -> None:
    attempts: _Attempts = {}
    _attempts.setdefault(_this_thread(), []).append(attempts)
    errors: list[BaseException] = []
    until = monotonic() + _TIMEOUT_SECONDS
    _preparing.acquire(timeout=_TIMEOUT_SECONDS)
    while no_fork.acquire(timeout=_TIMEOUT_SECONDS):
        fresh = [channel for channel in list(_channels) if id(channel) not in attempts]
        if not fresh or (attempts and monotonic() > until):
            break
        no_fork.release()
        for channel in fresh:
            attempts[id(channel)] = (channel, False)
            try:
                channel.before_fork()
                attempts[id(channel)] = (channel, True)
            except BaseException as error:  # even from a signal handler: the other channels must still be prepared
                errors.append(error)
    if errors:
        del errors[1:]
        raise errors.pop()  # Python reports it, and forks anyway; in a list it would keep the interrupted frames alive


def _after_fork_in_parent() -> None:
    errors: list[BaseException] = []
    _release(no_fork)
    for channel, ready in _last_attempts().values():
        if ready:
            try:
                channel.after_fork_in_parent()
            except BaseException as error:  # as above
                errors.append(error)
    _release(_preparing)
    if errors:
        del errors[1:]
        raise errors.pop()


def _last_attempts() -> _Attempts:
    mine = _attempts.get(_this_thread())
    return mine.pop() if mine else {}  # empty if a signal handler raised before the first attempt


def _release(lock: Any) -> None:
    try:
        lock.release()
    except RuntimeError:
        pass  # the wait timed out, or the fork began before the lock was registered


def _release_in_child(lock: Any) -> None:
    try:
        lock.release()  # not reinitialised: a signal handler may have forked while its thread held the lock before
    except RuntimeError:
        lock._at_fork_reinit()  # the thread that holds it does not exist in the child


def _after_fork_in_child() -> None:
    for lock in (no_fork, _preparing):
        _release_in_child(lock)
    _prepared.update({each: channel for each, (channel, ready) in _last_attempts().items() if ready})
    _attempts.clear()


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
