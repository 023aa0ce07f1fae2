"""The capacity of a pair of sockets.

The kernel charges the writing end more than the bytes of a packet (``truesize``, in steps), and accepts a packet while
the total charge is below SO_SNDBUF. The charge for a size is measured, not guessed.
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

#: Largest message that travels in its packet, in bytes. A larger one would need contiguous kernel memory (af_unix.c).
INLINE_BYTES: Final = 1 << 16

#: The same if all packets are padded to one size: the limits of that size.
PADDED_INLINE_BYTES: Final = 4096
_LEAST_INLINE_BYTES: Final = 64

#: The header of a padded packet, or of a message that does not travel in its packet: kind, size.
HEADER: Final = struct.Struct("<BQ")

# The value of the socket's priority if large messages were put. All holders share it, and the kernel ignores it for
# Unix sockets.
_LARGE: Final = 1

# The largest SO_SNDBUF. The kernel doubles the value for its overhead and stores it in a C int.
_MOST_BUFFER_BYTES: Final = (1 << 30) - 1


def waiting(read: int) -> int:
    """Return the number of unread bytes in packets (SIOCINQ, ``unix(7)``)."""
    return _figure(read, termios.FIONREAD)


def charged(write: int) -> int:
    """Return the kernel's charge for the unread packets, in bytes (SIOCOUTQ)."""
    return _figure(write, termios.TIOCOUTQ)


def _figure(descriptor: int, request: int) -> int:
    return int.from_bytes(fcntl.ioctl(descriptor, request, bytes(4)), "little")


def limit(write: socket.socket) -> int:
    """Return the charge at which the kernel accepts no more packets, in bytes."""
    return write.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def size_of(write: socket.socket) -> int:
    """Return the buffer's size in bytes, as passed to SO_SNDBUF."""
    return limit(write) // 2


def has_large(read: socket.socket) -> bool:
    """Return whether any message was put that does not travel in its packet."""
    return read.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == _LARGE


def say_large(read: socket.socket) -> None:
    read.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, _LARGE)


@cache
def charge(size: int) -> int:
    """Measure the kernel's charge for a packet of `size` bytes."""
    write, read = pair()
    with write, read:
        write.settimeout(None)
        write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * size)
        write.send(bytes(size), socket.MSG_DONTWAIT)
        return charged(write.fileno())


def fitted(write: socket.socket, request: Request, largest: int) -> int:
    """Set the buffer size that a request needs, and return the size to which packets are padded; 0 for no padding.

    Raises:
        LimitExceeded: The kernel does not allow so large a buffer.
        Unsupported: The requested size is below the kernel's minimum.
    """
    if request.max_messages is None:
        _resized(write, request.buffer_size)
        return 0
    messages = request.max_messages
    inline = min(largest, PADDED_INLINE_BYTES)
    # Messages that do not fit travel as descriptors, so the packets may be smaller if there are many.
    while inline > _LEAST_INLINE_BYTES and messages * charge(HEADER.size + inline) // 2 > _most():
        inline = max(_LEAST_INLINE_BYTES, inline // 2)
    if request.max_message_size is not None and largest > inline:
        _check_descriptors(messages)
    packet = HEADER.size + inline
    _enlarged(write, messages * charge(packet) // 2)
    return packet


def _most() -> int:
    try:
        with open("/proc/sys/net/core/wmem_max", encoding="utf-8") as file:
            return int(file.read())
    except OSError:  # not readable in every container; then setting the buffer size reports the limit
        return _MOST_BUFFER_BYTES


def _resized(write: socket.socket, asked: int | None) -> None:
    if asked is None:
        # The kernel reduces it to its limit.
        write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST_BUFFER_BYTES)
        return
    _enlarged(write, asked)
    if size_of(write) > asked:
        raise Unsupported(
            f"a socket's buffer has at least {size_of(write)} bytes, asked for {asked}: leave out buffer_size"
        )


def _enlarged(write: socket.socket, asked: int) -> None:
    write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, min(asked, _MOST_BUFFER_BYTES))
    if size_of(write) < asked:
        remedy = (
            "no setting raises it: ask for less"
            if asked > _MOST_BUFFER_BYTES
            else f"sudo sysctl net.core.wmem_max={asked}"
        )
        raise LimitExceeded(
            limit="net.core.wmem_max", value=size_of(write), asked=asked, remedy=remedy, errno=errno.ENOBUFS
        )


def _check_descriptors(messages: int) -> None:
    # A user may have as many descriptors in transit in sockets as one process may have open (too_many_unix_fds).
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
    """Create the file that producers lock; it has no name and lives as long as its queue."""
    return os.memfd_create("ipcq-lock", os.MFD_CLOEXEC)
