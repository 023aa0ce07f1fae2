"""A queue's file: made whole or not at all, opened with suspicion, removed when nobody holds it.

On Linux a file is made without a name, filled, and then linked to its name, so that a half-made one never has a name
and goes with its maker. Elsewhere it is made under a name of its own and linked to the queue's, and whoever meets what
a maker that was killed left behind clears it away.

A handle of a last-close queue holds a lock that the kernel takes back at death. Whoever can take it for himself alone
has met a file that nobody holds any more: that is no queue, and is removed.
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
from typing import Final

from ipcq.backend import Request, check_file_size, check_owner, closed, reraise_from_handler, suppressed, translated
from ipcq.backend import opened as noted
from ipcq.errors import CorruptQueue, MessageQueueError, NoSpace, PermissionDenied, QueueExists, QueueNotFound
from ipcq_pyshm import _file, _lock, _place
from ipcq_pyshm._layout import LINK, STATES_AT, Geometry, Header, State, place

#: Bytes allocated by one call. The call starts anew where a signal interrupts it, so it has to be shorter than what is
#: between two signals of a fast timer (65 KiB take some 30 µs).
_CHUNK: Final = 1 << 16

_DESCRIPTORS: Final = "/proc/self/fd"

#: Bytes of links written by one call.
_LINKS: Final = 1 << 14


def errors(size: int = 0) -> dict[int | type[BaseException], Callable[[], MessageQueueError]]:
    """Return what the system's refusals mean here (`ipcq.backend.translated`); `size` is what was to be allocated."""
    full = partial(_full, size)
    denied = partial(PermissionDenied, "its mode does not let this user: ask its owner")
    return {
        errno.ENOENT: QueueNotFound,
        **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EOVERFLOW), full),
        **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), denied),
        **dict.fromkeys((errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENOTDIR), _irregular),
        struct.error: CorruptQueue,  # a number from the file led to one that nothing holds
    }


def _full(size: int) -> MessageQueueError:
    return NoSpace(
        f"{_place.directory()} has no {size} bytes left for it: remove queues that nobody needs (ipcq ls), ask for "
        "less, or have it made larger (sudo mount -o remount,size=… /dev/shm)"
    )


def _irregular() -> MessageQueueError:
    return PermissionDenied(f"what has its name in {_place.directory()} is no regular file: have it removed")


#: The same where nothing is allocated.
ERRORS: Final = errors()


def make(header: Header) -> int:
    """Make the file of a new queue, and return a descriptor of it.

    Raises:
        QueueExists: The name is taken.
        NoSpace: There is no space for it, and nothing is left of it.
        LimitExceeded: This process may not make so large a file.
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
    """Make a file without a name that can be given one later; None where the system has no such files."""
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
    # With a directory given, which an absolute path does not look at, it is linkat(2), which follows the link in /proc;
    # without one, Python calls link(2), which does not.
    os.link(f"{_DESCRIPTORS}/{descriptor}", path, src_dir_fd=descriptor)


def _fill(descriptor: int, header: Header) -> None:
    geometry = Geometry.of(header.attributes)
    _allocate(descriptor, geometry.size)
    for begin in range(0, geometry.blocks, _LINKS):
        count = min(_LINKS, geometry.blocks - begin)
        links = b"".join(LINK.pack(block + 1) for block in range(begin, begin + count))
        _file.pwrite(descriptor, links, geometry.links_at + begin * LINK.size)
    state = State(sequence=1, spare=geometry.blocks)
    _file.pwrite(descriptor, state.packed(), place(state.sequence))
    _file.pwrite(descriptor, header.packed(), 0)
    if sys.platform != "win32":
        os.fchmod(descriptor, header.attributes.mode)  # the umask does not count
    if header.attributes.lifetime == "last-close":
        _file.hold(descriptor)


def _allocate(descriptor: int, size: int) -> None:
    """Get the memory now, so that no write fails later for want of it."""
    check_file_size(size)
    if hasattr(os, "fstatvfs"):
        found = os.fstatvfs(descriptor)
        # Else it would fill all that there is before it fails. A file system without a limit says 0.
        if found.f_blocks and size > found.f_bavail * found.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for begin in range(0, size, _CHUNK):
        length = min(_CHUNK, size - begin)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, begin, length)
        else:
            _file.pwrite(descriptor, bytes(length), begin)


class Opened:
    """The file of a queue that exists, checked, with what its header says."""

    def __init__(self, descriptor: int, header: Header) -> None:
        self.descriptor = descriptor
        self.header = header


def opened(name: str, request: Request) -> Opened:
    """Open the file of a queue, as a holder of it.

    Raises:
        QueueNotFound: There is none, or only what dead holders left.
        PermissionDenied: Its mode does not let this user, or it is not what a queue's file has to be.
        CorruptQueue: It is not a queue's file.
        VersionMismatch: Another version made it.
    """
    path = _place.path_of(name)
    with translated(ERRORS):
        descriptor = noted(lambda: os.open(path, _file.OPEN))
        try:
            header = _checked(descriptor, path, request)
            if header.name != name:
                raise CorruptQueue(f"its file is that of {header.name!r}: remove {path}")
            return Opened(descriptor, header)
        except BaseException:
            closed(descriptor)
            raise


def _checked(descriptor: int, path: str, request: Request) -> Header:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise PermissionDenied(f"{path} is no regular file: have it removed (sudo rm -r {path})")
    if sys.platform != "win32":
        check_owner(found.st_uid, request)
    if found.st_nlink > 1:
        found = _cleared(descriptor, path)
    if found.st_nlink > 1:
        raise PermissionDenied(f"{path} has {found.st_nlink} names, so that others keep it: have it removed")
    mode = stat.S_IMODE(found.st_mode)
    header = Header.of(_file.pread(descriptor, STATES_AT, 0), mode)
    if found.st_size != Geometry.of(header.attributes).size:
        raise CorruptQueue(f"its file has {found.st_size} bytes and not as many as were allocated: unlink it")
    if header.attributes.lifetime == "last-close":
        if _file.try_to_own(descriptor):
            remove(descriptor, path)
            raise QueueNotFound
        if not _file.hold(descriptor):  # somebody else removes it just now
            raise QueueNotFound
    if not os.fstat(descriptor).st_nlink:
        raise QueueNotFound
    return header


def _cleared(descriptor: int, path: str) -> os.stat_result:
    """Remove the other name of a file whose maker was killed between linking and cleaning up."""
    for half in _place.listed(_place.HALVES):
        if half.startswith(path) and os.path.samestat(os.lstat(half), os.fstat(descriptor)):
            os.unlink(half)
    return os.fstat(descriptor)


def remove(descriptor: int, path: str) -> None:
    """Remove the name of an open file, if it still leads there, and what the dead left of its lock."""
    try:
        if os.path.samestat(os.lstat(path), os.fstat(descriptor)):
            os.unlink(path)
    except FileNotFoundError:
        pass
    _clear_away(descriptor)


def unlink(path: str) -> None:
    """Remove a name, whatever it leads to, and what the dead left of its queue's lock.

    Raises:
        OSError: The system refused, and the name is still there.
    """
    with looked_at(path) as descriptor:
        os.unlink(path)
        if descriptor is not None:
            _clear_away(descriptor)


def _clear_away(descriptor: int) -> None:
    header = _header(descriptor)
    if header is not None:
        _lock.clear_away(header, descriptor)


def let_go(descriptor: int, path: str) -> None:
    """Stop holding a last-close queue, and remove it where nobody else holds it."""
    _file.let_go(descriptor)
    if _file.try_to_own(descriptor):
        remove(descriptor, path)


def _reaped(path: str) -> bool:
    """Tell whether what has the name is gone by now, because nobody held it."""
    try:
        descriptor = noted(lambda: os.open(path, _file.OPEN))
    except OSError as error:
        reraise_from_handler(error)
        return isinstance(error, FileNotFoundError)  # else it is there and not for this user
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
    """Read the header of a file; None where that is not to be read, or is no queue."""
    if _reaped(path):
        return None
    with looked_at(path) as descriptor:
        return None if descriptor is None else _header(descriptor)


def abandoned(path: str) -> bool:
    """Tell whether a file is what dead holders left of a last-close queue."""
    with looked_at(path) as descriptor:
        return descriptor is not None and _last_close(descriptor) and _file.try_to_own(descriptor)


@contextmanager
def looked_at(path: str) -> Iterator[int | None]:
    """Open a file as nobody's holder; None where that is not for this user, or it is gone."""
    descriptor = None
    with suppressed(OSError):
        descriptor = noted(lambda: os.open(path, _file.OPEN))
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            closed(descriptor)


def _header(descriptor: int) -> Header | None:
    """Read the header of an open file; None where it is no file of ours."""
    with suppressed(OSError, MessageQueueError):
        return Header.of(_file.pread(descriptor, STATES_AT, 0), 0)
    return None


def exists(path: str) -> bool:
    """Tell whether the name is taken by more than what dead holders left."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return not _reaped(path)
