"""A channel with leases whose every operation is one transaction of SQL.

It shows that the protocol needs no more than that, and that a queue without death notices keeps the contract. It is no
backend for users: its queues are in the memory of one process.
"""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import count
from time import monotonic
from typing import Any, Final, TypeVar

from ipcq.backend import (
    HOLD_ENDED,
    LONGEST,
    Capabilities,
    Counts,
    DeadRecord,
    Held,
    LeaseChannel,
    Leased,
    Received,
    Request,
    Stats,
    Verdict,
    default_limits,
)
from ipcq.errors import QueueGone, QueueShutDown

R = TypeVar("R")

CAPABILITIES: Final = Capabilities(
    priorities=True, exact_qsize=True, peek=True, shutdown=True, leases=True, delays=True, modes=True
)

SCHEMA: Final = """
CREATE TABLE messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, priority INTEGER, data BLOB, state TEXT, due REAL,
    owner INTEGER, serial INTEGER, since REAL, deliveries INTEGER DEFAULT 0, failures INTEGER DEFAULT 0, reason BLOB
)
"""
NEXT: Final = "FROM messages WHERE state = 'ready' ORDER BY priority DESC, number"
MINE: Final = "state = 'leased' AND owner = ? AND serial = ?"

#: What becomes of a leased message: parameters are due, reason and the bound of failures.
VERDICTS: Final = {
    Verdict.RELEASE: "state = iif(:due IS NULL, 'ready', 'delayed'), due = :due",
    Verdict.FAIL: """failures = failures + 1, reason = :reason,
        state = iif(failures + 1 >= :bound, 'dead', iif(:due IS NULL, 'ready', 'delayed')), due = :due""",
    Verdict.REJECT: "state = 'dead', due = NULL, reason = :reason",
}

_owners = count(1)


class SqlQueue:
    """One queue, shared by its channels."""

    def __init__(self, request: Request) -> None:
        self.attributes = default_limits(request)
        self.linked = True
        self.down = False
        self.returned = 0
        self.lock = threading.RLock()
        self.base = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self.base.execute(SCHEMA)


class SqlChannel(LeaseChannel):
    capabilities = CAPABILITIES

    def __init__(self, queue: SqlQueue) -> None:
        self.attributes = queue.attributes
        self._queue = queue
        self._owner = next(_owners)

    def _transaction(self, step: Callable[[], R]) -> R:
        queue = self._queue
        with queue.lock:
            if not queue.linked:
                raise QueueGone
            with queue.base:
                queue.base.execute("BEGIN IMMEDIATE")
                self._return_what_is_over()
                return step()

    def _all(self, statement: str, *values: Any, **named: Any) -> list[Any]:
        with closing(self._queue.base.execute(statement, named or values)) as found:
            return found.fetchall()

    def _changed(self, statement: str, *values: Any, **named: Any) -> int:
        return self._queue.base.execute(statement, named or values).rowcount

    def _return_what_is_over(self) -> None:
        now = monotonic()
        self._changed("UPDATE messages SET state = 'ready', due = NULL WHERE state = 'delayed' AND due <= ?", now)
        self._queue.returned += self._changed(
            f"UPDATE messages SET {VERDICTS[Verdict.FAIL]} WHERE state = 'leased' AND due <= :now",
            due=None,
            reason=HOLD_ENDED,
            bound=self.attributes.max_deliveries,
            now=now,
        )

    def _count(self, *states: str) -> int:
        marks = ", ".join("?" * len(states))
        return int(self._all(f"SELECT count(*) FROM messages WHERE state IN ({marks})", *states)[0][0])

    def _check_not_ended(self) -> None:
        if self._queue.down and not self._count("ready", "leased", "delayed"):
            raise QueueShutDown

    def _put(self, data: bytes, priority: int, due: float | None) -> bool:
        def step() -> bool:
            if self._queue.down:
                raise QueueShutDown
            if self._is_full(len(data)):
                return False
            state = "ready" if due is None else "delayed"
            self._changed(
                "INSERT INTO messages (priority, data, state, due) VALUES (?, ?, ?, ?)", priority, data, state, due
            )
            return True

        return self._transaction(step)

    def _is_full(self, size: int) -> bool:
        places, used = self._all("SELECT count(*), ifnull(sum(max(length(data), 1)), 0) FROM messages")[0]
        most, capacity = self.attributes.max_messages, self.attributes.buffer_size
        return (most is not None and places >= most) or (capacity is not None and used + (size or 1) > capacity)

    def try_put(self, data: bytes, priority: int, /) -> bool:
        return self._put(data, priority, None)

    def try_put_delayed(self, data: bytes, priority: int, delay: float, /) -> bool:
        return self._put(data, priority, monotonic() + delay if delay else None)

    def try_get(self) -> Received | None:
        def step() -> Received | None:
            for number, data, priority in self._all(f"SELECT number, data, priority {NEXT} LIMIT 1"):
                self._changed("DELETE FROM messages WHERE number = ?", number)
                return data, priority
            self._check_not_ended()
            return None

        return self._transaction(step)

    def peek(self) -> Received | None:
        def step() -> Received | None:
            for data, priority in self._all(f"SELECT data, priority {NEXT} LIMIT 1"):
                return data, priority
            self._check_not_ended()
            return None

        return self._transaction(step)

    def qsize(self) -> int:
        return self._transaction(lambda: self._count("ready"))

    def full(self) -> bool:
        return self._transaction(lambda: self._is_full(0))

    def clear(self) -> int:
        return self._transaction(lambda: self._changed("DELETE FROM messages WHERE state IN ('ready', 'delayed')"))

    def shutdown(self, immediate: bool, /) -> None:
        def step() -> None:
            self._queue.down = True
            if immediate:
                self._changed("DELETE FROM messages WHERE state != 'dead'")

        self._transaction(step)

    def linked(self) -> bool:
        return self._queue.linked

    def stats(self) -> Stats:
        counts = self.counts()
        return Stats(
            depth=counts.ready,
            leased=counts.leased,
            delayed=counts.delayed,
            dead=counts.dead,
            returned=self._queue.returned,
        )

    def close(self) -> None:
        with self._queue.lock, self._queue.base:
            self._queue.returned += self._changed(
                f"UPDATE messages SET {VERDICTS[Verdict.RELEASE]} WHERE state = 'leased' AND owner = :owner",
                due=None,
                owner=self._owner,
            )

    def after_fork(self) -> bool:
        return False

    # Leases

    def try_lease(self, serial: int, hold: float | None, /) -> Leased | None:
        return next(iter(self.try_lease_many(serial, 1, hold)), None)

    def try_lease_many(self, serial: int, limit: int, hold: float | None, /) -> list[Leased]:
        assert hold is not None  # without death notices the core sends none

        def step() -> list[Leased]:
            leases = []
            for place, (number, data, priority, deliveries, failures) in enumerate(
                self._all(f"SELECT number, data, priority, deliveries, failures {NEXT} LIMIT ?", limit)
            ):
                self._changed(
                    "UPDATE messages SET state = 'leased', due = ?, owner = ?, serial = ?, since = ?, "
                    "deliveries = deliveries + 1 WHERE number = ?",
                    *(monotonic() + hold, self._owner, serial + place, monotonic(), number),
                )
                leases.append(Leased(data, priority, deliveries + 1, serial + place, failures))
            if not leases:
                self._check_not_ended()
            return leases

        return self._transaction(step)

    def recall(self, serial: int, count: int, /) -> None:
        def step() -> None:
            self._queue.returned += self._changed(
                f"UPDATE messages SET {VERDICTS[Verdict.RELEASE]} "
                "WHERE state = 'leased' AND owner = :owner AND serial >= :first AND serial < :end",
                due=None,
                owner=self._owner,
                first=serial,
                end=serial + count,
            )

        self._transaction(step)

    def settle(self, tokens: Sequence[int], verdict: Verdict, delay: float, reason: bytes, /) -> list[int]:
        def settle_one(token: int) -> int:
            mine = {"owner": self._owner, "serial": token}
            where = "WHERE state = 'leased' AND owner = :owner AND serial = :serial"
            if verdict == Verdict.ACK:
                return self._changed(f"DELETE FROM messages {where}", **mine)
            settled = self._changed(
                f"UPDATE messages SET {VERDICTS[verdict]} {where}",
                due=monotonic() + delay if delay else None,
                reason=reason,
                bound=self.attributes.max_deliveries,
                **mine,
            )
            self._queue.returned += settled if verdict != Verdict.REJECT else 0
            return settled

        return self._transaction(lambda: [token for token in tokens if not settle_one(token)])

    def extend(self, tokens: Sequence[int], hold: float, /) -> list[int]:
        due = monotonic() + hold
        statement = f"UPDATE messages SET due = ? WHERE {MINE}"
        return self._transaction(
            lambda: [token for token in tokens if not self._changed(statement, due, self._owner, token)]
        )

    def find_lost(self, tokens: Sequence[int], /) -> list[int]:
        statement = f"SELECT 1 FROM messages WHERE {MINE}"
        return self._transaction(lambda: [token for token in tokens if not self._all(statement, self._owner, token)])

    def tend(self) -> float | None:
        def step() -> float | None:
            out, due = self._all("SELECT count(*), min(due) FROM messages WHERE state IN ('leased', 'delayed')")[0]
            return None if not out else LONGEST if due is None else max(0.0, due - monotonic())

        return self._transaction(step)

    def counts(self) -> Counts:
        return self._transaction(
            lambda: Counts(*(self._count(state) for state in ("ready", "leased", "delayed", "dead")))
        )

    def held(self, limit: int, /) -> list[Held]:
        statement = "SELECT since, deliveries FROM messages WHERE state = 'leased' ORDER BY since LIMIT ?"
        return self._transaction(
            lambda: [Held(None, monotonic() - since, deliveries) for since, deliveries in self._all(statement, limit)]
        )

    # Dead letters

    def try_get_dead(self) -> DeadRecord | None:
        def step() -> DeadRecord | None:
            for record in self._dead(0, 1):
                self._changed("DELETE FROM messages WHERE number = ?", record.number)
                return record
            return None

        return self._transaction(step)

    def _dead(self, after: int, limit: int) -> list[DeadRecord]:
        statement = (
            "SELECT data, priority, deliveries, reason, number FROM messages "
            "WHERE state = 'dead' AND number > ? ORDER BY number LIMIT ?"
        )
        return [DeadRecord(*each) for each in self._all(statement, after, limit)]

    def peek_dead(self, after: int, limit: int, /) -> list[DeadRecord]:
        return self._transaction(lambda: self._dead(after, limit))

    def requeue(self, limit: int, /) -> int:
        def step() -> int:
            if self._queue.down:
                raise QueueShutDown
            return self._changed(
                "UPDATE messages SET state = 'ready', failures = 0 WHERE number IN "
                "(SELECT number FROM messages WHERE state = 'dead' ORDER BY number LIMIT ?)",
                limit,
            )

        return self._transaction(step)

    def clear_dead(self) -> int:
        return self._transaction(lambda: self._changed("DELETE FROM messages WHERE state = 'dead'"))
