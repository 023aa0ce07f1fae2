"""A channel to a queue with leases.

A transaction that takes messages first returns what is over: delays and holds by the clock, and the leases of owners
that have been found dead before it. Calls that only look do so without the write lock, unless something is over. A put
changes nothing that is over, and a lease that is settled tells by itself whether its hold is over.

*Syncs.* No lease survives a reboot, because no owner does. So a transaction that only leases, extends or returns what
is over is not synced: a power cut returns its messages in either case. The next one that is synced takes it along.

*The clock* is the monotonic one, so nobody can set it. It begins anew with each boot. The first process that connects
after a reboot measures the delays that are left by the other clock, and no lease has a living owner then.
"""

import json
import os
from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from ipcq.backend import (
    HOLD_ENDED,
    HOLDER_DIED,
    LONGEST,
    SLICE,
    Counts,
    DeadRecord,
    Held,
    LeaseChannel,
    Leased,
    Stats,
    Verdict,
    no_fork,
    suppressed,
    translated,
)
from ipcq.errors import CorruptQueue, MessageQueueError, QueueShutDown, VersionMismatch
from ipcq_sqlite import _fifo, _place, _schema
from ipcq_sqlite._channel import STATE, STATE_OR_SILENCE, SqliteChannel, State
from ipcq_sqlite._database import LONG_PATIENCE, PATIENCE, Rows, Step
from ipcq_sqlite._owners import LOOK_SECONDS, Owners, open_owners
from ipcq_sqlite._schema import number_of, priority_of

if TYPE_CHECKING:
    import sqlite3

#: In place of `max_deliveries`.
_NO_BOUND: Final = 1 << 62

_NEXT_DUE: Final[Step] = (_schema.NEXT_DUE, ())


class SqliteLeaseChannel(SqliteChannel, LeaseChannel):
    _owners: Owners
    _drop_templates = (_schema.DROP_ONE_READY, _schema.DROP_MANY_READY)
    _latest_statements = (_schema.READ_LATEST_READY, _schema.DROP_LATEST_READY)

    def _open(self) -> None:
        with no_fork:  # first, because close asks for the owner if there are files
            path = f"{self._path}/{_place.OWNERS}"
            file = open_owners(path)
            self._owners = Owners(path, file.fileno())
            self._files.append(file)
        super()._open()
        self._bound = self.attributes.max_deliveries or _NO_BOUND

    def _prepare(self, connection: "sqlite3.Connection") -> None:
        super()._prepare(connection)
        self._adapt_clock(connection)

    def _adapt_clock(self, connection: "sqlite3.Connection") -> None:
        """Measure by the clock of this boot what was measured by that of another."""
        clock = _clock()
        ((known,),) = connection.execute(_schema.READ_CLOCK).fetchall()
        if known == clock:
            return
        if not isinstance(known, str):  # SQLite checks types only when it stores them
            raise CorruptQueue
        if known.split()[:1] == clock.split()[:1]:
            raise VersionMismatch(
                "it is in use in another time namespace, whose clock differs from the one here: share the namespace"
            )
        connection.execute("BEGIN IMMEDIATE").close()
        try:
            ((known,),) = connection.execute(_schema.READ_CLOCK).fetchall()
            if known != clock:  # nobody else has done it
                connection.execute(_schema.REBOOT, {"now": monotonic(), "wall": time()}).close()
                connection.execute(_schema.SET_CLOCK, {"clock": clock}).close()
            connection.commit()
        finally:
            if connection.in_transaction:
                connection.rollback()

    # Steps

    def _write_due(self, patience: float, steps: Callable[[], Sequence[Step]], *, synced: bool = True) -> Rows | None:
        first = self._ending(patience)
        if first is None:
            return None
        rows = self._write(patience, lambda: (*first(), *steps()), synced=synced)
        if rows is None:
            return None
        return rows[len(first()) :]

    def _ending(self, patience: float) -> Callable[[], tuple[Step, ...]] | None:
        """Return what yields the statements that return what is over, or None if the lock is held."""
        dead = self._find_dead(patience)
        if dead is None:
            return None

        def steps() -> tuple[Step, ...]:
            values = {"now": monotonic(), "bound": self._bound, "reason": HOLD_ENDED}
            ending: tuple[Step, ...] = ((_schema.END_DUE, values),)
            if dead:
                values = {"owners": json.dumps(dead), "bound": self._bound, "reason": HOLDER_DIED}
                ending += (_schema.END_DEAD, values), (_schema.FORGET_DEAD, values)
            return ending

        return steps

    def _find_dead(self, patience: float) -> list[int] | None:
        """Return the owners that have died, unless this channel has just looked; None if the lock is held."""
        if not self._owners.is_time():
            return []
        found = self._read_within(patience, (_schema.OWNERS, ()))
        return None if found is None else self._owners.dead([number for (number,) in found[0]])

    def _read(self, *steps: Step) -> Rows:
        self._end_what_is_over()
        return super()._read(*steps)

    def _end_what_is_over(self, patience: float = LONG_PATIENCE) -> float | None:
        """Return what is over, and when something is over next, by the clock; None if that is unknown.

        Raises:
            TimedOutError: A process has held the lock for longer than `patience`, in seconds.
        """
        sure = self._database.sure
        ending = sure(self._ending(patience))
        due = _due(sure(self._read_within(patience, _NEXT_DUE)))
        if len(ending()) > 1 or (due is not None and due <= monotonic()):
            sure(self._write(patience, ending, synced=False))
            due = _due(sure(self._read_within(patience, _NEXT_DUE)))
        return due

    def _nothing_yet(self) -> bool:
        if self._owners.is_time() or not super()._nothing_yet():
            return False
        found = self._read_within(PATIENCE, _NEXT_DUE)
        if found is None:
            return True
        due = _due(found)
        return due is None or due > monotonic()

    # Messages

    def try_put_delayed(self, data: bytes, priority: int, delay: float, /) -> bool:
        if self._put((data,), priority, *_after(delay)) != 1:
            return False
        self._announce(delay)
        return True

    def _counting(self, base: int, batch: Sequence[bytes], *entry: float | None) -> Sequence[Step]:
        due, wall = entry or (None, None)
        state = _schema.READY if due is None else _schema.DELAYED
        return (
            (_schema.ENTER, (base, len(batch), state, due, wall)),
            (_schema.COUNT_ONE_LEASES, (base, len(batch[0]), state))
            if len(batch) == 1
            else (_schema.COUNT_LEASES, (base, len(batch), state)),
        )

    def _announce(self, seconds: float) -> None:
        """Wake waiting processes if something is over before they wake by themselves."""
        if 0 < seconds < SLICE:
            _fifo.ring(self._messages)

    def try_get(self) -> tuple[bytes, int] | None:
        return next(iter(self._take((_schema.TAKE_READY, ()), (_schema.DROP_READY, ()))), None)

    def try_get_many(self, limit: int, /) -> list[tuple[bytes, int]]:
        return super(SqliteChannel, self).try_get_many(limit)

    def _peeking(self) -> Sequence[Step]:
        return ((_schema.TAKE_READY, ()),)

    def clear(self) -> int:
        return self._drop((_schema.CLEAR_READY, ()))

    def _dropping(self) -> Step:
        return (_schema.DROP_LIVING, ())

    def stats(self) -> Stats:
        rows = self._read((_schema.FIGURES, ()))[0]
        ready, size, bytes_put, puts, gets, high, dropped, leased, delayed, dead, returned = rows[0]
        return Stats(
            depth=ready,
            bytes=size,
            bytes_put=bytes_put,
            puts=puts,
            gets=gets,
            dropped=dropped,
            high_water_mark=high,
            leased=leased,
            delayed=delayed,
            dead=dead,
            returned=returned,
        )

    # Waiting

    def wait_readable(self, since: float, until: float, /) -> None:
        with suppressed(MessageQueueError):  # the try after the wait raises it
            due = self._end_what_is_over(PATIENCE)
            if due is not None:
                until = min(until, due)
            if State(*self._database.sure(self._read_within(PATIENCE, STATE))[0][0]).leased:
                until = min(until, monotonic() + LOOK_SECONDS)
        super().wait_readable(since, until)

    def tend(self) -> float | None:
        due = self._end_what_is_over(PATIENCE)
        state = State(*super()._read(STATE)[0][0])
        if not (state.leased or state.delayed):
            return None
        seconds = LOOK_SECONDS if state.leased else LONGEST
        return seconds if due is None else min(seconds, max(0.0, due - monotonic()))

    # Leases

    def try_lease(self, serial: int, hold: float | None, /) -> Leased | None:
        return next(iter(self.try_lease_many(serial, 1, hold)), None)

    def try_lease_many(self, serial: int, limit: int, hold: float | None, /) -> list[Leased]:
        with translated(_place.ERRORS):
            owner = self._owners.enter()
        if self._nothing_yet():
            return []

        def steps() -> Sequence[Step]:
            now = monotonic()
            values = (None if hold is None else now + hold, owner, serial, now)
            return (
                (_schema.ENTER_OWNER, (owner,)),
                (_schema.LEASE_FIRST, values) if limit == 1 else (_schema.LEASE, (*values, limit)),
                (_schema.READ_LEASES, (owner, serial, limit)),
                STATE_OR_SILENCE,
            )

        found = self._write_due(PATIENCE, steps, synced=False)
        if found is None:
            return []
        state = State.of_taking(found)
        self._found_nothing = not found[-2]
        if self._found_nothing:
            self._ring_if_gone()
            if state.ended:
                raise QueueShutDown
        elif state.polled and not state.ready:
            self._silence()
        if hold is not None:
            self._announce(hold)
        return [
            Leased(data, priority_of(key), deliveries, token, failures)
            for data, key, deliveries, token, failures in found[-2]
        ]

    def recall(self, serial: int, count: int, /) -> None:
        if self._owners.number:
            self._surely((_schema.RECALL, {"owner": self._owners.number, "first": serial, "end": serial + count}))

    def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
        due, wall = _after(delay)
        values = {"due": due, "wall": wall, "bound": self._bound, "reason": reason}
        also = ((_schema.NOT_RETURNED, ()),) if verdict == Verdict.REJECT else ()
        lost = self._change(tokens, _schema.SETTLE[verdict], values, *also)
        if verdict == Verdict.ACK:
            _fifo.ring(self._space)
        self._announce(delay)
        return lost

    def extend(self, tokens: Sequence[int], hold: float, /) -> list[int]:
        lost = self._change(tokens, _schema.EXTEND, {"due": monotonic() + hold})
        self._announce(hold)
        return lost

    def find_lost(self, tokens: Sequence[int], /) -> list[int]:
        found = self._read(*((_schema.FIND, self._mine(token)) for token in tokens))
        return _missing(tokens, found)

    def _change(self, tokens: Sequence[int], statement: str, values: dict[str, Any], *also: Step) -> list[int]:
        """Change leases of this channel, and return the tokens that were lost."""

        def steps() -> list[Step]:
            now = {**values, "now": monotonic()}
            return [step for token in tokens for step in ((statement, {**now, **self._mine(token)}), *also)]

        found = self._database.sure(self._write(LONG_PATIENCE, steps, synced=statement != _schema.EXTEND))
        return _missing(tokens, found[:: 1 + len(also)])

    def _mine(self, token: int) -> dict[str, int]:
        return {"owner": self._owners.number, "token": token}

    def counts(self) -> Counts:
        state = self._state()
        return Counts(state.ready, state.leased, state.delayed, state.dead)

    def held(self, limit: int, /) -> list[Held]:
        now = monotonic()
        pids: dict[int, int | None] = {}
        held = []
        for owner, since, deliveries in self._read((_schema.HELD, (limit,)))[0]:
            if owner not in pids:
                pids[owner] = self._owners.pid_of(owner)
            held.append(Held(pids[owner], max(0.0, now - since), deliveries))
        return held

    # Dead letters

    def try_get_dead(self) -> DeadRecord | None:
        found = self._write_due(PATIENCE, lambda: ((_schema.READ_DEAD, (0, 1)), (_schema.DROP_FIRST_DEAD, ())))
        records = [] if found is None else found[0]
        if records:
            _fifo.ring(self._space)
        return next(map(_record, records), None)

    def peek_dead(self, after: int, limit: int, /) -> list[DeadRecord]:
        return list(map(_record, self._read((_schema.READ_DEAD, (after, limit)))[0]))

    def requeue(self, limit: int, /) -> int:
        found = self._surely((_schema.REQUEUE, (limit,)), ("SELECT changes()", ()), STATE)
        if State(*found[-1][0]).down:
            raise QueueShutDown
        return int(found[1][0][0])

    def clear_dead(self) -> int:
        return self._drop((_schema.CLEAR_DEAD, ()))

    # Life

    def close(self) -> None:
        try:
            if self._files and self._owners.number:
                with suppressed(MessageQueueError, MemoryError):
                    self._database.write(LONG_PATIENCE, self._leaving)
        finally:
            super().close()

    def _leaving(self) -> Sequence[Step]:
        values = {"owner": self._owners.number}
        return (_schema.LEAVE, values), (_schema.FORGET_OWNER, values)

    def after_fork(self) -> bool:
        super().after_fork()
        try:
            self._owners.reopen()
        except OSError:
            return False
        return True


def _clock() -> str:
    """Return what tells the monotonic clocks of boots and time namespaces apart."""
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        boot = file.read().strip()
    try:
        return f"{boot} {os.stat('/proc/self/ns/time').st_ino}"
    except OSError:  # the system has only one
        return f"{boot} 0"


def _after(delay: float) -> tuple[float, float] | tuple[None, None]:
    """Return when a delay ends, by both clocks; nothing if there is no delay."""
    return (monotonic() + delay, time() + delay) if delay > 0 else (None, None)


def _due(found: Rows) -> float | None:
    """Return when something is over next, or None if nothing ever is."""
    due: float | None
    ((due,),) = found[0]
    return due


def _missing(tokens: Sequence[int], found: Rows) -> list[int]:
    return [token for token, rows in zip(tokens, found, strict=True) if not rows]


def _record(row: tuple[bytes, int, int, bytes]) -> DeadRecord:
    data, key, deliveries, reason = row
    return DeadRecord(data, priority_of(key), deliveries, reason, number_of(key))
