"""Queues on a Redis or Valkey server, for processes on several machines.

`_scripts` describes how the server keeps a queue, and `_client` how each operation is carried out once.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ipcq.backend import (
    Availability,
    Backend,
    Capabilities,
    Channel,
    Finding,
    Persistence,
    Place,
    Request,
    Scope,
    default_limits,
    importing,
)
from ipcq.errors import BackendUnavailable, Unsupported
from ipcq.hooks import DISTRIBUTION, hookimpl
from ipcq_redis import _place

if TYPE_CHECKING:
    from ipcq_redis._opening import Directory

NAME: Final = "redis"

#: Bytes that a queue holds if its creator gives no limits. They are in the server's memory, and only used when needed.
BUFFER_SIZE: Final = 1 << 26
#: Largest message in bytes: the server's largest value is twice that, and a script holds a message twice.
LARGEST: Final = 1 << 28
#: Largest other limit: numbers in Lua are exact up to that.
_LARGEST_LIMIT: Final = 1 << 53

CAPABILITIES: Final = Capabilities(
    scope=Scope.NETWORK,
    persistence=Persistence.SYNCED,
    priorities=True,
    exact_qsize=True,
    peek=True,
    shutdown=True,
    atomic_batch=True,
    drop_oldest=True,
    leases=True,
    delays=True,
    listing=True,
    places=True,
    max_message_size=LARGEST,
)


class RedisBackend(Backend):
    name = NAME
    capabilities = CAPABILITIES
    options = {"insecure": bool}  # noqa: RUF012  # as in the protocol
    schemes = tuple(scheme for scheme in _place.ENCRYPTED if scheme != NAME)

    def __init__(self, place: Place = _place.DEFAULT, *, insecure: bool = False) -> None:
        """Describe the queues in a place, whose credentials are used, perhaps without encryption."""
        self._server = _place.Server(place, insecure)
        if place != _place.DEFAULT:
            self.name = str(place)

    def at(self, place: Place) -> Backend:
        return RedisBackend(_place.canonical(place))

    def with_options(self, options: Mapping[str, Any]) -> Backend:
        return RedisBackend(self._server.place, insecure=bool(options.get("insecure")))

    def probe(self) -> Availability:
        with importing():
            from importlib.util import find_spec

        if find_spec("redis") is None:
            return Availability.no(f"redis-py is not installed: pip install '{DISTRIBUTION}[redis]'")
        return Availability.yes()

    def create(self, name: str, request: Request) -> Channel:
        limits = request.max_messages or 1, request.max_message_size or 1, request.buffer_size or 1
        if limits[1] > LARGEST:
            raise Unsupported(f"max_message_size is at most {LARGEST} bytes on this backend, not {limits[1]}")
        if max(limits) > _LARGEST_LIMIT:
            raise Unsupported(f"max_messages and buffer_size are at most {_LARGEST_LIMIT} on this backend")
        if request.buffer_size is None and None in (request.max_messages, request.max_message_size):
            request = replace(request, buffer_size=max(BUFFER_SIZE, 4 * (request.max_message_size or 0)))
        attributes = default_limits(request)
        attributes = replace(attributes, max_message_size=min(attributes.max_message_size, LARGEST))
        with self._directory() as directory:
            return directory.create(name, attributes)

    def attach(self, name: str, request: Request) -> Channel:
        with self._directory() as directory:
            return directory.attach(name)

    def exists(self, name: str) -> bool:
        with self._directory() as directory:
            return directory.exists(name)

    def unlink(self, name: str) -> None:
        with self._directory() as directory:
            directory.unlink(name)

    def unlink_incarnation(self, name: str, incarnation: str) -> None:
        with self._directory() as directory:
            directory.unlink_incarnation(name, incarnation)

    def names(self) -> list[str]:
        with self._directory() as directory:
            return directory.names()

    def findings(self) -> list[Finding]:
        with importing():
            from ipcq_redis import _findings

        with self._directory() as directory:
            return _findings.findings(directory)

    def _directory(self) -> "Directory":
        if reason := self.probe().reason:
            raise BackendUnavailable(reason, reasons={self.name: reason})
        with importing():
            from ipcq_redis import _opening

        return _opening.Directory(self._server, CAPABILITIES)


@hookimpl
def ipcq_backend() -> Backend:
    return RedisBackend()
