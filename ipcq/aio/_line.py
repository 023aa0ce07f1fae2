"""The tasks of one event loop that wait for the same thing: messages of a handle, or space.

**A message's way.** `await q.put(x)` encodes `x` and calls the handle's non-waiting put, which stores the message or
says that there is no space. `await q.get()` calls the non-waiting get, which takes a message or says that there is
none. Where there is none, the task comes into a line, and what it awaits from then on is either its turn, or, for the
one whose turn it is, that the queue's descriptor is ready. Then it calls again, returns what it took, and the turn goes
to the next. So of a million tasks one is at the descriptor, and a message wakes one.

**Cancelling.** Nothing is awaited between taking a message and returning it, nor between storing one and returning. So
a call that is cancelled, at whichever of its awaits, has taken and stored nothing, and what it can leave is this:

- on its way in, when it lets other tasks run: nothing;
- in the line: its place, which it gives up, or if its turn has just come, its turn, which it passes on;
- at the descriptor: its turn, which it passes on. A message that made the descriptor ready is still in the queue, and
  the next in turn tries before it waits.

**Looking around.** A close does not make the descriptor readable, and on some backends neither does a shutdown or an
unlink. So the task at the descriptor tries again at least every `SLICE`, one task for the whole line, and those behind
it hear of the end from one another.

**The descriptor** is a copy, because anyio lets one task wait for each descriptor, and because nobody may close it
while a task waits: the line's own goes with the line.

**Other threads.** A line belongs to its event loop, but a close in any thread ends it. So who comes to the descriptor
looks whether the line has ended *after* it has taken its turn, and who ends the line closes the descriptor only if
nobody has the turn *after* it has said so: one of them sees the other.
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

from ipcq._process.deadline import NEVER, SLICE, nap
from ipcq.backend import Channel
from ipcq.errors import QueueEmpty, QueueFull

R = TypeVar("R")


class Line:
    """Those who wait in one event loop, in the order in which they came.

    Args:
        occupied: The lines of the handle in which somebody waits, this one among them or not.
        copied: Returns a copy of the descriptor to wait for, or None where there is none.
        wait: Waits for one.
    """

    def __init__(
        self, occupied: "set[Line]", copied: Callable[[], int | None], wait: Callable[[int], Awaitable[None]]
    ) -> None:
        self._occupied = occupied
        self._copied = copied
        self._wait = wait
        self._behind: OrderedDict[anyio.Event, None] = OrderedDict()
        self._slice = anyio.CancelScope()
        self._copy: int | None = None
        self._drop: Callable[[], object] = _nothing
        self._ended = False

    async def serve(self, attempt: Callable[[], R], deadline: float, tried: bool) -> R:
        """Attempt until there is no `QueueEmpty` or `QueueFull`, or until `deadline` on `time.monotonic`.

        `tried` says that an attempt was made right before, which need not be repeated at the head of the line.
        """
        since = monotonic()
        tried = tried and self not in self._occupied
        if not await self._has_turn(deadline):
            return attempt()
        try:
            while True:
                if not tried:
                    try:
                        return attempt()
                    except (QueueEmpty, QueueFull):
                        if monotonic() >= deadline:
                            raise
                tried = False
                await self._ready(since, min(deadline, monotonic() + SLICE))
        finally:
            self._pass_on()

    async def _has_turn(self, deadline: float) -> bool:
        if self not in self._occupied:
            self._occupied.add(self)
            return True
        turn = anyio.Event()
        self._behind[turn] = None
        try:
            if deadline == NEVER:  # a scope for each of a million tasks would take more memory than the tasks
                await turn.wait()
            else:
                with anyio.move_on_after(deadline - monotonic()):
                    await turn.wait()
        except BaseException:
            if turn.is_set():
                self._pass_on()
            else:
                del self._behind[turn]
            raise
        if not turn.is_set():
            del self._behind[turn]
        return turn.is_set()

    def _pass_on(self) -> None:
        if self._behind:
            turn, _ = self._behind.popitem(last=False)
            turn.set()
            return
        self._occupied.discard(self)
        if self._ended:
            self._drop()

    async def _ready(self, since: float, until: float) -> None:
        """Wait until another attempt makes sense."""
        if self._ended:
            return
        if self._copy is None:
            self._copy = self._copied()
            if self._copy is not None:
                self._drop = weakref.finalize(self, socket.close, self._copy)
        with anyio.move_on_after(until - monotonic()) as self._slice:
            if self._copy is None:
                await anyio.sleep(nap(since, until))
            else:
                await self._wait(self._copy)

    def wake(self) -> None:
        """Let who is at the descriptor try now."""
        self._slice.cancel()

    def end(self) -> None:
        """Give the descriptor back, now or when the last one has left; the handle is closed."""
        self._ended = True
        if self not in self._occupied:
            self._drop()


class Lines:
    """The lines of one handle for one thing, one in each event loop that uses it; arguments are those of `Line`."""

    def __init__(self, copied: Callable[[], int | None], wait: Callable[[int], Awaitable[None]]) -> None:
        self.occupied: set[Line] = set()
        self._new_line = partial(Line, self.occupied, copied, wait)
        self._lines: weakref.WeakKeyDictionary[object, Line] = weakref.WeakKeyDictionary()

    def here(self) -> Line:
        """Return the line of the event loop that runs."""
        loop = current_token().native_token
        line = self._lines.get(loop)
        if line is None:
            line = self._lines[loop] = self._new_line()
        return line

    def end(self) -> None:
        """Let those who wait in this event loop see at once that the handle is closed; in others they look around."""
        self.here().wake()
        # References at first, in one step: meanwhile loops of other threads may come.
        for loop in filter(None, [reference() for reference in self._lines.keyrefs()]):
            self._lines[loop].end()


def copied(ask: Callable[[Channel], int | None], channel: Channel) -> int | None:
    """Return a copy of a descriptor of the channel's, or None where there is none or no place in the table."""
    descriptor = ask(channel)
    try:
        return None if descriptor is None else socket.dup(descriptor)  # not os.dup, which knows no sockets on Windows
    except OSError:
        return None


def _nothing() -> None:
    """Stand in for what gives a descriptor back where there is none."""
