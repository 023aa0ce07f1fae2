"""How much a pair of sockets holds.

The kernel charges each packet to the writing end with more than its bytes (``truesize``, in steps), and takes a packet
as long as the charge so far is below SO_SNDBUF. What a size is charged is measured, not guessed.
"""

import errno
import fcntl
import os
import resource
import socket
import struct
import termios
from functools import cache
from typing import Final

from ipcq.backend import Request
from ipcq.errors import LimitExceeded, Unsupported
from ipcq_socketpair._ends import pair

#: Largest message that travels in its packet. Beyond, the kernel would need memory in one piece (af_unix.c).
INLINE: Final = 1 << 16

#: The same where every packet is padded to the size of the largest; and the least that it is worth padding to.
PADDED_INLINE: Final = 4096
_LEAST_INLINE: Final = 64

#: What stands in front of a message in a padded packet, or for one that does not travel in its packet: kind, size.
HEADER: Final = struct.Struct("<BQ")

# A socket's priority is kept for every holder, and means nothing to the kernel where no network is involved.
_LARGE: Final = 1

# The kernel doubles what it is asked for, to have room for its own; so its figure is a C int, this is half of it.
_HIGHEST: Final = (1 << 30) - 1


def waiting(read: int) -> int:
    """Return how many bytes of packets wait to be read (SIOCINQ, ``unix(7)``)."""
    return _figure(read, termios.FIONREAD)


def charged(write: int) -> int:
    """Return what the kernel charges for the packets that wait (SIOCOUTQ)."""
    return _figure(write, termios.TIOCOUTQ)


def _figure(descriptor: int, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(descriptor, request, bytes(4)), "little")


def limit(write: socket.socket) -> int:
    """Return the charge from which on nothing more is taken."""
    return write.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def size_of(write: socket.socket) -> int:
    """Return the buffer's size in bytes as it is asked for."""
    return limit(write) // 2


def has_large(read: socket.socket) -> bool:
    """Tell whether anybody ever put a message that does not travel in its packet."""
    return read.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == _LARGE


def say_large(read: socket.socket) -> None:
    read.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, _LARGE)


@cache
def charge(size: int) -> int:
    """Measure what the kernel charges for a packet."""
    write, read = pair()
    with write, read:
        write.settimeout(None)
        write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * size)
        write.send(bytes(size), socket.MSG_DONTWAIT)
        return charged(write.fileno())


def fitted(write: socket.socket, request: Request, largest: int) -> int:
    """Give the pair the buffer that a request needs, and return the size that its packets are padded to, 0 for none.

    Raises:
        LimitExceeded: The kernel does not give as much.
        Unsupported: It is less than a buffer has at the least.
    """
    if request.max_messages is None:
        _resized(write, request.buffer_size)
        return 0
    messages = request.max_messages
    inline = min(largest, PADDED_INLINE)
    # Larger messages than fit travel as descriptors, so the packets may be smaller where there are to be many.
    while inline > _LEAST_INLINE and messages * charge(HEADER.size + inline) // 2 > _most():
        inline = max(_LEAST_INLINE, inline // 2)
    if request.max_message_size is not None and largest > inline:
        _check_descriptors(messages)
    packet = HEADER.size + inline
    _enlarged(write, messages * charge(packet) // 2)
    return packet


def _most() -> int:
    try:
        with open("/proc/sys/net/core/wmem_max", encoding="utf-8") as file:
            return int(file.read())
    except OSError:  # not to be seen in every container; asking for too much tells as well
        return _HIGHEST


def _resized(write: socket.socket, asked: int | None) -> None:
    if asked is None:
        write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _HIGHEST)  # gives what may be had
        return
    _enlarged(write, asked)
    if size_of(write) > asked:
        raise Unsupported(f"a socket's buffer has at least {size_of(write)} bytes, asked for {asked}: leave it out")


def _enlarged(write: socket.socket, asked: int) -> None:
    write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(asked, _HIGHEST))
    if size_of(write) < asked:
        remedy = (
            "no setting goes beyond it: ask for less" if asked > _HIGHEST else f"sudo sysctl net.core.wmem_max={asked}"
        )
        raise LimitExceeded(
            limit="net.core.wmem_max", value=size_of(write), asked=asked, remedy=remedy, errno=errno.ENOBUFS
        )


def _check_descriptors(messages: int) -> None:
    # A user may have as many descriptors under way in sockets as one process may have open (too_many_unix_fds).
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if messages > most:
        raise LimitExceeded(
            limit="RLIMIT_NOFILE",
            value=most,
            asked=messages,
            remedy=f"messages of that size travel as descriptors: ask for fewer, or ulimit -n {messages}",
            errno=errno.EMFILE,
        )


def lock_file() -> int:
    """Make the file that putters lock, which has no name and goes with its queue."""
    return os.memfd_create("ipcq-lock", os.MFD_CLOEXEC)
