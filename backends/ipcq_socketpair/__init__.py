"""Queues that are a pair of connected sockets of the kernel (``unix(7)``), both ends of which every participant holds.

A pair of SOCK_SEQPACKET sockets is a queue already: many write to one end, many read from the other, whole messages in
order, and no death of a process can hurt it. It lives as long as somebody holds it. Whoever comes later gets the ends
over a third socket, which listens under the queue's name in a private directory, from any process that has the queue
open. It needs neither /dev/shm nor a compiler nor a library.

What it gives up: a queue does not outlive its holders, other users cannot be let in, and without `max_messages` the
kernel's charge for each message decides how many fit, so that `qsize` is no more than an upper bound.
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
    importing,
    translated,
)
from ipcq.errors import Unsupported
from ipcq.hooks import hookimpl

NAME: Final = "socketpair"

CAPABILITIES: Final = Capabilities(
    scope=Scope.HOST,
    persistence=Persistence.HOLDERS,
    exact_qsize=True,  # of queues with max_messages; the others say so themselves
    pollable=True,
    ends_on_fileno=True,
    peek=True,
    shutdown=True,
    listing=True,
    last_close=True,
    modes=True,
    after_unlink=True,
)

#: Largest message where none was asked for.
MAX_MESSAGE_SIZE: Final = 16 << 20


class SocketpairBackend(Backend):
    name = NAME
    capabilities = CAPABILITIES
    rank = 100
    platforms = ("linux",)

    def probe(self) -> Availability:
        if sys.platform != "linux":
            return Availability.no(
                "it rests on what Linux has (SOCK_SEQPACKET for AF_UNIX, SO_PEERCRED, memfd_create, epoll), "
                f"this is {sys.platform}"
            )
        return Availability.yes()

    def create(self, name: str, request: Request) -> Channel:
        with importing():
            from ipcq_socketpair import _buffer, _channel, _host, _place
            from ipcq_socketpair._ends import NO_LOCK, Ends, Terms

        if request.mode & 0o077:
            raise Unsupported(
                f"its queues are in a private directory and cannot be opened to other users (mode={request.mode:#o})"
            )
        if request.priorities:
            raise Unsupported("the kernel keeps packets in the order in which they came: leave out priorities")
        if request.max_messages is not None and request.buffer_size is not None:
            raise Unsupported("max_messages bounds the queue by itself: leave out buffer_size")
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
                # Only now can anybody connect, and so does the queue exist.
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
            return list(dict.fromkeys(_place.names()))  # two places may be one directory

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
                text=f"{len(left)} socket files are left of queues whose holders are all dead; a queue that is created "
                "under such a name replaces its file",
                fix=shlex.join(["rm", "--", *map(os.fsdecode, left)]),
            )
        ]


@hookimpl
def ipcq_backend() -> Backend:
    return SocketpairBackend()
