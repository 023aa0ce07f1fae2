"""Creation of queues, and looks for them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ipcq.backend import Attributes, Capabilities, Channel, Operation, Persistence, ask
from ipcq.errors import (
    CorruptQueue,
    MessageQueueError,
    PermissionDenied,
    QueueExists,
    QueueGone,
    QueueNotFound,
    Unsupported,
    VersionMismatch,
)
from ipcq_redis._channel import RedisChannel
from ipcq_redis._client import REMEMBERED, Client, number_of
from ipcq_redis._connection import Word
from ipcq_redis._lease_channel import RedisLeaseChannel
from ipcq_redis._place import PATTERN, Server, key_of, keys_of, name_of
from ipcq_redis._scripts import CREATE, LAYOUT, LEASE_KEYS, NOTHING_YET, UNLINK

#: The oldest release of the server: ZRANGE of earlier ones lacks what the scripts need.
_OLDEST: Final = (6, 2)
#: How many keys one look at a part of the database visits.
_VISITED: Final = 1000

_NUMBERS: Final = ("max_messages", "max_message_size", "buffer_size", "max_deliveries")
_FLAGS: Final = ("priorities", "leases")


class Directory:
    """The queues of one database.

    Args:
        server: The server and its database.
        capabilities: What queues can do at best.
    """

    def __init__(self, server: Server, capabilities: Capabilities) -> None:
        self._server = server
        self._capabilities = capabilities
        self._client = Client(server)

    def __enter__(self) -> "Directory":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _look(self, *commands: Sequence[Word]) -> list[Any]:
        return ask(lambda operation: self._client.commands(operation, *commands), harmless=True)

    def create(self, name: str, attributes: Attributes) -> Channel:
        persistence = self._persistence()  # first, because it may fail
        key = key_of(name)
        facts: list[Word] = ["kept", NOTHING_YET, "layout", LAYOUT]
        for fact in _NUMBERS:
            facts += [fact, getattr(attributes, fact) or 0]
        for fact in _FLAGS:
            facts += [fact, int(getattr(attributes, fact))]
        incarnation = ""

        def attempt(operation: Operation) -> list[Any]:
            nonlocal incarnation
            incarnation = operation.identity  # so a second attempt finds the queue of the first
            return self._client.run(operation, CREATE, (key,), "", incarnation, *facts)

        if ask(attempt, remembered=REMEMBERED)[0] == b"exists":
            raise QueueExists
        return self._channel(name, incarnation, attributes, persistence)

    def attach(self, name: str) -> Channel:
        ((*found,),) = self._look(("HGETALL", key_of(name)))
        if not found:
            raise QueueNotFound
        facts = dict(zip(found[::2], found[1::2], strict=True))
        attributes = _attributes(facts)
        return self._channel(name, facts[b"incarnation"].decode(), attributes, self._persistence())

    def _channel(self, name: str, incarnation: str, attributes: Attributes, persistence: Persistence) -> Channel:
        leases = attributes.leases
        capabilities = replace(
            self._capabilities,
            persistence=persistence,
            priorities=attributes.priorities,
            leases=leases,
            delays=leases,
        )
        kind = RedisLeaseChannel if leases else RedisChannel
        client, self._client = self._client, Client(self._server)
        return kind(client, name, incarnation, attributes, capabilities)

    def _persistence(self) -> Persistence:
        """Return what queues survive, as far as the server tells it."""
        facts = self.facts("INFO")
        version = facts.get("redis_version", "")
        if version and tuple(map(int, version.split(".")[:2])) < _OLDEST:
            raise Unsupported(f"the server is Redis {version}, and 6.2 is needed: update it, or use Valkey")
        if facts.get("aof_enabled") != "1":
            return Persistence.KERNEL
        return Persistence.SYNCED if self.setting("appendfsync") == "always" else Persistence.DISK

    def facts(self, *command: Word) -> dict[str, str]:
        """Return what the server tells about itself; nothing if this user may not ask."""
        try:
            (text,) = self._look(command)
        except PermissionDenied:
            return {}
        lines = (line.partition(":") for line in text.decode(errors="replace").split("\r\n"))
        return {fact: value for fact, _, value in lines}

    def setting(self, name: str) -> str:
        """Return a setting of the server; empty if it is unknown."""
        try:
            (found,) = self._look(("CONFIG", "GET", name))
        except MessageQueueError:  # hosted servers deny it
            return ""
        return found[1].decode() if found else ""

    def exists(self, name: str) -> bool:
        return bool(self._look(("HEXISTS", key_of(name), "incarnation"))[0])

    def unlink(self, name: str) -> None:
        while True:
            (incarnation,) = self._look(("HGET", key_of(name), "incarnation"))
            if incarnation is None:
                raise QueueNotFound
            try:
                return self.unlink_incarnation(name, incarnation.decode())
            except QueueNotFound:
                pass  # another process was faster, and perhaps created the next one

    def unlink_incarnation(self, name: str, incarnation: str) -> None:
        key = key_of(name)
        contents = keys_of(key, incarnation, LEASE_KEYS)

        def attempt(operation: Operation) -> list[Any]:
            number = f"{number_of(operation.identity):016}"
            lane = f"{key}:{incarnation}:lane:{operation.identity}"
            return self._client.run(operation, UNLINK, (key, lane, *contents), number, incarnation)

        try:
            ask(attempt, remembered=REMEMBERED)
        except QueueGone as error:
            raise QueueNotFound from error

    def names(self) -> list[str]:
        names: set[str] = set()
        cursor: Word = "0"
        while True:
            ((cursor, keys),) = self._look(("SCAN", cursor, "MATCH", PATTERN, "COUNT", _VISITED, "TYPE", "hash"))
            names.update(filter(None, (name_of(key.decode(errors="replace")) for key in keys)))
            if cursor == b"0":
                return sorted(names)


def _attributes(facts: Mapping[bytes, bytes]) -> Attributes:
    layout = facts.get(b"layout", b"").decode(errors="replace")
    if b"incarnation" not in facts:
        raise CorruptQueue("its key belongs to another program: choose another name, or another database")
    if layout != LAYOUT:
        raise VersionMismatch(f"its layout is {layout!r}, and this ipcq knows {LAYOUT!r}: update the older side")
    numbers = {fact: int(facts[fact.encode()]) or None for fact in _NUMBERS}
    flags = {fact: facts[fact.encode()] == b"1" for fact in _FLAGS}
    return Attributes(
        mode=0o600,
        max_messages=numbers["max_messages"],
        max_message_size=numbers["max_message_size"] or 1,
        buffer_size=numbers["buffer_size"],
        max_deliveries=numbers["max_deliveries"],
        priorities=flags["priorities"],
        leases=flags["leases"],
    )
