"""The tasks of one event loop that wait for the messages, or for the space, of one handle.

**Normal operation.** `await q.put(x)` encodes `x` and calls the handle's non-waiting put. `await q.get()` calls the
non-waiting get. If the queue is full or empty, the task joins the waiters and awaits its turn. The task that has the
turn waits until the queue's descriptor is ready, calls again, passes the turn to the next task, and returns. So of a
million tasks, one waits at the descriptor, and a message wakes one task.

**Cancellation.** No task awaits anything between taking or storing a message and returning. So a call that is
cancelled, at any of its awaits, has taken and stored nothing. Where calls may block, an attempt runs in
a thread, and `run_in_thread` undoes what it takes. A cancelled call cleans up as follows:

- before it joins the waiters: nothing;
- awaiting its turn: it leaves the waiters, or if it has just received the turn, passes it on;
- at the descriptor: it passes the turn on. A message that made the descriptor ready is still in the queue, and the next
  task tries before it waits.

**Polling.** A close does not make the descriptor ready, and on some backends neither does a shutdown or an unlink. So
the task at the descriptor tries again at the end of each `slice` of the channel, one task for all waiters. The tasks
behind it notice the end one after the other.

**The descriptor** is a copy, because anyio lets only one task wait for each descriptor, and because it must stay open
while a task waits: the copy is closed with its `Waiters`.

**Other threads.** `Waiters` belong to one event loop, but a close in any thread ends them. A task first takes the turn
and *then* checks whether they have ended. `end` first marks them as ended and *then* checks whether a task has the
turn; only if not, it closes the descriptor. So at least one of the two sees the other.
"""

import socket
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import TypeVar

import anyio
from anyio.lowlevel import current_token

from ipcq._process.deadline import NEVER
from ipcq.backend import Channel
from ipcq.errors import QueueEmpty, QueueFull

R = TypeVar("R")


class Waiters:
    """The waiting tasks of one event loop, in FIFO order.

    Args:
        busy: Those of the handle's `Waiters` in which a task has the turn, shared by all of them.
        duplicate: Returns a copy of the descriptor to wait for, or None if there is none.
        wait: Waits for a descriptor.
        pause: Waits without a descriptor, from one time to another at most.
        seconds: The longest time of one wait.
    """

    def __init__(
        self,
        busy: "set[Waiters]",
        duplicate: Callable[[], int | None],
        wait: Callable[[int], Awaitable[None]],
        pause: Callable[[float, float], Awaitable[object]],
        seconds: float,
    ) -> None:
        self._busy = busy
        self._duplicate = duplicate
        self._wait = wait
        self._pause = pause
        self._seconds = seconds
        self._turns: OrderedDict[anyio.Event, None] = OrderedDict()
        self._slice = anyio.CancelScope()
        self._descriptor: int | None = None
        self._close_descriptor: Callable[[], object] = _nothing
        self._ended = False

    async def serve(self, attempt: Callable[[], Awaitable[R]], deadline: float, tried: bool) -> R:
        """Attempt until there is no `QueueEmpty` or `QueueFull`, or until `deadline` on `time.monotonic`.

        If `tried`, the caller has just made an attempt, so a task that has the turn at once waits first.
        """
        since = monotonic()
        tried = tried and self not in self._busy
        if not await self._take_turn(deadline):
            return await attempt()
        try:
            while True:
                if not tried:
                    try:
                        return await attempt()
                    except (QueueEmpty, QueueFull):
                        if monotonic() >= deadline:
                            raise
                tried = False
                await self._wait_until_ready(since, min(deadline, monotonic() + self._seconds))
        finally:
            self._pass_turn()

    async def _take_turn(self, deadline: float) -> bool:
        if self not in self._busy:
            self._busy.add(self)
            return True
        turn = anyio.Event()
        self._turns[turn] = None
        try:
            if deadline == NEVER:  # a scope for each of a million tasks would take more memory than the tasks
                await turn.wait()
            else:
                with anyio.move_on_after(deadline - monotonic()):
                    await turn.wait()
        except BaseException:
            if turn.is_set():
                self._pass_turn()
            else:
                del self._turns[turn]
            raise
        if not turn.is_set():
            del self._turns[turn]
        return turn.is_set()

    def _pass_turn(self) -> None:
        if self._turns:
            turn, _ = self._turns.popitem(last=False)
            turn.set()
            return
        self._busy.discard(self)
        if self._ended:
            self._close_descriptor()

    async def _wait_until_ready(self, since: float, until: float) -> None:
        """Wait until another attempt may succeed."""
        if self._ended:
            return
        if self._descriptor is None:
            self._descriptor = self._duplicate()
            if self._descriptor is not None:
                self._close_descriptor = weakref.finalize(self, socket.close, self._descriptor)
        with anyio.move_on_after(until - monotonic()) as self._slice:
            if self._descriptor is None:
                await self._pause(since, until)
            else:
                await self._wait(self._descriptor)

    def wake(self) -> None:
        """Let the task at the descriptor try now."""
        self._slice.cancel()

    def end(self) -> None:
        """Close the descriptor, now or when the last task has left; the handle is closed."""
        self._ended = True
        if self not in self._busy:
            self._close_descriptor()


class WaitersByLoop:
    """The `Waiters` of one handle for messages or for space, one per event loop; arguments are those of `Waiters`."""

    def __init__(
        self,
        duplicate: Callable[[], int | None],
        wait: Callable[[int], Awaitable[None]],
        pause: Callable[[float, float], Awaitable[object]],
        seconds: float,
    ) -> None:
        self.busy: set[Waiters] = set()
        self._new_waiters = partial(Waiters, self.busy, duplicate, wait, pause, seconds)
        self._by_loop: weakref.WeakKeyDictionary[object, Waiters] = weakref.WeakKeyDictionary()

    def of_this_loop(self) -> Waiters:
        """Return the `Waiters` of the running event loop."""
        loop = current_token().native_token
        waiters = self._by_loop.get(loop)
        if waiters is None:
            waiters = self._by_loop[loop] = self._new_waiters()
        return waiters

    def end(self) -> None:
        """Wake this event loop's `Waiters`, because the handle is closed; those of other loops notice by polling."""
        self.of_this_loop().wake()
        # Copy the references in one atomic step, because other threads may add event loops meanwhile.
        for loop in filter(None, [reference() for reference in self._by_loop.keyrefs()]):
            self._by_loop[loop].end()


def duplicate_descriptor(fileno_of: Callable[[Channel], int | None], channel: Channel) -> int | None:
    """Return a copy of a descriptor of the channel, or None if it has none or the descriptor table is full."""
    descriptor = fileno_of(channel)
    try:
        return None if descriptor is None else socket.dup(descriptor)  # on Windows os.dup fails on sockets
    except OSError:
        return None


def _nothing() -> None:
    """Replace the function that closes the descriptor while there is none."""
