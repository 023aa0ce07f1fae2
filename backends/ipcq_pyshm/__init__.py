"""Queues in a file of shared memory, in pure Python, for systems without a compiler and without kernel queues.

Each step reads and writes the file with `pread` and `pwrite` under a lock that the kernel releases when its holder
dies. `_layout` describes the file and why it survives crashes.
"""

import errno
import os
import secrets
import sys
from dataclasses import replace
from typing import Any, Final

from ipcq.backend import (
    Attributes,
    Availability,
    Backend,
    Capabilities,
    Channel,
    Finding,
    Persistence,
    Request,
    Scope,
    closed,
    default_limits,
    explained,
    importing,
    translated,
)
from ipcq.errors import InvalidArgument, MessageQueueError, QueueMismatch, QueueNotFound, Unsupported
from ipcq.hooks import hookimpl

NAME: Final = "pyshm"
#: In bytes and in messages. A message must fit into memory, and the file has no number above this limit.
LARGEST: Final = 1 << 48

CAPABILITIES: Final = Capabilities(
    scope=Scope.HOST,
    persistence=Persistence.KERNEL,
    priorities=True,
    exact_qsize=True,
    peek=True,
    shutdown=True,
    atomic_batch=True,
    drop_oldest=True,
    leases=sys.platform == "linux",
    death_notice=sys.platform == "linux",
    delays=sys.platform == "linux",
    listing=True,
    last_close=sys.platform == "linux",
    other_users=sys.platform == "linux",
    modes=sys.platform != "win32",
    after_unlink=True,
)


class PyshmBackend(Backend):
    name = NAME
    capabilities = CAPABILITIES
    rank = 200
    platforms = ("linux", "darwin", "win32")
    options = {"lock": str}  # noqa: RUF012  # as in the protocol

    def probe(self) -> Availability:
        with importing():
            from ipcq_pyshm import _lock, _place

        if _place.SHARED is not None and not os.access(_place.SHARED, os.W_OK | os.X_OK):
            return Availability.no(
                f"{_place.SHARED} is missing or not writable: sudo mount -t tmpfs -o mode=1777 none {_place.SHARED}"
            )
        if sys.platform == "win32" and not _lock.installed():
            return Availability.no(_lock.MISSING)
        return Availability.yes()

    def create(self, name: str, request: Request) -> Channel:
        with importing():
            from ipcq_pyshm import _lock, _segment
            from ipcq_pyshm._layout import LOCKS, Header

        lock = request.options.get("lock", "shmlock" if sys.platform == "win32" else "file")
        if lock not in LOCKS:
            raise InvalidArgument(f"lock must be 'file' or 'shmlock', not {lock!r}")
        if lock == "shmlock" and not _lock.installed():
            raise Unsupported(_lock.MISSING)
        if request.mode & 0o077:
            _refuse_grants(request, lock)
        if request.lifetime == "last-close" and not CAPABILITIES.last_close:
            raise Unsupported(
                f"this backend cannot remove a queue with its last handle on {sys.platform}: leave out lifetime"
            )
        clock = _segment.time_namespace() if request.leases else 0
        header = Header(name, _attributes(request), lock, secrets.token_bytes(8), clock, secrets.token_bytes(8))
        return self._channel(name, _segment.make(header), header, request)

    def attach(self, name: str, request: Request) -> Channel:
        with importing():
            from ipcq_pyshm import _segment

        found = _segment.opened(name, request)
        return self._channel(name, found.descriptor, found.header, request)

    def _channel(self, name: str, descriptor: int, header: Any, request: Request) -> Channel:
        with importing():
            from ipcq_pyshm import _place
            from ipcq_pyshm._channel import PyshmChannel

            kind = PyshmChannel
            if header.attributes.leases:  # a queue without them does not need their code
                from ipcq_pyshm._lease_channel import PyshmLeaseChannel

                kind = PyshmLeaseChannel

        try:
            asked = request.options.get("lock", header.lock)
            if asked != header.lock:
                raise QueueMismatch(
                    f"lock is {header.lock!r}, asked for {asked!r}: leave that out to use the existing queue, "
                    "or unlink it first"
                )
            leases = header.attributes.leases
            capabilities = replace(
                CAPABILITIES,
                priorities=header.attributes.priorities,
                leases=leases,
                death_notice=leases,
                delays=leases,
                other_users=CAPABILITIES.other_users and header.lock == "file",
            )
            return kind(descriptor, _place.path_of(name), header, request, capabilities)
        except BaseException:
            closed(descriptor)
            raise

    def exists(self, name: str) -> bool:
        with importing():
            from ipcq_pyshm import _place, _segment

        with translated(_segment.ERRORS):
            return _segment.exists(_place.path_of(name))

    def unlink(self, name: str) -> None:
        with importing():
            from ipcq_pyshm import _place, _segment

        with translated(_segment.ERRORS):
            path = _place.path_of(name)
            if not _segment.exists(path):
                raise QueueNotFound
            _segment.unlink(path)

    def names(self) -> list[str]:
        with importing():
            from ipcq_pyshm import _place, _segment

        return [header.name for header in map(_segment.header_of, _place.listed(_place.FILES)) if header is not None]

    def findings(self) -> list[Finding]:
        with importing():
            from ipcq_pyshm import _findings

        return _findings.findings()


def _refuse_grants(request: Request, lock: str) -> None:
    if not CAPABILITIES.other_users:
        raise Unsupported(f"this backend cannot grant access to other users on {sys.platform}: use mode=0o600")
    if not request.other_users:
        raise Unsupported(
            f"mode={request.mode:#o} allows other users to forge and destroy messages: "
            "create the queue with other_users=True if you trust them"
        )
    if lock == "shmlock":
        raise Unsupported("only the owner can use the lock of shmlock: use lock='file', or mode=0o600")


def _attributes(request: Request) -> Attributes:
    attributes = default_limits(request)
    messages, size, room = attributes.max_messages, attributes.max_message_size, attributes.buffer_size
    if (messages or 1) * size > LARGEST or (room or 0) > LARGEST or (messages or 0) > LARGEST:
        raise _too_large(messages, size, room)
    return attributes


def _too_large(messages: int | None, size: int, room: int | None) -> MessageQueueError:
    with importing():
        from ipcq_pyshm import _segment

    asked = max(room or 0, (messages or 1) * size)
    return explained(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), _segment.errors(asked))


@hookimpl
def ipcq_backend() -> Backend:
    return PyshmBackend()
