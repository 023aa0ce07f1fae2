"""Servers, databases, and the keys of queues."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from ipcq.backend import Place, Secret, check_plaintext, credentials
from ipcq.errors import InvalidArgument

NAME: Final = "redis"
#: The schemes of URLs, and whether their connections are encrypted.
ENCRYPTED: Final = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
DEFAULT: Final = Place(NAME, "localhost", 6379, ("0",))

# Compiled at first use: `auto` imports this module in every program.
#: Names in keys have these characters escaped: braces delimit the hash tag, the others are patterns.
_SPECIAL: Final = r"[%{}*?\[\]\\]"
_ESCAPED: Final = "%([0-9a-f]{2})"
_KEY: Final = r"ipcq:\{((?s:.+))\}"
#: What matches the keys of all queues, but not those of their contents.
PATTERN: Final = "ipcq:{*}"

#: The variable that permits connections without encryption to other machines, if it is 1.
_INSECURE: Final = "IPCQ_REDIS_INSECURE"
#: The variable with the path of the certificates of trusted authorities.
_AUTHORITIES: Final = "IPCQ_REDIS_CA"
_WAY_OUT: Final = (
    f"use rediss://, or pass insecure=True to ipcq.open; for all else, {_INSECURE}=1 in the environment permits it"
)


def canonical(place: Place) -> Place:
    """Return a place with its default port and database.

    Raises:
        InvalidArgument: It is not a database.
    """
    path = place.path or DEFAULT.path
    if len(path) > 1 or not re.fullmatch("[0-9]{1,9}", path[0]):
        raise InvalidArgument(f"{str(place)!r} is not a database: write {place.scheme}://HOST:PORT/NUMBER/NAME")
    return replace(
        place,
        scheme="rediss" if ENCRYPTED[place.scheme] else NAME,
        host=place.host or DEFAULT.host,
        port=place.port or DEFAULT.port,
        path=(str(int(path[0])),),
    )


class Server(NamedTuple):
    """A database of a server, and how to connect to it."""

    place: Place
    """Its canonical place, with the credentials of the URL."""
    insecure: bool = False
    """The user permits connections without encryption to other machines."""

    @property
    def host(self) -> str:
        return self.place.host

    @property
    def port(self) -> int:
        return self.place.port or 0

    @property
    def database(self) -> str:
        return self.place.path[0]

    @property
    def encrypted(self) -> bool:
        return ENCRYPTED[self.place.scheme]

    @property
    def authorities(self) -> str | None:
        """The file with the certificates of trusted authorities; None: those of the system."""
        return os.environ.get(_AUTHORITIES) or None

    def check(self) -> None:
        """Refuse to send messages and passwords over a network without encryption.

        Raises:
            PermissionDenied: It was not permitted.
        """
        if not self.encrypted:
            check_plaintext(self.place, self.insecure or os.environ.get(_INSECURE) == "1", _WAY_OUT)

    def credentials(self) -> tuple[str, Secret | None]:
        """Return user and password, which may have changed since the last connection."""
        return credentials(self.place, NAME)


def key_of(name: str) -> str:
    """Return the key of a queue."""
    return "ipcq:{" + re.sub(_SPECIAL, lambda match: f"%{ord(match[0]):02x}", name) + "}"


def name_of(key: str) -> str | None:
    """Return the name of the queue that has a key, or None."""
    match = re.fullmatch(_KEY, key)
    return match and re.sub(_ESCAPED, lambda code: chr(int(code[1], 16)), match[1])


def keys_of(key: str, incarnation: str, suffixes: Sequence[str]) -> tuple[str, ...]:
    """Return the keys of a queue's contents."""
    return tuple(f"{key}:{incarnation}:{suffix}" for suffix in suffixes)
