"""Queues that are a pair of connected Unix sockets (``unix(7)``); every participant holds both ends.

A pair of SOCK_SEQPACKET sockets already is a queue: many processes write to one end and many read from the other,
messages stay whole and in order, and no crash of a process can damage it. It lives as long as any process holds it. A
third socket listens under the queue's name in a private directory. An attaching process connects to it, and any process
that has the queue open sends it the two ends. This needs neither /dev/shm nor a compiler nor a library.

What it gives up: a queue does not outlive its holders, other users get no access, and without `max_messages` the
kernel's charge for each message decides how many fit, so that `qsize` is only an upper bound.
"""

import os
import shlex
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

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
    Severity,
    check_daemon_threads,
    importing,
    translated,
)
from ipcq.errors import Unsupported
from ipcq.hooks import hookimpl

NAME: Final = "socketpair"

CAPABILITIES: Final = Capabilities(
    scope=Scope.HOST,
    persistence=Persistence.HOLDERS,
    exact_qsize=True,  # only with max_messages; the channel of any other queue reports False
    pollable=True,
    ends_on_fileno=True,
    peek=True,
    shutdown=True,
    listing=True,
    last_close=True,
    modes=True,
    after_unlink=True,
)

#: The default of max_message_size, in bytes.
MAX_MESSAGE_SIZE: Final = 16 << 20


class SocketpairBackend(Backend):
    name = NAME
    capabilities = CAPABILITIES
    rank = 100
    platforms = ("linux",)

    def probe(self) -> Availability:
        if sys.platform != "linux":
            return Availability.no(
                f"it needs Linux (SOCK_SEQPACKET for AF_UNIX, SO_PEERCRED, memfd_create, epoll), this is {sys.platform}"
            )
        return Availability.yes()

    def create(self, name: str, request: Request) -> Channel:
        with importing():
            from ipcq_socketpair import _buffer, _channel, _host, _place
            from ipcq_socketpair._ends import NO_LOCK, Ends, Terms

        if request.mode & 0o077:
            raise Unsupported(
                f"its queues are in a private directory, so other users get no access (mode={request.mode:#o}): "
                "use mode=0o600"
            )
        if request.priorities:
            raise Unsupported("the kernel keeps packets in order: leave out priorities")
        if request.max_messages is not None and request.buffer_size is not None:
            raise Unsupported("max_messages alone limits the queue: leave out buffer_size")
        check_daemon_threads()  # the descriptor server
        largest = request.max_message_size or MAX_MESSAGE_SIZE
        with translated(), _host.no_fork(), ExitStack() as undo:
            homes = _place.make()
            bounded = request.max_messages is not None
            ends = Ends.made(_buffer.lock_file() if bounded else NO_LOCK)
            undo.callback(ends.close)
            packet = _buffer.fitted(ends.write, request, largest)
            with _place.alone(_place.directories()):
                path, found = _place.bind(ends.listener, name, homes)
                undo.callback(_place.free, path, found)
                # From now on processes can connect, so the queue exists.
                ends.listener.listen(_place.BACKLOG)
            terms = Terms(
                name=name,
                attributes=Attributes(
                    mode=request.mode,
                    max_messages=request.max_messages,
                    max_message_size=largest,
                    buffer_size=None if bounded else _buffer.size_of(ends.write),
                    lifetime=request.lifetime,
                ),
                packet=packet,
                found=found,
            )
            channel = _channel.SocketpairChannel(terms, ends, request, replace(CAPABILITIES, exact_qsize=bounded))
            undo.pop_all()
            return channel

    def attach(self, name: str, request: Request) -> Channel:
        with importing():
            from ipcq_socketpair import _channel, _host, _place

        check_daemon_threads()
        with translated(), _host.no_fork(), ExitStack() as undo:
            terms, ends = _place.asked(name)
            undo.callback(ends.close)
            bounded = terms.attributes.max_messages is not None
            channel = _channel.SocketpairChannel(terms, ends, request, replace(CAPABILITIES, exact_qsize=bounded))
            undo.pop_all()
            return channel

    def exists(self, name: str) -> bool:
        if sys.platform != "linux":
            return False
        with importing():
            from ipcq_socketpair import _place

        with translated():
            return _place.exists(name)

    def unlink(self, name: str) -> None:
        with importing():
            from ipcq_socketpair import _place

        with translated():
            _place.unlink(name)

    def names(self) -> list[str]:
        if sys.platform != "linux":
            return []
        with importing():
            from ipcq_socketpair import _place

        with translated():
            return list(dict.fromkeys(_place.names()))  # two paths may be one directory

    def findings(self) -> list[Finding]:
        if sys.platform != "linux":
            return []
        with importing():
            from ipcq_socketpair import _place

        with translated():
            left = _place.leftovers()
        if not left:
            return []
        return [
            Finding(
                severity=Severity.NOTE,
                text=f"{len(left)} socket files are left over from queues whose processes are all dead; "
                "creating a queue of the same name replaces its file",
                fix=shlex.join(["rm", "--", *map(os.fsdecode, left)]),
            )
        ]


@hookimpl
def ipcq_backend() -> Backend:
    return SocketpairBackend()
