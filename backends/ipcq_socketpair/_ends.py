"""The descriptors and parameters of a queue, and the handshake that sends them to an attaching process."""

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

#: Not gevent's: its calls wait where these report that nothing is there, and it changes the descriptors of all holders.
Socket: type[socket.socket] = original("socket", "socket")

_poll = original("select", "poll")

#: Version of the handshake.
VERSION: Final = 1

#: Upper bounds of a handshake.
_MOST_BYTES: Final = 4096
_MOST_DESCRIPTORS: Final = 4

NO_LOCK: Final = -1

# Prefix of an address without a file (unix(7): "abstract").
_ENDING: Final = b"\0ipcq-end."

#: Device and inode of a queue's socket file. While a process holds the listening socket, the inode is not reused.
Found = tuple[int, int]


@dataclass(frozen=True)
class Terms:
    """The fixed parameters of a queue."""

    name: str
    attributes: Attributes
    packet: int
    """The size to which every packet is padded, in bytes; 0 for no padding."""
    found: Found
    """The queue's socket file."""

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
            raise CorruptQueue("the process that answers under its name is not ipcq") from error
        raise VersionMismatch(
            f"its holders use version {version!r} of the handshake, but this ipcq uses version {VERSION}: "
            "use the same version of ipcq in all processes"
        )


class Ends:
    """The descriptors of one handle.

    All holders share the two ends, so no option is set on them that would change the calls of other holders. The
    listening socket is non-blocking for all holders.
    """

    def __init__(self, write: socket.socket, read: socket.socket, listener: socket.socket, lock: int) -> None:
        self.write = write
        self.read = read
        self.listener = listener
        self.lock = lock
        """The file that producers lock; `NO_LOCK` if the queue has no limit in messages."""

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
        """Return the descriptors in the order of the handshake."""
        sockets = [end.fileno() for end in (self.write, self.read, self.listener)]
        return sockets if self.lock == NO_LOCK else [*sockets, self.lock]


def pair() -> list[socket.socket]:
    """Create two connected sockets."""
    # Like `socket.socketpair`, which would use the current `socket.socket`, perhaps that of gevent.
    ends = _socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return [_adopted(end.detach()) for end in ends]


def accepted(listener: socket.socket) -> tuple[socket.socket, bytes]:
    """Accept a connection without waiting, and return it with the peer's address."""
    # Not `accept`, which would create an object of the current `socket.socket`.
    number, address = listener._accept()  # type: ignore[attr-defined]
    return _adopted(number), os.fsencode(address)


def end(listener: socket.socket) -> None:
    """Shut down the listening socket because the queue is unlinked; every holder sees that at once."""
    listener.shutdown(socket.SHUT_RDWR)


def has_ended(listener: socket.socket) -> bool:
    """Return whether the queue was unlinked."""
    poll = _poll()
    poll.register(listener, 0)  # a hang-up is always reported
    return bool(poll.poll(0))


def ending_line() -> socket.socket:
    """Create a socket whose address asks the process that accepts it to end the queue, so that no message is needed."""
    end = line()
    try:
        end.bind(_ENDING + secrets.token_hex(8).encode())
    except BaseException:
        end.close()
        raise
    return end


def asks_to_end(connection: socket.socket, address: bytes) -> bool:
    """Return whether a connection asks for the end of the queue, and comes from this user."""
    return address.startswith(_ENDING) and _peer(connection) == os.geteuid()


def _adopted(number: int) -> socket.socket:
    # With family and type given, Python makes no system call that could fail and leave the descriptor open.
    return Socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, number)


def line() -> socket.socket:
    """Create a non-blocking socket to connect with, or to listen on."""
    end = Socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end.settimeout(0)
    return end


def _blocking(end: socket.socket) -> socket.socket:
    # A default timeout set by the program would make Python wait in calls that must not wait.
    end.settimeout(None)
    return end


def sent(connection: socket.socket, terms: Terms, ends: Ends) -> None:
    """Send parameters and descriptors to the peer, if it is this user."""
    if _peer(connection) == os.geteuid():
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", ends.numbers()))]
        connection.sendmsg([terms.packed()], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def received(connection: socket.socket) -> tuple[Terms, Ends] | None:
    """Receive parameters and descriptors from a holder; return None if it closed the connection.

    Raises:
        PermissionDenied: Another user answered.
        LimitExceeded: The descriptor table is full.
        CorruptQueue: The answer is not from ipcq.
        VersionMismatch: Another version of ipcq answered.
    """
    if _peer(connection) != os.geteuid():
        raise PermissionDenied(f"user {_peer(connection)} answers under its name, not this user ({os.geteuid()})")
    space = socket.CMSG_LEN(_MOST_DESCRIPTORS * array("i").itemsize)
    try:
        data, control, flags, _ = connection.recvmsg(_MOST_BYTES, space, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
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
            raise CorruptQueue("the process that answers under its name did not send the descriptors of a queue")
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
    """Return whether a descriptor is a Unix SOCK_SEQPACKET socket."""
    try:
        kind = Socket(fileno=number)
    except OSError:
        return False
    try:
        return (kind.family, kind.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    finally:
        kind.detach()


def descriptors(control: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """Return the descriptors in the control data of a message."""
    numbers = array("i")
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    return list(numbers)


def _peer(connection: socket.socket) -> int:
    """Return the peer's user ID (SO_PEERCRED of ``unix(7)``: process, user, group)."""
    return array("i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 3 * array("i").itemsize))[1]
