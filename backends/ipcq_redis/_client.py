"""Requests to a server, and the lanes that let it carry out each operation once (`_scripts` describes them)."""

import hashlib
import secrets
from collections.abc import Sequence
from functools import cache, lru_cache
from time import monotonic
from typing import Any, Final

from redis.exceptions import NoScriptError, ResponseError

from ipcq.backend import Operation, reraise_from_handler
from ipcq.errors import ConnectionLost, MessageQueueError, QueueGone
from ipcq_redis._connection import Connection, Word, packed
from ipcq_redis._errors import explained_reply
from ipcq_redis._place import Server
from ipcq_redis._scripts import KEPT_SECONDS, Script

#: Seconds for which an operation is repeated: less than the server keeps its reply.
REMEMBERED: Final = KEPT_SECONDS - 10.0

#: Seconds after its end in which the server may still begin an attempt, for the difference of clocks. With
#: `REMEMBERED`, less than the server keeps its reply.
_SLACK_SECONDS: Final = 5.0
#: Seconds after which a connection is replaced: the clocks of two machines drift, and passwords change.
_LONGEST_SECONDS: Final = 3600.0

#: The most operations without an answer whose lanes are kept.
_MOST_LOST: Final = 1000
#: How many connections a client keeps open.
_MOST_IDLE: Final = 8


#: The first line of a script, by whether it runs if the server is out of memory.
_FLAGS: Final = {False: "#!lua\n", True: "#!lua flags=allow-oom\n"}
#: The same for Redis before 7. It has no flags, but never refuses memory to a script that has already written. This
#: command counts as a write, and changes nothing: a queue does not expire.
_BEFORE_FLAGS: Final = {False: "", True: "redis.call('PERSIST', KEYS[1])\n"}


def _text(script: Script, flags: bool) -> str:
    return (_FLAGS if flags else _BEFORE_FLAGS)[script.shrinking] + script.text


@cache
def _digest(script: Script, flags: bool) -> str:
    return hashlib.sha1(_text(script, flags).encode()).hexdigest()  # noqa: S324  # Redis identifies scripts by it


@lru_cache(maxsize=256)
def _head(script: Script, flags: bool, keys: Sequence[str], incarnation: str) -> tuple[int, bytes]:
    """Return how many words the constant part of a request has, and that part, packed."""
    words: tuple[Word, ...] = ("EVALSHA", _digest(script, flags), len(keys), *keys, incarnation)
    return len(words), b"".join(packed(words))


class Lanes:
    """The lanes of one channel; each is used by one operation at a time, with rising numbers."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(8)
        self._created = 0
        self._free: list[tuple[int, str]] = []  # with the number of the last operation
        self._used: dict[str, tuple[int, str]] = {}  # by the identities of operations, with their numbers

    def lane_of(self, identity: str) -> str:
        """Return the lane of an operation, the same for each of its attempts."""
        entry = self._used.get(identity)
        if entry is None:
            number = number_of(identity)
            entry = number, self._next(number)
            while len(self._used) >= _MOST_LOST:
                self._used.pop(next(iter(self._used)), None)
            self._used[identity] = entry
        return entry[1]

    def _next(self, number: int) -> str:
        later = []
        try:
            while True:
                entry = self._free.pop()
                if entry[0] < number:
                    return entry[1]
                later.append(entry)
        except IndexError:
            pass
        finally:
            self._free += later
        self._created += 1
        return f"{self._token}{secrets.token_hex(2)}{self._created}"

    def give_back(self, identity: str) -> None:
        """Let later operations use the lane of one that is not asked again. The next one uses it."""
        entry = self._used.pop(identity, None)
        if entry is not None:
            self._free.append(entry)


def number_of(identity: str) -> int:
    """Return the number of an operation in its process."""
    return int(identity.rpartition("-")[2])


class Client:
    """Connections to a server, each used by one request at a time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._idle: list[Connection] = []
        self._knows_flags = True
        self._clock = 0.0

    def commands(self, operation: Operation, *commands: Sequence[Word]) -> list[Any]:
        """Make one attempt of commands, and return their replies.

        Raises:
            ConnectionLost: There was no answer.
        """
        return self._request(operation.until, lambda connection: connection.ask(commands, operation.until))

    def run(
        self, operation: Operation, script: Script, keys: Sequence[str], number: str, incarnation: str, *words: Word
    ) -> list[Any]:
        """Make one attempt of an operation, and return the reply of its script.

        Args:
            operation: The operation.
            script: Its script.
            keys: The keys of the script.
            number: The number of the operation in its lane; empty if it has none.
            incarnation: The queue's incarnation.
            *words: The other arguments of the script.

        Raises:
            ConnectionLost: There was no answer.
            QueueGone: The queue was unlinked.
        """

        def ask(connection: Connection) -> list[Any]:
            latest = f"{(operation.until + _SLACK_SECONDS + connection.clock) * 1e6:.0f}"
            arguments = (number, latest, *words)
            if self._knows_flags:
                try:
                    return _evaluated(connection, operation.until, script, True, keys, incarnation, arguments)
                except ResponseError:  # only those of the compiler get here
                    self._knows_flags = False
            return _evaluated(connection, operation.until, script, False, keys, incarnation, arguments)

        (reply,) = self._request(operation.until, ask)
        if reply[0] == b"gone":
            raise QueueGone
        return reply  # type: ignore[no-any-return]  # the library has no types for replies

    def _request(self, until: float, ask: Any) -> list[Any]:
        connection = self._connection(until)
        done = False
        try:
            replies: list[Any] = ask(connection)
            if replies and isinstance(replies[0], list) and replies[0][:1] == [b"late"]:
                raise explained_reply("IPCQLATE")  # the server's clock was set: learn it again
            done = True
        except MessageQueueError as error:
            done = not isinstance(error, ConnectionLost)
            raise
        except OSError as error:
            reraise_from_handler(error)
            raise ConnectionLost(f"the server did not answer: {error}", outcome="unknown") from error
        finally:
            # After anything else than an answer, the next request must not get the reply of this one.
            self._put_back(connection, done)
        return replies

    def _connection(self, until: float) -> Connection:
        try:
            while True:
                connection = self._idle.pop()
                if monotonic() < connection.began + _LONGEST_SECONDS:
                    return connection
                connection.close()
        except IndexError:
            pass
        connection = Connection(self.server, until)
        self._clock = connection.clock
        return connection

    def _put_back(self, connection: Connection, usable: bool) -> None:
        if usable and len(self._idle) < _MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def server_time(self, when: float) -> float:
        """Return a time of the monotonic clock by the server's clock, in seconds, as it was at the last connection."""
        return when + self._clock

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def abandon(self) -> None:
        for connection in self._idle:
            connection.abandon()
        self._idle = []


def _evaluated(
    connection: Connection,
    until: float,
    script: Script,
    flags: bool,
    keys: Sequence[str],
    incarnation: str,
    arguments: Sequence[Word],
) -> list[Any]:
    count, head = _head(script, flags, keys, incarnation)
    request = b"".join((b"*%d\r\n" % (count + len(arguments)), head, *packed(arguments)))
    try:
        return connection.exchange(request, 1, until)
    except NoScriptError:
        words = ("EVAL", _text(script, flags), len(keys), *keys, incarnation, *arguments)
        return connection.ask([words], until)
