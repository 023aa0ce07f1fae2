"""Durable queues in SQLite databases: one per queue, which outlives every process, a reboot and a power cut.

`_place` describes the files, `_schema` the database, and `_database` why it survives crashes, signals and forks.
"""

import sys
from dataclasses import replace
from typing import Final

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
from ipcq.errors import InvalidArgument, Unsupported
from ipcq.hooks import hookimpl

if sys.platform == "linux":  # elsewhere the backend is not usable, and modules are missing that this one imports
    from ipcq_sqlite import _place

NAME: Final = "sqlite"

#: Bytes that a queue holds if its creator gives no limits. They are on a disk, and only used when needed.
BUFFER_SIZE: Final = 1 << 28
#: Largest message in bytes: SQLite limits a row to 1,000,000,000 bytes, and a connection holds a message twice.
LARGEST: Final = 1 << 29
#: Largest other limit: sums of a few of these fit into SQLite's integers.
_LARGEST_LIMIT: Final = 1 << 60

#: What each value of the option `durability` means.
DURABILITIES: Final = {"full": Persistence.SYNCED, "normal": Persistence.DISK}

CAPABILITIES: Final = Capabilities(
    scope=Scope.HOST,
    persistence=Persistence.SYNCED,
    priorities=True,
    exact_qsize=True,
    pollable=True,
    ends_on_fileno=True,
    peek=True,
    shutdown=True,
    atomic_batch=True,
    drop_oldest=True,
    leases=True,
    death_notice=True,
    delays=True,
    listing=True,
    places=True,
    modes=True,
    max_message_size=LARGEST,
)


class SqliteBackend(Backend):
    name = NAME
    capabilities = CAPABILITIES
    platforms = ("linux",)  # FIFOs that are open for reading and writing, and locks of open files
    options = {"durability": str}  # noqa: RUF012  # as in the protocol

    def __init__(self, directory: str | None = None) -> None:
        """Describe the queues in a directory; None: in the default place."""
        self._directory = directory
        if directory is not None:
            self.name = str(Place(NAME, path=tuple(filter(None, directory.split("/")))))

    def at(self, place: Place) -> Backend:
        if place.host or place.port is not None or place.user or place.password is not None:
            raise InvalidArgument(
                f"a place of this backend is a directory, not a server: write {NAME}:///DIRECTORY/NAME (three slashes)"
            )
        return SqliteBackend(_place.canonical(place.directory)) if place.path else SqliteBackend()

    def probe(self) -> Availability:
        with importing():
            from ipcq_sqlite import _library

        return Availability.no(_library.MISSING) if _library.MISSING else Availability.yes()

    def create(self, name: str, request: Request) -> Channel:
        with importing():
            from ipcq_sqlite import _creation

        durability = request.options.get("durability", "full")
        if durability not in DURABILITIES:
            raise InvalidArgument(f"durability must be 'full' or 'normal', not {durability!r}")
        limits = request.max_messages or 1, request.max_message_size or 1, request.buffer_size or 1
        if limits[1] > LARGEST:
            raise Unsupported(f"max_message_size is at most {LARGEST} bytes on this backend, not {limits[1]}")
        if max(limits) > _LARGEST_LIMIT:
            raise Unsupported(f"max_messages and buffer_size are at most {_LARGEST_LIMIT} on this backend")
        attributes = default_limits(_with_buffer(request))
        size = min(attributes.max_message_size, LARGEST)  # a quarter of a large buffer may be more
        attributes = replace(attributes, max_message_size=size, options={"durability": durability})
        return _creation.create(self._place(), name, attributes)

    def attach(self, name: str, request: Request) -> Channel:
        with importing():
            from ipcq_sqlite import _creation

        return _creation.attach(self._place(), name, request)

    def exists(self, name: str) -> bool:
        return _place.exists(self._directory, name)

    def unlink(self, name: str) -> None:
        _place.unlink(self._place(), name)

    def unlink_incarnation(self, name: str, incarnation: str) -> None:
        _place.unlink(self._place(), name, incarnation)

    def names(self) -> list[str]:
        return _place.names(self._directory)

    def findings(self) -> list[Finding]:
        with importing():
            from ipcq_sqlite import _findings

        return _findings.findings(self._directory)

    def _place(self) -> str:
        return self._directory or _place.default()


def _with_buffer(request: Request) -> Request:
    if request.buffer_size is None and (request.max_messages is None or request.max_message_size is None):
        return replace(request, buffer_size=max(BUFFER_SIZE, 4 * (request.max_message_size or 0)))
    return request


@hookimpl
def ipcq_backend() -> Backend:
    return SqliteBackend()
