"""What a participant holds of a queue, what it was created with, and how both travel to a newcomer."""

import _socket
import json
import os
import secrets
import socket
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Final, Self

from ipcq.backend import Attributes, original, too_many_descriptors
from ipcq.errors import CorruptQueue, PermissionDenied, VersionMismatch

#: Not gevent's, whose calls wait where these say that there is nothing, and which change every holder's descriptor.
Socket: type[socket.socket] = original("socket", "socket")

_poll = original("select", "poll")

#: Raised when the two sides of a handshake would not understand each other any more.
VERSION: Final = 1

#: More than any handshake has.
_ROOM: Final = 4096
_MOST: Final = 4

NO_LOCK: Final = -1

# Prefix of an address without a file (unix(7): "abstract").
_ENDING: Final = b"\0ipcq-end."

#: Device and inode of a queue's socket file. Whoever holds the listening socket keeps the inode from being used again.
Found = tuple[int, int]


@dataclass(frozen=True)
class Terms:
    """What is so for a queue as long as it lives."""

    name: str
    attributes: Attributes
    packet: int
    """Size that every packet is padded to; 0: each is as large as its message."""
    found: Found
    """Which socket file is the queue's."""

    def packed(self) -> bytes:
        return json.dumps({"version": VERSION, **asdict(self)}).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        try:
            facts = json.loads(data)
            version = facts.pop("version")
            if version == VERSION:
                attributes = Attributes(**facts.pop("attributes"))
                device, inode = facts.pop("found")
                return cls(attributes=attributes, found=(device, inode), **facts)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CorruptQueue("who answers under its name is no ipcq") from error
        raise VersionMismatch(f"its holders speak version {version!r} of the handshake, this is version {VERSION}")


class Ends:
    """The descriptors of one handle.

    The two ends are shared with every other holder, so nothing is ever set on them that would change how another's
    calls behave. The listening socket does not block, for any holder, as long as it exists.
    """

    def __init__(self, write: socket.socket, read: socket.socket, listener: socket.socket, lock: int) -> None:
        self.write = write
        self.read = read
        self.listener = listener
        self.lock = lock
        """The file that putters lock; `NO_LOCK` where the queue is not bounded in messages."""

    @classmethod
    def made(cls, lock: int) -> Self:
        with ExitStack() as undo:
            if lock != NO_LOCK:
                undo.callback(os.close, lock)
            write, read = map(_blocking, pair())
            undo.callback(write.close)
            undo.callback(read.close)
            listener = line()
            undo.pop_all()
            return cls(write, read, listener, lock)

    def copied(self) -> Self:
        """Return copies of all descriptors."""
        with ExitStack() as undo:
            copies = []
            for end in (self.write, self.read, self.listener):
                copies.append(end.dup())
                undo.callback(copies[-1].close)
            lock = NO_LOCK if self.lock == NO_LOCK else os.dup(self.lock)
            undo.pop_all()
            write, read, listener = copies
            return type(self)(write, read, listener, lock)

    def close(self) -> None:
        for end in (self.write, self.read, self.listener):
            end.close()
        if self.lock != NO_LOCK:
            os.close(self.lock)
            self.lock = NO_LOCK

    def numbers(self) -> list[int]:
        """Return the descriptors in the order in which they travel."""
        sockets = [end.fileno() for end in (self.write, self.read, self.listener)]
        return sockets if self.lock == NO_LOCK else [*sockets, self.lock]


def pair() -> list[socket.socket]:
    """Make two sockets that are connected."""
    # As `socket.socketpair` does, but that takes whatever is called `socket.socket` now.
    ends = _socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return [_adopted(end.detach()) for end in ends]


def accepted(listener: socket.socket) -> tuple[socket.socket, bytes]:
    """Accept a connection, without waiting, and return it with the address of the peer."""
    # Not `accept`, which makes an object of what `socket.socket` is now.
    number, address = listener._accept()  # type: ignore[attr-defined]
    return _adopted(number), os.fsencode(address)


def end(listener: socket.socket) -> None:
    """Shut down the listening socket because the queue is unlinked; every holder sees that at once."""
    listener.shutdown(socket.SHUT_RDWR)


def has_ended(listener: socket.socket) -> bool:
    """Tell whether the queue was unlinked."""
    poll = _poll()
    poll.register(listener, 0)  # a hang-up is always told
    return bool(poll.poll(0))


def ending_line() -> socket.socket:
    """Make a socket whose address asks the process that it connects to for the end, so that no message is needed."""
    end = line()
    try:
        end.bind(_ENDING + secrets.token_hex(8).encode())
    except BaseException:
        end.close()
        raise
    return end


def asks_to_end(connection: socket.socket, address: bytes) -> bool:
    """Tell whether a connection asks for the end of the queue, and comes from this user."""
    return address.startswith(_ENDING) and _peer(connection) == os.geteuid()


def _adopted(number: int) -> socket.socket:
    # With its kind said, Python asks the kernel nothing that could be refused, which would leave the descriptor open.
    return Socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, number)


def line() -> socket.socket:
    """Make a socket to connect by, or to listen on."""
    end = Socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end.settimeout(0)
    return end


def _blocking(end: socket.socket) -> socket.socket:
    # A default timeout of the program's would make Python wait in calls that are not meant to.
    end.settimeout(None)
    return end


def sent(connection: socket.socket, terms: Terms, ends: Ends) -> None:
    """Hand everything to who connected, if it is this user."""
    if _peer(connection) == os.geteuid():
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", ends.numbers()))]
        connection.sendmsg([terms.packed()], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def received(connection: socket.socket) -> tuple[Terms, Ends] | None:
    """Take what a holder handed over; None where it ended without a word.

    Raises:
        PermissionDenied: Another user answered.
        LimitExceeded: The descriptor table is full.
        CorruptQueue: It is not what a holder hands over.
        VersionMismatch: Another version of ipcq answered.
    """
    if _peer(connection) != os.geteuid():
        raise PermissionDenied(f"user {_peer(connection)} answers under its name, not this user ({os.geteuid()})")
    space = socket.CMSG_LEN(_MOST * array("i").itemsize)
    try:
        data, control, flags, _ = connection.recvmsg(_ROOM, space, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    with ExitStack() as undo:
        numbers = descriptors(control)
        for number in numbers:
            undo.callback(os.close, number)
        if flags & socket.MSG_CTRUNC:
            raise too_many_descriptors()
        if not data:
            return None
        terms = Terms.unpacked(data)
        if len(numbers) != 3 + bool(terms.packet) or not all(map(_is_ours, numbers[:3])):
            raise CorruptQueue("who answers under its name hands over something else than a queue")
        undo.pop_all()
        write, read, listener = map(_adopted, numbers[:3])
        ends = Ends(write, read, listener, numbers[3] if terms.packet else NO_LOCK)
        undo.callback(ends.close)
        listener.settimeout(0)
        _blocking(write)
        _blocking(read)
        undo.pop_all()
        return terms, ends


def _is_ours(number: int) -> bool:
    """Tell whether a descriptor is a socket of the kind that a queue consists of."""
    try:
        kind = Socket(fileno=number)
    except OSError:
        return False
    try:
        return (kind.family, kind.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    finally:
        kind.detach()


def descriptors(control: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors that came with a message."""
    numbers = array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return list(numbers)


def _peer(connection: socket.socket) -> int:
    """Return the user at the other end (SO_PEERCRED of ``unix(7)``: process, user, group)."""
    return array("i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 3 * array("i").itemsize))[1]
