"""The life of an open handle: counting its calls, closing, and what a fork leaves of it.

A handle may be closed while other threads are inside a call, or by a signal handler or finaliser that interrupts a call
of its own thread. This is safe because every call is counted, a closed handle starts no new call on the channel, and
the channel is closed only when the count is zero: either by `close` itself or at the end of the last call.
"""

import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from sys import is_finalizing
from types import TracebackType
from typing import Final, NoReturn, Self, TypeVar

from ipcq._abilities.session import Session
from ipcq._handle.calls import calls_of_this_thread, counted
from ipcq._handle.leftovers import Leftovers
from ipcq._handle.origin import Origin
from ipcq._process.finaliser import quiet_at_exit
from ipcq._process.forks import Step, abandon_others, at_fork, is_closed, prepares, unprepared
from ipcq._process.gevent import is_in_hub
from ipcq._process.native import Base
from ipcq.backend import Channel, Received
from ipcq.errors import MessageQueueError, QueueClosed

R = TypeVar("R")

#: Why a child can use neither the inherited handle nor a new one.
NOT_PREPARED: Final = (
    "a call on the queue was in progress when this process was forked, and its backend's state must not cross a fork: "
    'fork while no call is in progress, or start processes with "spawn"'
)


class Lifecycle(Base):
    """The base of `Handle`: an open channel, with its calls counted.

    Calls in C are not counted here but in `Base`, and only while they do not hold the GIL. Subclasses set `_try_put`
    and `_try_get` before they call `__init__`. A closed handle replaces both.
    """

    __slots__ = (
        "__weakref__",
        "_calls",
        "_channel",
        "_closing",
        "_inherited",
        "_leftovers",
        "_origin",
        "_try_get",
        "_try_put",
        "_unclosed",
    )

    _try_put: Callable[[bytes, int], bool]
    _try_get: Callable[[], Received | None]
    _session: Session | None

    def __init__(self, channel: Channel, origin: Origin) -> None:
        self._origin = origin
        self._channel = channel
        self._unclosed = {"channel": channel}  # empty once the channel is closed
        self._closing = ""  # the reason why calls are refused; empty while the handle is open
        self._inherited = False
        # One entry for each call in progress. The counter is a deque because its append and pop are atomic and much
        # cheaper than a lock.
        self._calls: deque[None] = deque()
        self._leftovers = Leftovers(channel)
        self._session = Session() if channel.capabilities.leases else None
        _handles.add(self)
        if _prepares(channel):
            prepares(channel)

    def close(self) -> None:
        """Close this handle; the queue and its messages stay. Further calls do nothing.

        Calls of other threads that wait in this handle raise `QueueClosed`; `close` returns after they have ended. If a
        signal handler or a finaliser calls it during another call of the same thread, it returns at once, and the
        interrupted call releases the descriptors at its end.
        """
        if not self._closing:
            self._refuse_calls(QueueClosed.wording)
        if self._unclosed:
            self._channel.wake()
        self._wait_for_other_calls()
        self._close_channel_if_idle()
        self._wait_for_other_calls()  # another thread may be closing the channel at this moment
        self._warn_of_lost_messages()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @quiet_at_exit
    def __del__(self) -> None:
        if getattr(self, "_unclosed", None):  # otherwise it is closed, or `__init__` failed
            try:
                if not self._closing and not self._inherited:
                    warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=3)
            finally:  # a filter may turn the warning into an error
                self._close_channel_if_idle()
            self._warn_of_lost_messages(stacklevel=4)

    # Counting calls

    @counted
    def _with_channel(self, operation: Callable[[Channel], R]) -> R:
        """Run one operation on the channel, and count it as `put` and `get` count themselves."""
        try:
            self._calls.append(None)
            self._check_open()
            return operation(self._channel)
        except MessageQueueError as error:
            raise error.at(self._origin.name, self._origin.backend.name)
        finally:
            self._calls.pop()
            if self._closing:
                self._close_channel_if_idle()

    def _check_open(self) -> None:
        if self._closing:
            raise QueueClosed(self._closing)

    def _refuse_calls(self, reason: str) -> None:
        self._disarm()  # first: after this the last counted call closes the channel, and calls in C are not counted
        self._closing = self._leftovers.closing = reason
        self._try_put = self._try_get = refusal(QueueClosed, reason)

    def _wait_for_other_calls(self) -> None:
        """Wait until no thread is inside a call of this handle; return at once if this thread is inside one.

        Otherwise two threads whose finalisers close the handle during their calls would deadlock. Daemon threads no
        longer run while the interpreter exits, so there is no wait then.
        """
        if not calls_of_this_thread(self):
            while self._calls and not is_in_hub() and not is_finalizing():
                time.sleep(0.001)

    @counted
    def _close_channel_if_idle(self) -> None:
        """Close the channel, unless a call is in progress: then the last call to end closes it.

        Closing counts as a call, so that other calls of `close` return only when the channel is closed.
        """
        if not self._calls:
            try:
                self._calls.append(None)
                channel = self._unclosed.pop("channel", None)  # atomic, so that only one thread gets it
                if channel is not None:
                    self._disarm()  # again, because a finaliser closes the channel without refusing calls
                    self._await_uses()
                    channel.close()
                    if _prepares(channel):
                        is_closed(channel)
            finally:
                self._calls.pop()

    def _warn_of_lost_messages(self, stacklevel: int = 3) -> None:
        unreported = []
        while self._leftovers.errors:
            unreported.append(self._leftovers.errors.popleft().data)
        if unreported and not self._inherited:
            warnings.warn(
                f"{self!r} took messages that it could not decode and no get reported: {unreported}",
                stacklevel=stacklevel,
            )
        if kept := self._leftovers.drop():
            warnings.warn(
                f"{self!r} lost {kept} messages that did not fit into memory: get until the queue is empty before you "
                "close it",
                stacklevel=stacklevel,
            )

    def _forget_calls(self) -> None:
        # Other threads do not exist in the child; only calls of this thread still end. If a signal handler forked, a
        # call on the stack may not have been counted yet, or may have been uncounted already.
        self._forget_uses()  # first, because without a GIL it also resets the handle's lock
        # A new deque: without a GIL, a thread that does not exist in the child may hold the lock of the old one.
        self._calls = deque([None] * min(calls_of_this_thread(self), len(self._calls)))
        self._inherited = True
        self._leftovers.kept.clear()  # the parent returns these
        self._session = None if self._session is None else Session()  # the leases are the parent's
        if self._closing and not self._calls:
            self._unclosed.clear()  # the thread that had to close the channel does not exist in the child

    def _after_fork(self) -> None:
        if self._unclosed and not self._channel.after_fork():
            self._abandon("queues of this backend do not cross a fork: open the queue in the child")

    def _abandon(self, reason: str) -> None:
        self._unclosed.clear()
        self._refuse_calls(reason)


def refusal(kind: type[MessageQueueError], reason: str) -> Callable[..., NoReturn]:
    """Make a function that raises this error, to replace an operation."""

    def refuse(*_: object) -> NoReturn:
        raise kind(reason)

    return refuse


_handles: weakref.WeakSet[Lifecycle] = weakref.WeakSet()


def _prepares(channel: Channel) -> bool:
    return type(channel).before_fork is not Channel.before_fork


def _after_fork() -> None:
    handles = list(_handles)
    held = [(handle._origin.name, channel) for handle in handles for channel in handle._unclosed.values()]
    missed = unprepared(held, _prepares)
    for handle in handles:
        handle._forget_calls()
    abandon_others({id(channel) for handle in handles for channel in handle._unclosed.values()})
    for handle in handles:
        if missed.isdisjoint(map(id, handle._unclosed.values())):
            handle._after_fork()
        else:
            handle._abandon(NOT_PREPARED)


at_fork(Step.HANDLES, after_in_child=_after_fork)
