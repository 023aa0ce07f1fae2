"""A channel over the file of a queue with leases.

*Returning what is over.* Each step first returns messages whose hold or delay has ended. While messages are leased, the
first step after 20 ms also looks for dead owners (see `_owners`); a waiting process wakes at the end of the next hold
or delay, and every 40 ms to look. If there is much to return, it takes several steps, so that the others get the lock.

*Large batches.* A step whose redo record is full commits, and goes on under the same lock. So others see a batch in one
step, except those that read the state without the lock; `PARTLY` in the flags tells them.
"""

import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic, monotonic_ns
from typing import Any, Final, TypeVar, cast

from ipcq.backend import (
    LONGEST,
    SLICE,
    STEP,
    Counts,
    DeadRecord,
    Held,
    LeaseChannel,
    Leased,
    Received,
    Stats,
    Verdict,
    suppressed,
)
from ipcq.errors import CorruptQueue, LimitExceeded, MessageQueueError, QueueShutDown
from ipcq_pyshm import _file
from ipcq_pyshm._bells import ALL, MESSAGES, SPACE
from ipcq_pyshm._channel import NOT_NOW, PATIENCE, NotNow, Overtaken, PyshmChannel, refuse_ended
from ipcq_pyshm._layout import (
    DOWN,
    MOST_OWNERS,
    NEVER,
    PARTLY,
    STATES_AT,
    STATES_BYTES,
    Geometry,
    LeaseState,
    State,
    newest_of_leases,
)
from ipcq_pyshm._leases import Leases, Mine, due_in
from ipcq_pyshm._owners import LOOK_NANOSECONDS, Owners
from ipcq_pyshm._ring import Cells

R = TypeVar("R")
T = TypeVar("T")
Taken = TypeVar("Taken", bound=tuple[Any, ...])

#: Seconds after which a waiting process looks for dead owners again.
_LOOK_SECONDS: Final = 2 * LOOK_NANOSECONDS / 1e9
#: Seconds for which `close` waits for the lock; then its leases end as those of a dead process.
_CLOSE_PATIENCE: Final = 0.5
_SLICE_NANOSECONDS: Final = int(SLICE * 1e9)


class _More:
    """The result of a step that has returned a part of what is over."""


_MORE: Final = _More()


class _Batch(list[T]):
    """What a step has taken; a part of it is committed."""

    committed = 0


class PyshmLeaseChannel(PyshmChannel, LeaseChannel):
    _order: Leases

    def _order_in(self, geometry: Geometry) -> Leases:
        self._newest = newest_of_leases
        # What the last steps have made, for which others have to be woken.
        self._made_ready = self._made_space = 0
        return Leases(self.attributes, geometry, self._read, self._write)

    def _begin(self) -> None:
        super()._begin()
        self._owners = Owners(self._descriptor, self._read, self._write)

    # Steps

    def _run(self, patience: float, step: Callable[..., R], *arguments: object) -> R | NotNow:
        """Return what is over, and run a step; then wake those whom that concerns."""
        try:
            while True:
                result = self._step(patience, self._tended, step, arguments)
                if not isinstance(result, _More):
                    return result
        finally:
            self._ring_owed()

    def _run_surely(self, step: Callable[..., R], *arguments: object) -> R:
        try:
            while True:
                result = self._surely(self._tended, step, arguments)
                if not isinstance(result, _More):
                    return result
        finally:
            self._ring_owed()

    def _tended(self, state: State, step: Callable[..., R], arguments: tuple[object, ...]) -> R | _More:
        leases = cast("LeaseState", state)
        ready, places, ended = leases.count, leases.places, leases.ended
        try:
            if (leases.next_due or leases.leased) and not self._return_over(leases):
                return _MORE
            return step(leases, *arguments)
        finally:
            # If the step fails before its commit, this wakes somebody for nothing.
            if leases.count > ready:
                self._made_ready += leases.count - ready
            if (now := leases.places) < places:
                self._made_space += places - now
            if leases.ended and not ended:
                self._made_ready = self._made_space = ALL

    def _ring_owed(self) -> None:
        if self._made_ready or self._made_space:
            ready, self._made_ready = self._made_ready, 0
            space, self._made_space = self._made_space, 0
            if ready:
                self._ring(MESSAGES, min(ready, ALL))
            if space:
                self._ring(SPACE, min(space, ALL))

    def _return_over(self, state: LeaseState) -> bool:
        """Return to the queue what is over; return False if there is more."""
        now = monotonic_ns()
        if 0 < state.next_due <= now:
            done = self._order.return_due(state, now)
            self._commit(state)
            self._go_on(state)
            if not done:
                return False
        if state.leased and now >= self._owners.next_look:
            dead = self._owners.find_dead(now)
            if dead:
                self._return_dead(state, dead)
                self._owners.looked(now)
        return True

    def _is_over(self, state: LeaseState) -> bool:
        now = monotonic_ns()
        return 0 < state.next_due <= now or (state.leased > 0 and now >= self._owners.next_look)

    def _state(self) -> LeaseState:
        state = cast("LeaseState", super()._state())
        self._order.begin(state)
        return state

    def _redo(self, state: State) -> Cells:
        return self._order.redo(state.redo)

    def _commit(self, state: State, cells: Cells = (), partly: int = 0) -> None:
        state.flags = state.flags & ~PARTLY | partly
        state.high_water_mark = max(state.high_water_mark, cast("LeaseState", state).places)
        super()._commit(state, self._order.staged.writes())

    def _commit_partly(self, state: LeaseState) -> None:
        self._commit(state, partly=PARTLY)

    def _go_on(self, state: State) -> None:
        super()._go_on(state)
        self._order.begin(cast("LeaseState", state))

    def _finish(self, step: Callable[..., R], *arguments: object) -> R | NotNow:
        return self._run(PATIENCE, step, *arguments)

    # What every channel does

    def try_get(self) -> Received | None:
        received = self._run(PATIENCE, self._get)
        return None if received is NOT_NOW else received

    def try_get_many(self, limit: int, /) -> list[Received]:
        return self._take_many(limit, lambda state, _: self._order.take(state)[0])

    def _take_many(
        self, limit: int, take: Callable[[LeaseState, int], Taken], enter: Callable[[LeaseState], object] | None = None
    ) -> list[Taken]:
        batch: _Batch[Taken] = _Batch()
        try:
            self._run(PATIENCE, self._take_batch, batch, limit, take, enter)
        except (MessageQueueError, MemoryError):
            if not batch.committed:
                raise
        del batch[batch.committed :]
        return batch

    def _take_batch(
        self,
        state: LeaseState,
        batch: _Batch[Taken],
        limit: int,
        take: Callable[[LeaseState, int], Taken],
        enter: Callable[[LeaseState], object] | None,
    ) -> None:
        if not batch.committed:
            refuse_ended(state)
        if state.count and enter is not None:
            enter(state)
        del batch[batch.committed :]
        size = 0
        try:
            while state.count and len(batch) < limit and size < STEP:
                batch.append(take(state, len(batch)))
                size += len(batch[-1][0])
                if self._order.staged.crowded:
                    self._commit_partly(state)
                    batch.committed = len(batch)
                    self._go_on(state)
            if len(batch) > batch.committed or state.flags & PARTLY:
                self._commit(state)
                batch.committed = len(batch)
        except (CorruptQueue, MemoryError):
            fewer = (len(batch) - batch.committed) // 2
            if not fewer:
                raise
            # Nothing of this part has been committed. Read the state again, and take fewer.
            self._take_batch(self._state(), batch, batch.committed + fewer, take, enter)

    def peek(self) -> Received | None:
        return self._run_surely(self._peek)

    def _peek(self, state: State) -> Received | None:
        received = self._order.look(cast("LeaseState", state)) if state.count else None
        if self._overtaken:
            raise Overtaken
        if received is None:
            refuse_ended(state)
        return received

    def clear(self) -> int:
        return self._run_surely(self._clear)

    def _clear(self, state: State) -> int:
        places = cast("LeaseState", state).places
        self._order.drop(cast("LeaseState", state))
        self._commit(state)
        return places - cast("LeaseState", state).places

    def shutdown(self, immediate: bool, /) -> None:
        self._run_surely(self._shut_down, immediate)
        self._ring(MESSAGES, ALL)
        self._ring(SPACE, ALL)

    def _shut_down(self, state: State, immediate: bool) -> None:
        state.flags |= DOWN
        if immediate:
            self._order.drop(cast("LeaseState", state), leased=True)
        self._commit(state)

    def _look(self) -> LeaseState:
        state = cast("LeaseState", super()._look())
        if state.flags & PARTLY or self._is_over(state):
            tended = self._run(PATIENCE, self._whole)
            return state if tended is NOT_NOW else tended
        return state

    def _whole(self, state: LeaseState) -> LeaseState:
        if state.flags & PARTLY:  # of a process that was killed
            self._commit(state)
        return state

    def _figures(self, state: State) -> Stats:
        leases = cast("LeaseState", state)
        return replace(
            super()._figures(state),
            bytes_put=None,  # the file has no count of them
            leased=leases.leased,
            delayed=leases.delayed,
            dead=leases.dead,
            returned=leases.returned,
        )

    def wait_readable(self, since: float, until: float, /) -> None:
        with suppressed(OSError, MessageQueueError):  # the try after the wait raises it
            state = self._newest(_file.pread(self._descriptor, STATES_BYTES, STATES_AT))
            if isinstance(state, LeaseState):
                if state.leased:
                    until = min(until, monotonic() + _LOOK_SECONDS)
                if state.next_due:
                    until = min(until, state.next_due / 1e9)
        super().wait_readable(since, until)

    def close(self) -> None:
        try:
            if self._owners.slot >= 0:
                self._raises = False  # what stays leased in a queue without a name would end as a failure
                with suppressed(MessageQueueError, MemoryError):
                    self._run(_CLOSE_PATIENCE, self._leave)
        finally:
            super().close()

    def _leave(self, state: LeaseState) -> None:
        self._release(state, lambda _: True)
        self._owners.leave(self._owners.slot)

    # Leases

    def try_put_delayed(self, data: bytes, priority: int, delay: float, /) -> bool:
        due = due_in(delay) if delay > 0 else 0
        if self._run(PATIENCE, self._put_delayed, data, priority, due) is not True:
            return False
        if due:
            self._announce(due)
        return True

    def _put_delayed(self, state: LeaseState, data: bytes, priority: int, due: int) -> bool:
        if state.flags & DOWN:
            raise QueueShutDown
        if not self._order.fits(state, len(data)):
            return False
        self._order.store(state, data, priority, due)
        self._commit(state)
        return True

    def _announce(self, due: int) -> None:
        """Wake waiting processes if something is due before they wake by themselves."""
        if due - monotonic_ns() < _SLICE_NANOSECONDS:
            self._ring(MESSAGES, ALL)

    def try_lease(self, serial: int, hold: float | None, /) -> Leased | None:
        due = NEVER if hold is None else due_in(hold)
        leased = self._run(PATIENCE, self._lease, serial, due)
        if leased is None or leased is NOT_NOW:
            return None
        if hold is not None:
            self._announce(due)
        return leased

    def _lease(self, state: LeaseState, serial: int, due: int) -> Leased | None:
        if not state.count:
            refuse_ended(state)
            return None
        leased = self._order.lease(state, self._enter(state), serial, due)
        self._commit(state)
        return leased

    def _enter(self, state: LeaseState) -> int:
        """Return the slot of this channel; if it has none and the table is full, remove the dead from the table."""
        slot = self._owners.slot
        if slot < 0:
            slot = self._owners.enter()
        if slot < 0:
            self._return_dead(state, self._owners.dead())
            slot = self._owners.enter()
        if slot < 0:
            raise LimitExceeded(
                limit="handles with leases",
                value=MOST_OWNERS,
                asked=MOST_OWNERS + 1,
                remedy="close handles that have leased from this queue",
                errno=errno.ENOSPC,
            )
        return slot

    def _return_dead(self, state: LeaseState, slots: set[int]) -> None:
        while not self._order.return_dead(state, slots):
            self._commit(state)
            self._go_on(state)
        self._commit(state)
        self._go_on(state)
        for slot in slots:
            self._owners.leave(slot)

    def try_lease_many(self, serial: int, limit: int, hold: float | None, /) -> list[Leased]:
        due = NEVER if hold is None else due_in(hold)
        batch = self._take_many(
            limit, lambda state, place: self._order.lease(state, self._owners.slot, serial + place, due), self._enter
        )
        self._announce(due)
        return batch

    def recall(self, serial: int, count: int, /) -> None:
        if self._owners.slot >= 0:
            self._run_surely(self._release, lambda mine: serial <= mine.front.serial < serial + count)

    def _release(self, state: LeaseState, which: Callable[[Mine], bool]) -> None:
        for mine in self._order.leases_of(state, {self._owners.slot}):
            if which(mine):
                self._order.give_back(state, mine, Verdict.RELEASE)
                if self._order.staged.crowded:
                    self._commit_partly(state)
                    self._go_on(state)
        self._commit(state)

    def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
        due = due_in(delay) if delay > 0 else 0
        lost = self._change(tokens, lambda state, mine: self._order.settle(state, mine, verdict, due, reason))
        if due:
            self._announce(due)
        return lost

    def extend(self, tokens: Sequence[int], hold: float, /) -> list[int]:
        due = due_in(hold)
        lost = self._change(tokens, lambda state, mine: self._order.extend(state, mine, due))
        self._announce(due)
        return lost

    def _change(self, tokens: Sequence[int], change: Callable[[LeaseState, Mine], object]) -> list[int]:
        """Change leases of this channel, and return the tokens that were lost."""
        lost: _Batch[int] = _Batch()
        self._run_surely(self._change_each, tokens, change, lost, [len(tokens)])
        return lost

    def _change_each(
        self,
        state: LeaseState,
        tokens: Sequence[int],
        change: Callable[[LeaseState, Mine], object],
        lost: _Batch[int],
        left: list[int],
    ) -> None:
        del lost[lost.committed :]
        now, slot, changed = monotonic_ns(), self._owners.slot, False
        # The last lease first: its entry is at the end of the heap, and no other has to fill the gap.
        for place in reversed(range(left[0])):
            mine = self._order.find(state, slot, tokens[place], now)
            if mine is None:
                lost.append(tokens[place])
                continue
            change(state, mine)
            changed = True
            if self._order.staged.crowded:
                self._commit_partly(state)
                lost.committed, left[0] = len(lost), place
                self._go_on(state)
        if changed or state.flags & PARTLY:
            self._commit(state)

    def find_lost(self, tokens: Sequence[int], /) -> list[int]:
        return self._run_surely(self._find_lost, tokens)

    def _find_lost(self, state: LeaseState, tokens: Sequence[int]) -> list[int]:
        now = monotonic_ns()
        lost = [token for token in tokens if self._order.find(state, self._owners.slot, token, now) is None]
        if self._overtaken:
            raise Overtaken
        return lost

    def tend(self) -> float | None:
        state = self._look()
        if not (state.leased or state.delayed):
            return None
        seconds = _LOOK_SECONDS if state.leased else LONGEST
        return min(seconds, max(0.0, (state.next_due - monotonic_ns()) / 1e9)) if state.next_due else seconds

    def counts(self) -> Counts:
        state = self._look()
        return Counts(state.count, state.leased, state.delayed, state.dead)

    def held(self, limit: int, /) -> list[Held]:
        now = monotonic_ns()
        pids: dict[int, int | None] = {}
        held = []
        for number, since, deliveries in self._run_surely(self._held, limit):
            if number not in pids:
                pids[number] = self._owners.pid_of(number)
            held.append(Held(pids[number], max(0, now - since) / 1e9, deliveries))
        return held

    def _held(self, state: LeaseState, limit: int) -> list[tuple[int, int, int]]:
        numbers = self._owners.numbers()
        found = self._order.held(state, limit)
        if self._overtaken:
            raise Overtaken
        return [(numbers[slot % len(numbers)], since, deliveries) for slot, since, deliveries in found]

    # Dead letters

    def try_get_dead(self) -> DeadRecord | None:
        record = self._run(PATIENCE, self._get_dead)
        return None if record is NOT_NOW else record

    def _get_dead(self, state: LeaseState) -> DeadRecord | None:
        if not state.dead:
            return None
        record = self._order.take_dead(state)
        self._commit(state)
        return record

    def peek_dead(self, after: int, limit: int, /) -> list[DeadRecord]:
        return self._run_surely(self._peek_dead, after, limit)

    def _peek_dead(self, state: LeaseState, after: int, limit: int) -> list[DeadRecord]:
        records = self._order.dead_after(state, after, limit)
        if self._overtaken:
            raise Overtaken
        return records

    def requeue(self, limit: int, /) -> int:
        requeued = [0]
        self._run_surely(self._requeue, limit, requeued)
        return requeued[0]

    def _requeue(self, state: LeaseState, limit: int, requeued: list[int]) -> None:
        if state.flags & DOWN:
            raise QueueShutDown
        count = requeued[0]
        while state.dead and count < limit:
            self._order.requeue(state)
            count += 1
            if self._order.staged.crowded:
                self._commit_partly(state)
                requeued[0] = count
                self._go_on(state)
        self._commit(state)
        requeued[0] = count

    def clear_dead(self) -> int:
        return self._run_surely(self._clear_dead)

    def _clear_dead(self, state: LeaseState) -> int:
        dropped = state.dead
        self._order.drop_dead(state)
        self._commit(state)
        return dropped
