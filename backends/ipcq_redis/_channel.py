"""A channel to a queue."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NamedTuple

from ipcq.backend import (
    STEP,
    Attributes,
    Capabilities,
    Operation,
    Received,
    RemoteChannel,
    Stats,
    Unanswered,
    ask,
    belongs,
    reraise_from_handler,
)
from ipcq.errors import ConnectionLost, MessageQueueError, QueueGone, QueueShutDown
from ipcq_redis._client import REMEMBERED, Client, Lanes, number_of
from ipcq_redis._connection import Connection, Word
from ipcq_redis._place import key_of, keys_of
from ipcq_redis._scripts import CELL_KEYS, CELLS, LIST, PLAIN_KEYS, Script, Scripts

#: Seconds for which an answer that there is nothing to take, or no space, may begin a wait.
_FRESH_SECONDS: Final = 1.0
#: Seconds after the end of a wait in which the server's answer has to come.
_LATE_SECONDS: Final = 0.25


class Last(NamedTuple):
    """The last change when there was nothing to take, or no space."""

    number: int
    """Its number; -1 if unknown."""
    until: float
    """The time until which a wait may begin with it."""
    due: float
    """The time when the server changes something by itself."""


_UNKNOWN: Final = Last(-1, 0.0, 0.0)
_NEVER: Final = float("inf")


class RedisChannel(RemoteChannel):
    """A channel to a queue.

    Args:
        client: Connections to the server; the channel closes them.
        name: The queue's name.
        incarnation: The queue's incarnation.
        attributes: What the queue was created with.
        capabilities: What the queue can do.
    """

    _scripts: Scripts
    _suffixes: Sequence[str]

    def __init__(
        self, client: Client, name: str, incarnation: str, attributes: Attributes, capabilities: Capabilities
    ) -> None:
        self.attributes = attributes
        self.capabilities = capabilities
        self.incarnation = incarnation
        self._server = client.server
        self._choose_scripts()
        self._meta = key_of(name)
        self._keys = keys_of(self._meta, incarnation, self._suffixes)
        self._stored = 0  # the highest number of a message that this channel put
        self._wakes = 0
        self._begin(client)
        belongs(self)

    def _choose_scripts(self) -> None:
        self._scripts, self._suffixes = (CELLS, CELL_KEYS) if self.attributes.priorities else (LIST, PLAIN_KEYS)

    def _begin(self, client: Client) -> None:
        """Begin with what no other process has."""
        self._client = client
        self._lanes = Lanes()
        self._gets: Unanswered[Received] = Unanswered(REMEMBERED)
        self._waiting: set[Connection] = set()
        self._idle: list[Connection] = []  # for waits
        self._last = {"readers": _UNKNOWN, "writers": _UNKNOWN}

    # Operations

    def _attempt(self, operation: Operation, script: Script, *words: Word) -> list[Any]:
        """Make one attempt of an operation that the server carries out once."""
        identity = operation.identity
        lane = self._lanes.lane_of(identity)
        keys = (self._meta, f"{self._meta}:{self.incarnation}:lane:{lane}", *self._keys)
        number = f"{number_of(identity):016}"
        try:
            reply = self._client.run(operation, script, keys, number, self.incarnation, *words)
        except ConnectionLost:
            raise
        except MessageQueueError:
            self._lanes.give_back(identity)
            raise
        self._lanes.give_back(identity)
        return reply

    def _once(self, script: Script, *words: Word) -> list[Any]:
        identity = ""

        def attempt(operation: Operation) -> list[Any]:
            nonlocal identity
            identity = operation.identity
            return self._attempt(operation, script, *words)

        try:
            return self._checked(ask(attempt, remembered=REMEMBERED))
        finally:
            # A request without an answer may be on its way. The next operation uses its lane, so that the server does
            # not carry it out after that one: its message would come out of order.
            self._lanes.give_back(identity)

    def _look(self, script: Script, *words: Word) -> list[Any]:
        """Carry out an operation that may be repeated."""
        keys = (self._meta, self._meta, *self._keys)

        def attempt(operation: Operation) -> list[Any]:
            return self._client.run(operation, script, keys, "", self.incarnation, *words)

        return self._checked(ask(attempt, harmless=True))

    def _checked(self, reply: list[Any]) -> list[Any]:
        """Return the reply without its first part, which says what it is; remember when there was nothing to do."""
        kind, *rest = reply
        if kind == b"down":
            raise QueueShutDown
        if kind in (b"none", b"full") and rest:
            due = monotonic() + rest[1] / 1e6 if kind == b"none" and rest[1] >= 0 else _NEVER
            side = "readers" if kind == b"none" else "writers"
            self._last[side] = Last(rest[0], monotonic() + _FRESH_SECONDS, due)
        return rest if kind == b"ok" else []

    # Messages

    def try_put(self, data: bytes, priority: int, /) -> bool:
        return self._put([data], priority, 0) == 1

    def try_put_many(self, batch: Sequence[bytes], priority: int = 0, /) -> int:
        return self._put(batch, priority, 0)

    def _put(self, batch: Sequence[bytes], priority: int, delay: int) -> int:
        stored, number = self._once(self._scripts.put, priority, delay, *batch) or (0, 0)
        self._note_number(stored, number)
        return int(stored)

    def try_put_dropping(self, data: bytes, priority: int, /) -> int | None:
        stored, number, dropped = self._once(self._scripts.put_dropping, priority, data) or (0, 0, 0)
        self._note_number(stored, number)
        return int(dropped) if stored else None

    def _note_number(self, stored: int, number: int) -> None:
        """Note the number of the last message that was stored, and warn if the server's numbers have gone backwards."""
        before = self._stored
        if stored and number <= before:
            _warn_of_loss(before - number + stored, self.incarnation)
            self._stored = number
        self._stored = max(self._stored, number)

    def try_get(self) -> Received | None:
        return next(iter(self.try_get_many(1)), None)

    def try_get_many(self, limit: int, /) -> list[Received]:
        def attempt(operation: Operation) -> list[Received]:
            return _messages(self._checked(self._attempt(operation, self._scripts.get, limit, STEP)))

        return self._gets.take(attempt, limit)

    def try_get_latest(self) -> Received | None:
        def attempt(operation: Operation) -> list[Received]:
            return _messages(self._checked(self._attempt(operation, self._scripts.get_latest)))

        return next(iter(self._gets.take(attempt, 1)), None)

    def peek(self) -> Received | None:
        return next(iter(_messages(self._look(self._scripts.peek))), None)

    def clear(self) -> int:
        return int(self._once(self._scripts.clear)[0])

    def qsize(self) -> int:
        return int(self._figures()[0])

    def full(self) -> bool:
        *_, places, charge = self._figures()
        limits = self.attributes
        return (limits.max_messages is not None and places >= limits.max_messages) or (
            limits.buffer_size is not None and charge >= limits.buffer_size
        )

    def stats(self) -> Stats:
        depth, size, bytes_put, puts, gets, high, _, dropped, *_ = self._figures()
        return Stats(
            depth=depth, bytes=size, bytes_put=bytes_put, puts=puts, gets=gets, dropped=dropped, high_water_mark=high
        )

    def _figures(self) -> list[int]:
        return self._look(self._scripts.figures)

    def shutdown(self, immediate: bool, /) -> None:
        self._once(self._scripts.shut_down, int(immediate))

    def linked(self) -> bool:
        try:
            self._figures()
        except QueueGone:
            return False
        return True

    # Waiting

    def wait_readable(self, since: float, until: float, /) -> None:
        if not self._wait("readers", 0, until):
            super().wait_readable(since, until)

    def wait_writable(self, size: int, since: float, until: float, /) -> None:
        if not self._wait("writers", size, until):
            super().wait_writable(size, since, until)

    def _wait(self, side: str, size: int, until: float) -> bool:
        """Wait for a change on a connection of its own, which `wake` breaks; return False if the connection is lost."""
        wakes = self._wakes
        last = self._last[side]
        if last.until < monotonic():
            self._last[side] = _UNKNOWN
            self._look(self._scripts.watch, side, size)
            last = self._last[side]
        if last.number < 0:
            return True  # there is something already
        until = min(until, last.due)
        stream = self._keys[1 if side == "readers" else 2]
        try:
            connection = self._connection_to_wait(until + _LATE_SECONDS)
        except OSError as error:  # all errors of a connection are; the next try raises its own
            reraise_from_handler(error)
            return False
        done = False
        self._waiting.add(connection)
        try:
            milliseconds = int((until - monotonic()) * 1000)
            if self._wakes == wakes and milliseconds > 0:  # 0 means no timeout
                command = ("XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", stream, f"{last.number}-1")
                connection.ask([command], until + _LATE_SECONDS)
            done = True
        except OSError as error:
            reraise_from_handler(error)
            return self._wakes != wakes
        finally:
            self._waiting.discard(connection)
            if done:
                self._idle.append(connection)
            else:
                connection.close()
        return True

    def _connection_to_wait(self, until: float) -> Connection:
        with suppress(IndexError):
            return self._idle.pop()
        return Connection(self._server, until)

    def wake(self) -> None:
        self._wakes += 1
        for connection in list(self._waiting):
            connection.break_off()

    # Life

    def close(self) -> None:
        self._client.close()
        while self._idle:
            self._idle.pop().close()

    def after_fork(self) -> bool:
        self.abandon()
        return True

    def abandon(self) -> None:
        self._client.abandon()
        for connection in (*self._waiting, *self._idle):
            connection.abandon()
        self._begin(Client(self._server))


def _warn_of_loss(count: int, incarnation: str) -> None:
    logging = sys.modules.get("logging")  # if it was never imported, there is no handler
    if logging is not None:
        logging.getLogger("ipcq").warning(
            "the server has lost at least %s messages that it had accepted (queue %s): it was restarted, or another "
            "took over; ipcq doctor shows how it saves its data",
            count,
            incarnation,
        )


def _messages(reply: list[Any]) -> list[Received]:
    """Return the messages of a reply: without priorities, all have the lowest."""
    if not reply:
        return []
    items, priorities = reply
    return list(zip(items, priorities or [0] * len(items), strict=True))
