"""A queue's file: created completely or not at all, checked before use, removed when a last-close queue has no holder.

On Linux the file is created without a name, filled, and then linked to its name. So an unfinished file never has a
name, and disappears if its creator is killed. On other systems it is created under a temporary name and linked to the
queue's name; if its creator was killed, the next process that finds the temporary name removes it.

A handle of a last-close queue holds a shared lock on a byte, which the kernel releases when the process dies. If a
process can take that lock exclusively, the file has no holder any more: it is not a queue, and is removed.
"""

import errno
import os
import secrets
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import sleep
from typing import Final

from ipcq.backend import Request, check_file_size, check_owner, closed, reraise_from_handler, suppressed, translated
from ipcq.backend import opened as noted
from ipcq.errors import (
    CorruptQueue,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueExists,
    QueueNotFound,
    VersionMismatch,
)
from ipcq_pyshm import CAPABILITIES, _file, _lock, _place
from ipcq_pyshm._layout import LINK, STATES_AT, Geometry, Header, LeaseState, State, place

#: How long a busy channel may go without checking whether its queue was unlinked. `unlink` waits as long before it
#: returns; then every process sees its effect.
BLIND_SECONDS: Final = 0.001

#: Bytes that one call allocates. A signal makes the call start over, so it must be shorter than the interval of a fast
#: timer (64 KiB take about 30 µs).
_CHUNK: Final = 1 << 16

_DESCRIPTORS: Final = "/proc/self/fd"

#: Number of links that one call writes.
_LINKS: Final = 1 << 14


def errors(size: int = 0) -> dict[int | type[BaseException], Callable[[], MessageQueueError]]:
    """Return the meanings of error numbers (`ipcq.backend.translated`); `size` is the number of bytes to allocate."""
    full = partial(_full, size)
    denied = partial(PermissionDenied, "its mode denies access to this user: ask its owner")
    return {
        errno.ENOENT: QueueNotFound,
        **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EOVERFLOW), full),
        **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), denied),
        **dict.fromkeys((errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR), _irregular),
        struct.error: CorruptQueue,  # a number from the file led to one that does not fit its field
    }


def _full(size: int) -> MessageQueueError:
    return NoSpace(
        f"{_place.directory()} has no space for {size} bytes: remove unused queues (ipcq ls), ask for less, "
        "or enlarge it (sudo mount -o remount,size=… /dev/shm)"
    )


def _irregular() -> MessageQueueError:
    return PermissionDenied(f"its path in {_place.directory()} is not a regular file: have it removed")


#: For calls that allocate nothing.
ERRORS: Final = errors()


def make(header: Header) -> int:
    """Create the file of a new queue, and return its descriptor.

    Raises:
        QueueExists: The name is taken.
        NoSpace: There is not enough space. No file is left behind.
        LimitExceeded: The file would exceed this process's file size limit.
    """
    path = _place.path_of(header.name)
    with translated(errors(Geometry.of(header.attributes).size)):
        while True:
            try:
                return _made(path, header)
            except FileExistsError as error:
                if not _reaped(path):
                    raise QueueExists from error


def _made(path: str, header: Header) -> int:
    temporary = ""
    descriptor = _nameless(os.path.dirname(path))
    if descriptor is None:
        temporary = f"{path}.{secrets.token_hex(8)}"
        descriptor = noted(lambda: os.open(temporary, _file.OPEN | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        _fill(descriptor, header)
        if temporary:
            os.link(temporary, path)
        else:
            _link(descriptor, path)
    except BaseException:
        closed(descriptor)
        raise
    finally:
        if temporary:
            os.unlink(temporary)
    return descriptor


def _nameless(home: str) -> int | None:
    """Create a file without a name, to be linked later; return None if the system cannot do that."""
    if not hasattr(os, "O_TMPFILE") or not os.path.isdir(_DESCRIPTORS):
        return None
    try:
        return noted(lambda: os.open(home, _file.OPEN | os.O_TMPFILE, 0o600))
    except OSError as error:
        reraise_from_handler(error)
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR):  # not on this file system
            return None
        raise


def _link(descriptor: int, path: str) -> None:
    # With a directory descriptor, which an absolute path ignores, Python calls linkat(2), which follows the link in
    # /proc. Without one, it calls link(2), which does not.
    os.link(f"{_DESCRIPTORS}/{descriptor}", path, src_dir_fd=descriptor)


def _fill(descriptor: int, header: Header) -> None:
    geometry = Geometry.of(header.attributes)
    _allocate(descriptor, geometry.size)
    for begin in range(0, geometry.blocks, _LINKS):
        count = min(_LINKS, geometry.blocks - begin)
        links = b"".join(LINK.pack(block + 1) for block in range(begin, begin + count))
        _file.pwrite(descriptor, links, geometry.links_at + begin * LINK.size)
    state = (LeaseState if header.attributes.leases else State).first(geometry.blocks)
    _file.pwrite(descriptor, state.packed(), place(state.sequence))
    _file.pwrite(descriptor, header.packed(), 0)
    if sys.platform != "win32":
        os.fchmod(descriptor, header.attributes.mode)  # regardless of the umask
    if header.attributes.lifetime == "last-close":
        _file.hold(descriptor)


def _allocate(descriptor: int, size: int) -> None:
    """Allocate the memory now, so that no later write fails for lack of space."""
    check_file_size(size)
    if hasattr(os, "fstatvfs"):
        found = os.fstatvfs(descriptor)
        # Otherwise the allocation would fill the file system before it fails. A file system without a limit reports 0.
        if found.f_blocks and size > found.f_bavail * found.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for begin in range(0, size, _CHUNK):
        length = min(_CHUNK, size - begin)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, begin, length)
        else:
            _file.pwrite(descriptor, bytes(length), begin)


class Opened:
    """The checked file of an existing queue, and its header."""

    def __init__(self, descriptor: int, header: Header) -> None:
        self.descriptor = descriptor
        self.header = header


def opened(name: str, request: Request) -> Opened:
    """Open the file of a queue, and become a holder of it.

    Raises:
        QueueNotFound: There is no such queue, or only the leftover file of a last-close queue.
        PermissionDenied: Mode or owner deny access, or it is not a regular file with one name.
        CorruptQueue: It is not a valid file of this queue.
        VersionMismatch: Another version of ipcq created it, or it has leases and was created in another time namespace.
    """
    path = _place.path_of(name)
    with translated(ERRORS):
        descriptor = noted(lambda: os.open(path, _file.OPEN))
        try:
            header = _checked(descriptor, path, request)
            if header.name != name:
                raise CorruptQueue(f"its file belongs to the queue {header.name!r}: remove {path}")
            return Opened(descriptor, header)
        except BaseException:
            closed(descriptor)
            raise


def _checked(descriptor: int, path: str, request: Request) -> Header:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise PermissionDenied(f"{path} is not a regular file: have it removed (sudo rm -r {path})")
    if sys.platform != "win32":
        check_owner(found.st_uid, request, shareable=CAPABILITIES.other_users)
    if found.st_nlink > 1:
        found = _cleared(descriptor, path)
    if found.st_nlink > 1:
        raise PermissionDenied(f"{path} has {found.st_nlink} names, so removing one does not free it: have it removed")
    mode = stat.S_IMODE(found.st_mode)
    header = Header.of(_file.pread(descriptor, STATES_AT, 0), mode, not request.write)
    _check_clock(header)
    if found.st_size != Geometry.of(header.attributes).size:
        raise CorruptQueue(f"its file has {found.st_size} bytes, which is not its allocated size: unlink it")
    if header.attributes.lifetime == "last-close":
        if _file.try_to_own(descriptor):
            remove(descriptor, path)
            raise QueueNotFound
        if not _file.hold(descriptor):  # another process is removing it
            raise QueueNotFound
    if not os.fstat(descriptor).st_nlink:
        raise QueueNotFound
    return header


def time_namespace() -> int:
    """Identify the monotonic clock of this process (time_namespaces(7)); 0 if the system has only one."""
    try:
        return os.stat("/proc/self/ns/time").st_ino
    except OSError:
        return 0


def _check_clock(header: Header) -> None:
    if header.time_namespace and header.time_namespace != time_namespace():
        raise VersionMismatch(
            "it was created in another time namespace, whose clock differs from the one here: share the namespace"
        )


def _cleared(descriptor: int, path: str) -> os.stat_result:
    """Remove the temporary name of a file whose creator was killed between linking and cleanup."""
    for half in _place.listed(_place.HALVES):
        if half.startswith(path) and os.path.samestat(os.lstat(half), os.fstat(descriptor)):
            os.unlink(half)
    return os.fstat(descriptor)


def remove(descriptor: int, path: str) -> None:
    """Remove the name of an open file, if it still refers to it, and the leftovers of its lock."""
    try:
        if os.path.samestat(os.lstat(path), os.fstat(descriptor)):
            os.unlink(path)
    except FileNotFoundError:
        pass
    _clear_away(descriptor)


def unlink(path: str) -> None:
    """Remove a name, whatever it refers to, and what its queue's lock left behind; return when every channel sees it.

    Raises:
        OSError: The system refused; the name still exists.
    """
    with looked_at(path) as descriptor:
        os.unlink(path)
        if descriptor is not None:
            _clear_away(descriptor)
    sleep(BLIND_SECONDS)


def _clear_away(descriptor: int) -> None:
    header = _header(descriptor)
    if header is not None:
        _lock.clear_away(header, descriptor)


def let_go(descriptor: int, path: str) -> None:
    """Stop holding a last-close queue, and remove it if it has no other holder."""
    _file.let_go(descriptor)
    if _file.try_to_own(descriptor):
        remove(descriptor, path)


def _reaped(path: str) -> bool:
    """Remove the file if it has no holder, and return whether the name is free."""
    try:
        descriptor = noted(lambda: os.open(path, _file.OPEN))
    except OSError as error:
        reraise_from_handler(error)
        return isinstance(error, FileNotFoundError)  # otherwise it exists, but denies access
    try:
        if not _last_close(descriptor):
            return False
        if not _file.try_to_own(descriptor):
            return not os.fstat(descriptor).st_nlink
        remove(descriptor, path)
        return True
    finally:
        closed(descriptor)


def _last_close(descriptor: int) -> bool:
    header = _header(descriptor)
    return header is not None and header.attributes.lifetime == "last-close"


def header_of(path: str) -> Header | None:
    """Read the header of a file; return None if it is unreadable or not a queue."""
    if _reaped(path):
        return None
    with looked_at(path) as descriptor:
        return None if descriptor is None else _header(descriptor)


def abandoned(path: str) -> bool:
    """Return whether the file is left over from a last-close queue without holders."""
    with looked_at(path) as descriptor:
        return descriptor is not None and _last_close(descriptor) and _file.try_to_own(descriptor)


@contextmanager
def looked_at(path: str) -> Iterator[int | None]:
    """Open a file without becoming a holder; yield None if it does not exist or denies access."""
    descriptor = None
    with suppressed(OSError):
        descriptor = noted(lambda: os.open(path, _file.OPEN))
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            closed(descriptor)


def _header(descriptor: int) -> Header | None:
    """Read the header of an open file; return None if it is not a queue's file."""
    with suppressed(OSError, MessageQueueError):
        return Header.of(_file.pread(descriptor, STATES_AT, 0), 0)
    return None


def exists(path: str) -> bool:
    """Return whether the name is taken; leftover files of last-close queues do not count."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return not _reaped(path)
