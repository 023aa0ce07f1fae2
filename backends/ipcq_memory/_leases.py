"""A queue with leases, and a channel to it.

A message is one immutable record with its state. A step computes the records that it changes, and then commits with one
call of `dict.update`, between whose beginning and end CPython runs neither handlers nor finalisers. So a batch, too, is
changed in one step. A record that is None stands for a message that has left.

The two heaps are indexes. They have an entry for each ready message and for each end of a hold or a delay, pushed
before the commit, and perhaps entries that are out of date, which are skipped.
"""

import heapq
import os
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from math import inf
from operator import sub
from time import monotonic
from typing import Final, NamedTuple, TypeVar

from ipcq.backend import (
    HOLD_ENDED,
    LONGEST,
    Counts,
    DeadRecord,
    Held,
    LeaseChannel,
    Leased,
    Received,
    Request,
    Stats,
    Verdict,
)
from ipcq.errors import QueueShutDown
from ipcq_memory._channel import MemoryChannel
from ipcq_memory._queue import MemoryQueue, Overtaken, wake

R = TypeVar("R")

# A token is the serial number, and below it the number of the message.
_NUMBER_BITS: Final = 64

# The heaps are rebuilt when they have more entries out of date than that.
_SPARE_ENTRIES: Final = 64


class State(IntEnum):
    """The state of a message that is in the queue."""

    READY = 0
    LEASED = 1
    DELAYED = 2
    DEAD = 3


class Message(NamedTuple):
    """A message in one state."""

    number: int
    priority: int
    data: bytes
    state: State
    due: float = inf  # the end of the hold or the delay
    deliveries: int = 0
    failures: int = 0
    owner: "LeaseMemoryChannel | None" = None
    serial: int = 0
    since: float = 0.0
    reason: bytes = b""

    @property
    def charge(self) -> int:
        return len(self.data) or 1


class LeaseQueue(MemoryQueue):
    """One queue with leases, shared by its channels."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self._messages: dict[int, Message | None] = {}
        self._order: list[tuple[int, int]] = []  # (-priority, number) of ready messages
        self._ends: list[tuple[float, int]] = []  # (due, number) of leased and delayed messages
        self._counts = [0] * len(State)
        self._places = self.returned = 0
        self.has_orphans = False  # leases of channels that are closed

    # Steps. Each runs under the lock.

    def commit(
        self,
        changes: dict[int, Message | None],
        *,
        puts: int = 0,
        gets: int = 0,
        returned: int = 0,
        dropped: int = 0,
    ) -> None:
        """Replace messages in one step; with a new one, others can only leave."""
        if not changes:
            return
        old = [message for number in changes if (message := self._messages.get(number)) is not None]
        new = [message for message in changes.values() if message is not None]
        self._index(new)
        # Compute all numbers first, because that allocates.
        ready, leased, delayed, dead = map(sub, _count(new), _count(old))
        places, size = len(new) - len(old), sum(each.charge for each in new) - sum(each.charge for each in old)
        bytes_put = sum(len(message.data) for message in new) if puts else 0
        figures = self._counts
        done = True
        if self._overtaken:  # no handler runs between this check and the update
            raise Overtaken
        try:
            self._messages.update(changes)
        except MemoryError:
            done = False
            raise
        finally:  # also if a handler raises right after the update
            if done:  # pragma: no branch - otherwise MemoryError goes on
                figures[0] += ready
                figures[1] += leased
                figures[2] += delayed
                figures[3] += dead
                self._places += places
                self._bytes += size
                self.bytes_put += bytes_put
                self.puts += puts
                self.gets += gets
                self.returned += returned
                self.dropped += dropped
                if self._places > self.high_water_mark:  # noqa: PLR1730  # a handler may run after a call of `max`
                    self.high_water_mark = self._places
        if gets:
            self._forget(changes)
            wake(self.writers)
        if ready > 0 or self.ended():
            wake(self.readers)
        if 0 < ready == figures[State.READY]:
            self.tell()

    def _index(self, new: Iterable[Message]) -> None:
        for message in new:
            if message.state == State.READY:
                heapq.heappush(self._order, (-message.priority, message.number))
            elif message.due < inf:
                heapq.heappush(self._ends, (message.due, message.number))

    def _forget(self, changes: dict[int, Message | None]) -> None:
        for number, message in changes.items():
            if message is None:
                self._messages.pop(number, None)
        if len(self._order) + len(self._ends) > 3 * self._places + _SPARE_ENTRIES:
            order = sorted((-each.priority, each.number) for each in self.messages(State.READY))
            ends = sorted((each.due, each.number) for each in self.messages(State.LEASED, State.DELAYED))
            if not self._overtaken:  # otherwise a handler's step may have added entries
                self._order, self._ends = order, ends

    def messages(self, *states: State) -> list[Message]:
        """Return the messages in these states, in the order of putting."""
        # A copy, because a handler may change the queue. The dictionary is in the order of putting.
        everything = list(self._messages.values())
        return [each for each in everything if each is not None and each.state in states]

    def tend(self) -> None:
        """Return what is over by the clock, and what closed channels have left."""
        if self.has_orphans:
            self.has_orphans = False  # first, because another channel may close meanwhile
            try:
                orphans = [each for each in self.messages(State.LEASED) if each.owner and each.owner.closed]
                self.commit({each.number: returned(each) for each in orphans}, returned=len(orphans))
            except BaseException:
                self.has_orphans = True
                raise
        now = monotonic()
        while self._ends and self._ends[0][0] <= now:
            due, number = self._ends[0]
            message = self._messages.get(number)
            if message is not None and message.due == due:
                if message.state == State.DELAYED:
                    self.commit({number: returned(message)})
                else:
                    self.commit({number: self.failed(message, HOLD_ENDED)}, returned=1)
            if self._overtaken:
                raise Overtaken
            heapq.heappop(self._ends)

    def failed(self, message: Message, reason: bytes, due: float = inf) -> Message:
        """Return a leased message after a failure."""
        failures = message.failures + 1
        bound = self.attributes.max_deliveries
        if bound is not None and failures >= bound:
            return dead(message, reason)._replace(failures=failures)
        return returned(message, due)._replace(failures=failures)

    def next_ready(self) -> Message | None:
        while self._order:
            _, number = self._order[0]
            message = self._messages.get(number)
            if message is not None and message.state == State.READY:
                return message
            if self._overtaken:
                raise Overtaken
            heapq.heappop(self._order)
        return None

    def first_ready(self, limit: int) -> list[Message]:
        """Return up to `limit` ready messages, in order, without a look at the others."""
        order = self._order
        found: dict[int, Message] = {}  # by number, because a message may have more than one entry
        places = [(entry, 0) for entry in order[:1]]
        while places and len(found) < limit:
            (_, number), place = heapq.heappop(places)
            message = self._messages.get(number)
            if message is not None and message.state == State.READY:
                found[number] = message
            for child in (2 * place + 1, 2 * place + 2):
                for entry in order[child : child + 1]:  # a copy, because a handler may change it
                    heapq.heappush(places, (entry, child))
        return list(found.values())

    def next_end(self) -> float:
        for due, _ in self._ends[:1]:  # a copy, because another thread may change it
            return due
        return inf

    def leased_by(self, owner: object, token: int) -> Message | None:
        """Return the message of a token, or None if the lease is over."""
        serial, number = token >> _NUMBER_BITS, token & ((1 << _NUMBER_BITS) - 1)
        message = self._messages.get(number)
        if message is None or message.state != State.LEASED:
            return None
        return message if message.owner is owner and message.serial == serial else None

    def has_space(self, size: int) -> bool:
        return self._places < self._most_messages and self._bytes + (size or 1) <= self._most_bytes

    def store(self, data: bytes, priority: int, delay: float = 0.0) -> None:
        number = next(self._tickets) + 1
        if delay > 0:
            message = Message(number, priority, data, State.DELAYED, monotonic() + delay)
        else:
            message = Message(number, priority, data, State.READY)
        self.commit({number: message}, puts=1)

    def store_dropping(self, data: bytes, priority: int) -> int | None:
        number = next(self._tickets) + 1
        changes: dict[int, Message | None] = {number: Message(number, priority, data, State.READY)}
        places, charge = self._places + 1, self._bytes + (len(data) or 1)
        ready = [each for each in self.messages(State.READY) if each.priority <= priority]
        for victim in sorted(ready, key=lambda each: each.priority):  # stable: the oldest first
            if places <= self._most_messages and charge <= self._most_bytes:
                break
            changes[victim.number] = None
            places -= 1
            charge -= victim.charge
        if places > self._most_messages or charge > self._most_bytes:
            return None
        dropped = len(changes) - 1
        self.commit(changes, puts=1, gets=dropped, dropped=dropped)
        return dropped

    def take_latest(self) -> Received:
        ready = self.messages(State.READY)
        newest = max(ready, key=lambda each: (each.priority, each.number))
        changes: dict[int, Message | None] = {each.number: None for each in ready if each.priority == newest.priority}
        self.commit(changes, gets=len(changes), dropped=len(changes) - 1)
        return newest.data, newest.priority

    def look(self) -> Received | None:
        message = self.next_ready()
        return None if message is None else (message.data, message.priority)

    def drop(self) -> int:
        return self.drop_all(State.READY, State.DELAYED)

    def drop_all(self, *states: State) -> int:
        dropped = self.messages(*states)
        self.commit({each.number: None for each in dropped}, gets=len(dropped))
        return len(dropped)

    def end(self) -> None:
        self.drop_all(State.READY, State.DELAYED, State.LEASED)

    def size(self) -> int:
        return self._counts[State.READY]

    def ended(self) -> bool:
        return self.down and self._places == self._counts[State.DEAD]

    def counts(self) -> Counts:
        return Counts(*self._counts)

    def stats(self) -> Stats:
        counts = self.counts()
        return Stats(
            depth=counts.ready,
            bytes=sum(len(each.data) for each in self.messages(*State)),
            bytes_put=self.bytes_put,
            puts=self.puts,
            gets=self.gets,
            dropped=self.dropped,
            high_water_mark=self.high_water_mark,
            waits=self.waits,
            timeouts=self.timeouts,
            recoveries=0,
            handles=self.holders,
            leased=counts.leased,
            delayed=counts.delayed,
            dead=counts.dead,
            returned=self.returned,
        )


def _count(messages: Iterable[Message]) -> list[int]:
    """Return how many are in each state."""
    counts = [0] * len(State)
    for message in messages:
        counts[message.state] += 1
    return counts


def returned(message: Message, due: float = inf) -> Message:
    """Return a message as ready, or as delayed."""
    state = State.READY if due == inf else State.DELAYED
    return message._replace(state=state, due=due, owner=None, serial=0)


def dead(message: Message, reason: bytes) -> Message:
    """Return a message as a dead letter."""
    return message._replace(state=State.DEAD, due=inf, owner=None, serial=0, reason=reason)


def _record(message: Message) -> DeadRecord:
    return DeadRecord(message.data, message.priority, message.deliveries, message.reason, message.number)


class LeaseMemoryChannel(MemoryChannel, LeaseChannel):
    _queue: LeaseQueue

    def __init__(self, name: str, queue: LeaseQueue, request: Request) -> None:
        super().__init__(name, queue, request)
        self.closed = False

    # What every channel does. Each step first returns what is over.

    def _get_once(self) -> Received | None:
        # Not by the figures, which are wrong while this call is in the middle of another one's commit.
        self._check()
        self._queue.tend()
        message = self._queue.next_ready()
        if message is not None:
            self._queue.commit({message.number: None}, gets=1)
            return message.data, message.priority
        if self._queue.ended():
            raise QueueShutDown
        return None

    def _whole(self, step: Callable[[], R]) -> Callable[[], R]:
        def whole() -> R:
            self._check()
            self._queue.tend()
            return step()

        return whole

    def _checked(self, step: Callable[[], R]) -> R:
        return self._anew(step)

    def wait_readable(self, since: float, until: float, /) -> None:
        super().wait_readable(since, min(until, self._queue.next_end()))

    def close(self) -> None:
        self.closed = self._queue.has_orphans = True
        try:
            self._queue.alone(self._queue.anew, self._queue.tend)
        except MemoryError:
            pass  # the next operation on the queue returns them
        super().close()

    # Leases

    def try_put_delayed(self, data: bytes, priority: int, delay: float, /) -> bool:
        def step() -> bool:
            self._check()
            if self._queue.down:
                raise QueueShutDown
            if not self._queue.has_space(len(data)):
                return False
            self._queue.store(data, priority, delay)
            return True

        return self._queue.alone(lambda: self._queue.anew(step))

    def try_lease(self, serial: int, hold: float | None, /) -> Leased | None:
        leases = self.try_lease_many(serial, 1, hold)
        return leases[0] if leases else None

    def try_lease_many(self, serial: int, limit: int, hold: float | None, /) -> list[Leased]:
        queue = self._queue

        def step() -> list[Leased]:
            first = queue.next_ready()  # also drops the entries before it, which are out of date
            if first is None and queue.ended():
                raise QueueShutDown
            ready = [first] if limit == 1 and first is not None else queue.first_ready(limit)
            now = monotonic()
            messages = [
                each._replace(
                    state=State.LEASED,
                    due=inf if hold is None else now + hold,
                    deliveries=each.deliveries + 1,
                    owner=self,
                    serial=serial + place,
                    since=now,
                )
                for place, each in enumerate(ready)
            ]
            leases = [
                Leased(
                    each.data, each.priority, each.deliveries, each.serial << _NUMBER_BITS | each.number, each.failures
                )
                for each in messages
            ]
            queue.commit({each.number: each for each in messages})
            return leases

        return self._checked(step)

    def recall(self, serial: int, count: int, /) -> None:
        queue = self._queue

        def step() -> None:
            mine = [each for each in queue.messages(State.LEASED) if each.owner is self]
            found = [each for each in mine if serial <= each.serial < serial + count]
            queue.commit({each.number: returned(each) for each in found}, returned=len(found))

        self._checked(step)

    def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
        due = monotonic() + delay if delay > 0 else inf
        settled: dict[Verdict, Callable[[Message], Message | None]] = {
            Verdict.ACK: lambda _: None,
            Verdict.RELEASE: lambda message: returned(message, due),
            Verdict.FAIL: lambda message: self._queue.failed(message, reason, due),
            Verdict.REJECT: lambda message: dead(message, reason),
        }
        given_back = verdict in (Verdict.RELEASE, Verdict.FAIL)
        return self._change(tokens, settled[verdict], gets=int(verdict == Verdict.ACK), returned=int(given_back))

    def extend(self, tokens: Sequence[int], hold: float, /) -> list[int]:
        due = monotonic() + hold
        return self._change(tokens, lambda message: message._replace(due=due))

    def find_lost(self, tokens: Sequence[int], /) -> list[int]:
        return self._checked(lambda: [each for each in tokens if self._queue.leased_by(self, each) is None])

    def _change(self, tokens: Sequence[int], changed: Callable[[Message], Message | None], **figures: int) -> list[int]:
        """Change leased messages in one step, and return the tokens that were lost."""
        queue = self._queue

        def step() -> list[int]:
            changes: dict[int, Message | None] = {}
            lost = []
            for token in tokens:
                message = queue.leased_by(self, token)
                if message is None or message.number in changes:
                    lost.append(token)
                else:
                    changes[message.number] = changed(message)
            queue.commit(changes, **{figure: each * len(changes) for figure, each in figures.items()})
            return lost

        return self._checked(step)

    def tend(self) -> float | None:
        queue = self._queue

        def step() -> float | None:
            counts = queue.counts()
            if not (counts.leased or counts.delayed):
                return None
            return min(LONGEST, max(0.0, queue.next_end() - monotonic()))

        return self._checked(step)

    def counts(self) -> Counts:
        return self._checked(self._queue.counts)

    def held(self, limit: int, /) -> list[Held]:
        def step() -> list[Held]:
            leased = sorted(self._queue.messages(State.LEASED), key=lambda each: each.since)
            now = monotonic()
            return [Held(os.getpid(), now - each.since, each.deliveries) for each in leased[:limit]]

        return self._checked(step)

    # Dead letters

    def try_get_dead(self) -> DeadRecord | None:
        def step() -> DeadRecord | None:
            letters = self._queue.messages(State.DEAD)[:1]
            records = [*map(_record, letters), None]
            self._queue.commit({each.number: None for each in letters}, gets=len(letters))
            return records[0]

        return self._checked(step)

    def peek_dead(self, after: int, limit: int, /) -> list[DeadRecord]:
        def step() -> list[DeadRecord]:
            letters = [each for each in self._queue.messages(State.DEAD) if each.number > after]
            return list(map(_record, letters[:limit]))

        return self._checked(step)

    def requeue(self, limit: int, /) -> int:
        def step() -> int:
            if self._queue.down:
                raise QueueShutDown
            letters = self._queue.messages(State.DEAD)[:limit]
            self._queue.commit({each.number: returned(each)._replace(failures=0, reason=b"") for each in letters})
            return len(letters)

        return self._checked(step)

    def clear_dead(self) -> int:
        return self._checked(lambda: self._queue.drop_all(State.DEAD))
