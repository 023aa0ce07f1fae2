"""A channel to a queue without leases, and what channels to all queues have in common.

*Waiting for messages.* The FIFO `messages` has a byte while a get would not wait. A trigger writes it inside the
transaction that makes a message ready, before the commit. So a kill leaves a byte too many, never one too few. The FIFO
is emptied inside a transaction that holds the write lock, changes nothing, and finds nothing ready: in most cases by a
get that has found no message, and after each get or clear once a handle has asked for the descriptor.

*Waiting for space.* The FIFO `space` gets a byte when a message leaves a queue that was almost full, after the commit.
A process that waits empties it when it wakes up, and writes a byte itself when its put has succeeded, because another
message may fit now. A byte that is lost with a killed process delays others until they try again, which every wait does
after `ipcq.backend.SLICE`.

*Polling.* A take that found nothing looks before the next one whether that is still so. Reading needs no lock, so a
consumer that polls does not hold up producers.

*Ends.* Each call looks whether the name still leads to this queue. A call that empties the FIFO looks again afterwards:
`unlink` writes its byte after it has removed the name.
"""

import errno
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from ipcq.backend import (
    Attributes,
    Capabilities,
    Channel,
    Holder,
    Received,
    Stats,
    belongs,
    no_fork,
    reraise_from_handler,
    suppressed,
    translated,
)
from ipcq.errors import CorruptQueue, MessageQueueError, QueueGone, QueueShutDown
from ipcq_sqlite import _fifo, _place, _schema
from ipcq_sqlite._database import LONG_PATIENCE, PATIENCE, Database, Rows, Step

if TYPE_CHECKING:
    import sqlite3
    from select import epoll

_UNLIMITED: Final = 1 << 62
#: Most messages of one transaction: others wait for its end.
_MOST: Final = 10_000

_SILENCE: Final[Step] = (_schema.SILENCE, ())
STATE_OR_SILENCE: Final[Step] = (_schema.STATE_OR_SILENCE, ())
STATE: Final[Step] = (_schema.STATE, ())


class State(NamedTuple):
    """The figures that a channel looks at after each step."""

    ready: int
    leased: int
    delayed: int
    dead: int
    places: int
    charge: int
    down: int
    polled: int

    @classmethod
    def of_taking(cls, rows: Rows) -> "State":
        """Return the figures that the last statement of a transaction that takes messages has found."""
        *figures, _ = rows[-1][0]
        return cls(*figures)

    @property
    def ended(self) -> bool:
        return bool(self.down) and not (self.ready or self.leased or self.delayed)


class SqliteChannel(Channel):
    """A channel to a queue.

    Args:
        link: The queue's name, as a path.
        path: The queue's directory.
        database: Its database; the channel closes it.
        attributes: What the queue was created with.
        capabilities: What the queue can do.
    """

    may_block = True  # for the disk
    _drop_templates: Sequence[str] = (_schema.DROP_ONE, _schema.DROP_MANY)
    _latest_statements: Sequence[str] = (_schema.READ_LATEST, _schema.DROP_LATEST)

    def __init__(
        self,
        link: str,
        path: str,
        database: Database,
        attributes: Attributes,
        capabilities: Capabilities,
    ) -> None:
        self.attributes = attributes
        self.capabilities = capabilities
        self._link = link
        self._path = path
        self.incarnation = os.path.basename(path)
        self._database = database
        self._most_places = attributes.max_messages or _UNLIMITED
        self._most_charge = attributes.buffer_size or _UNLIMITED
        limits = {"places": self._most_places, "charge": self._most_charge}
        self._put_statement = _schema.PUT.format(**limits)
        self._full_statement = _schema.FULL.format(**limits)
        self._drop_statements = [statement.format(**limits) for statement in self._drop_templates]
        self._waited_for_space = self._found_nothing = False
        # The owners of the descriptors.
        self._files: list[epoll] = []
        # From here on children close the descriptors.
        belongs(self)
        try:
            with translated(_place.ERRORS):
                self._open()
            self._database.prepare(self._prepare, self._relieve, synced=attributes.options["durability"] == "full")
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        """Open the channel's descriptors."""
        for fifo in (_place.MESSAGES, _place.SPACE):
            with no_fork:
                self._files.append(_fifo.open_fifo(f"{self._path}/{fifo}"))
        self._messages, self._space = (file.fileno() for file in self._files[-2:])

    def _prepare(self, connection: "sqlite3.Connection") -> None:
        """Prepare a new connection."""
        # Functions in C, so that no signal handler runs inside a transaction.
        connection.create_function("ring", 0, partial(os.write, self._messages, b"!"))
        connection.create_function("hear", 0, partial(os.read, self._messages, _fifo.PIPE_SIZE))
        connection.execute(_schema.RINGING).close()
        # The FIFO has forgotten its bytes if no process had it open.
        states = connection.execute(_schema.STATE).fetchall()
        if len(states) != 1:
            raise CorruptQueue
        state = State(*states[0])
        if (state.ready or state.down) and not _fifo.is_ringing(self._messages):
            _fifo.ring(self._messages)

    def _relieve(self) -> None:
        """Make space in the FIFO, which is full if messages came and went for long and no get has found it empty."""
        _fifo.shorten(self._messages)

    # Steps

    def _check(self) -> None:
        if not self.linked():
            raise QueueGone

    def _write(self, patience: float, steps: Callable[[], Sequence[Step]], *, synced: bool = True) -> Rows | None:
        """Execute statements in one transaction; return their rows, or None if the lock is held."""
        self._check()
        try:
            return self._database.write(patience, steps, synced=synced)
        except MessageQueueError:
            self._check()
            raise

    def _write_due(self, patience: float, steps: Callable[[], Sequence[Step]], *, synced: bool = True) -> Rows | None:
        """Do the same after what is over by the clock has been returned; here nothing ever is."""
        return self._write(patience, steps, synced=synced)

    def _surely(self, *steps: Step) -> Rows:
        return self._database.sure(self._write_due(LONG_PATIENCE, lambda: steps))

    def _read(self, *steps: Step) -> Rows:
        return self._database.sure(self._read_within(LONG_PATIENCE, *steps))

    def _read_within(self, patience: float, *steps: Step) -> Rows | None:
        """Execute statements that write nothing; return their rows, or None if the lock is held."""
        self._check()
        try:
            return self._database.read(patience, *steps)
        except MessageQueueError:
            self._check()
            raise

    def _state(self) -> State:
        return State(*self._read(STATE)[0][0])

    def _silence(self) -> None:
        """Empty the FIFO if nothing is ready. Never fails, because the step before is complete."""
        with suppressed(MessageQueueError, MemoryError):
            self._database.write(PATIENCE, lambda: (_SILENCE,))
        self._ring_if_gone()

    def _ring_if_gone(self) -> None:
        if not self.linked():
            _fifo.ring(self._messages)

    # Messages

    def try_put(self, data: bytes, priority: int, /) -> bool:
        return self._put((data,), priority) == 1

    def try_put_many(self, batch: Sequence[bytes], priority: int = 0, /) -> int:
        return self._put(batch[:_MOST], priority)

    def try_put_dropping(self, data: bytes, priority: int, /) -> int | None:
        values = (_schema.key_base(priority), len(data) or 1)
        count = (_schema.COUNT_DROPPED, ())
        one, many = [(statement, values) for statement in self._drop_statements]
        steps = (one, count, many, count, *self._storing((data,), priority))
        found = self._write_due(PATIENCE, lambda: steps)
        if not self._is_stored(found):
            return None
        dropped = 0 if found is None else len(found[0]) + len(found[2])
        if dropped:
            _fifo.ring(self._space)
        return dropped

    def _put(self, batch: Sequence[bytes], priority: int, *entry: float | None) -> int:
        steps = self._storing(batch, priority, *entry)
        return self._is_stored(self._write(PATIENCE, lambda: steps))

    def _storing(self, batch: Sequence[bytes], priority: int, *entry: float | None) -> Sequence[Step]:
        """Return the statements that put messages."""
        base, charge = _schema.key_base(priority), 0
        rows = []
        for place, data in enumerate(batch, 1):
            charge += len(data) or 1
            rows.append((base, place, data, charge))
        return (
            (self._put_statement, rows[0] if len(rows) == 1 else rows),
            *self._counting(base, batch, *entry),
            (_schema.STORED, ()),
        )

    def _is_stored(self, found: Rows | None) -> int:
        """Return how many messages a put has stored."""
        if found is None:
            return 0
        stored, *state = found[-1][0]
        if not stored and State(*state).down:
            raise QueueShutDown
        if stored and self._waited_for_space:
            self._waited_for_space = False
            _fifo.ring(self._space)  # another process may find space too
        return int(stored)

    def _counting(self, base: int, batch: Sequence[bytes], *entry: float | None) -> Sequence[Step]:
        """Return the statements that complete a put."""
        if len(batch) == 1:
            return ((_schema.COUNT_ONE_PLAIN, (base, len(batch[0]))),)
        return ((_schema.COUNT_PLAIN, (base, len(batch))),)

    def try_get(self) -> Received | None:
        return next(iter(self._take((_schema.TAKE, ()))), None)

    def try_get_many(self, limit: int, /) -> list[Received]:
        return self._take((_schema.TAKE_MANY, (min(limit, _MOST),)))

    def try_get_latest(self) -> Received | None:
        if self._nothing_yet():
            return None
        read, drop = self._latest_statements
        steps = ((read, ()), (drop, ()), (_schema.COUNT_OLDER, ()), STATE_OR_SILENCE)
        found = self._write_due(PATIENCE, lambda: steps)
        if found is None:
            return None
        state = State.of_taking(found)
        self._found_nothing = not found[0]
        # All that has left is more than enough to wake who waits for space.
        self._left(state, len(found[0]), self._most_charge)
        return next(((data, _schema.priority_of(key)) for key, data in found[0]), None)

    def _take(self, *steps: Step) -> list[Received]:
        if self._nothing_yet():
            return []
        found = self._write_due(PATIENCE, lambda: (*steps, STATE_OR_SILENCE))
        if found is None:
            return []
        taken = sorted(found[0])
        self._found_nothing = not taken
        self._left(State.of_taking(found), len(taken), sum(len(data) or 1 for _, data in taken))
        return [(data, _schema.priority_of(key)) for key, data in taken]

    def _nothing_yet(self) -> bool:
        """Return whether the last take found nothing and the next one would not either, without the write lock."""
        if not self._found_nothing or _fifo.is_ringing(self._messages):
            return False
        # A silent FIFO is no proof: a process may have been killed between emptying it and its commit.
        found = self._read_within(PATIENCE, STATE)
        if found is None:
            return True
        state = State(*found[0][0])
        return not (state.ready or state.ended)

    def _left(self, state: State, count: int, charge: int) -> None:
        """Wake processes after messages have left, or report that the queue has ended."""
        if not count:
            self._ring_if_gone()
            if state.ended:
                raise QueueShutDown
            return
        places, used = state.places + count, state.charge + charge
        if places >= self._most_places or used + self.attributes.max_message_size > self._most_charge:
            _fifo.ring(self._space)
        if state.polled and not state.ready:
            self._silence()

    def peek(self) -> Received | None:
        found, (state,) = self._read(*self._peeking(), STATE)
        for key, data in found:
            return data, _schema.priority_of(key)
        if State(*state).ended:
            raise QueueShutDown
        return None

    def _peeking(self) -> Sequence[Step]:
        return ((_schema.PEEK, ()),)

    def clear(self) -> int:
        return self._drop((_schema.CLEAR, ()))

    def _drop(self, step: Step) -> int:
        dropped = (("SELECT changes()", ()), STATE)
        found = self._surely(step, *dropped)
        _fifo.ring(self._space)
        self._silence()
        return int(found[-2][0][0])

    def qsize(self) -> int:
        return self._state().ready

    def full(self) -> bool:
        ((full,),) = self._read((self._full_statement, ()))[0]
        return bool(full)

    def shutdown(self, immediate: bool, /) -> None:
        self._surely((_schema.SHUT_DOWN, ()), *([self._dropping()] if immediate else []))
        _fifo.ring(self._space)

    def _dropping(self) -> Step:
        return (_schema.CLEAR, ())

    def stats(self) -> Stats:
        ready, size, bytes_put, puts, gets, high, dropped, *_ = self._read((_schema.FIGURES, ()))[0][0]
        return Stats(
            depth=ready, bytes=size, bytes_put=bytes_put, puts=puts, gets=gets, dropped=dropped, high_water_mark=high
        )

    def holder(self, getting: bool, /) -> Holder | None:
        return self._database.holder()

    # Waiting

    def wait_readable(self, since: float, until: float, /) -> None:
        _fifo.listen(self._messages, until)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        if _fifo.listen(self._space, until):
            _fifo.silence(self._space)
            self._waited_for_space = True

    def fileno(self) -> int:
        with suppressed(QueueGone):  # the descriptor is readable then
            if not self._state().polled:
                self._surely((_schema.POLL, ()))
        self._silence()
        return self._messages

    # Life

    def linked(self) -> bool:
        try:
            if os.readlink(self._link) != self.incarnation:
                return False
            os.stat(f"{self._path}/{_place.DATABASE}")  # somebody may have removed the directory, and not the name
        except OSError as error:
            reraise_from_handler(error)
            # Otherwise it is unknown; the next call looks again. EINVAL: it is no link.
            return error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL)
        return True

    def close(self) -> None:
        try:
            self._database.close()
        finally:
            self._close_descriptors()

    def _close_descriptors(self) -> None:
        with no_fork:
            self._files.clear()

    def before_fork(self) -> None:
        self._database.before_fork()

    def after_fork_in_parent(self) -> None:
        self._database.after_fork_in_parent()

    def after_fork(self) -> bool:
        self._database.after_fork()
        return True

    def abandon(self) -> None:
        self._database.abandon()
        self._close_descriptors()
