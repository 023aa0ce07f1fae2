"""The files of queues: names, permissions, creation and removal.

A queue's file appears complete: it is created without a name, filled, and then linked to its name, which fails if the
name is taken. An opened file is checked through its descriptor before any byte of it is read.

The last handle of a last-close queue removes the file. If that handle's process was killed, the file stays, but no byte
of a slot is locked any more (csrc/layout.h). Such a file counts as missing, and a process that finds it removes it.
Every remover of a name locks one more byte of the file, and then checks that the name still refers to this file, so
that it never removes a successor.
"""

import errno
import fcntl
import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from ipcq.backend import (
    Lifetime,
    Request,
    check_file_size,
    check_owner,
    closed,
    no_fork,
    pause,
)
from ipcq.backend import opened as noted
from ipcq.errors import (
    CorruptQueue,
    LimitExceeded,
    MessageQueueError,
    NoSpace,
    PermissionDenied,
    QueueExists,
    QueueNotFound,
    TimedOutError,
)

DIRECTORY: Final = "/dev/shm"
#: Bytes of a file in addition to the messages; more if pages have 64 KiB.
MOST_OVERHEAD: Final = 64 << 10

#: Flags of the header.
ORDERED: Final = 1
LAST_CLOSE: Final = 2
BYTES: Final = 4
LEASES: Final = 8

# The layout of csrc/layout.h, which asserts these figures.
_MAGIC: Final = 0x0A1A715063510D8A
_HEADER: Final = struct.Struct("=QIIQQQQQQQII")
_UNLINKED: Final = 132
_DOORBELL: Final = struct.Struct("=Q")
_DOORBELL_AT: Final = 160
_NO_DOORBELL: Final = bytes(_DOORBELL.size)
NAME_AT: Final = 17296
_NAME_SIZE: Final = 256
_SLOTS: Final = 4096
LOCKS_AT: Final = 1 << 60
_REMOVAL: Final = LOCKS_AT + _SLOTS

_PREFIX: Final = "ipcq-shm."
_ABRIDGED: Final = "ipcq-shm-"
#: Bytes that one call allocates. A signal makes the call start over, so it must be shorter than the interval of a fast
#: timer.
_CHUNK: Final = 1 << 18
#: Mappings of one handle, and the file with the limit on mappings per process.
_MAPPINGS: Final = 4
_MAPPINGS_LIMIT: Final = Path("/proc/sys/vm/max_map_count")
#: Seconds to wait for another remover, which takes microseconds unless it is stopped.
_PATIENCE: Final = 1.0


def _no_memory() -> MessageQueueError:
    most = int(_MAPPINGS_LIMIT.read_text(encoding="utf-8"))
    with open("/proc/self/maps", "rb") as maps:
        count = sum(1 for _ in maps)
    if count + _MAPPINGS <= most:
        return _full()
    return LimitExceeded(
        limit="vm.max_map_count",
        value=most,
        asked=count + _MAPPINGS,
        remedy=f"sudo sysctl vm.max_map_count={2 * most}",
        errno=errno.ENOMEM,
    )


_full: Final = partial(NoSpace, f"{DIRECTORY} or the memory is full: remove unused queues (ipcq ls), or ask for less")
_denied: Final = partial(PermissionDenied, f"its mode denies access to this user: ask its owner (ls -l {DIRECTORY})")

#: The meanings of the system's errors (`ipcq.backend.translated`).
ERRORS: Final[dict[int | type[BaseException], Callable[[], MessageQueueError]]] = {
    errno.ENOENT: QueueNotFound,
    errno.EEXIST: QueueExists,
    errno.EACCES: _denied,
    errno.EPERM: _denied,
    errno.ENOMEM: _no_memory,
    errno.ENOSPC: _full,
    errno.EDQUOT: _full,
    errno.ELOOP: partial(PermissionDenied, "its file is a symbolic link, which ipcq never creates: remove it"),
    MemoryError: partial(NoSpace, "out of memory: free some and try again"),
}


def path_of(name: str) -> str:
    return _path(name, "shm")


def bell_of(name: str) -> str:
    """Return the path of the queue's doorbell (csrc/doorbell.h)."""
    return _path(name, "bell")


@lru_cache(64)  # opening and removing a queue asks for them several times
def _path(name: str, kind: str) -> str:
    file = f"ipcq-{kind}.{name[1:]}"
    if len(os.fsencode(file)) > 255:
        file = f"ipcq-{kind}-{hashlib.sha256(os.fsencode(name)).hexdigest()}"
    return f"{DIRECTORY}/{file}"


# Creating and opening


def nameless(size: int, mode: int) -> int:
    """Create a file of `size` zero bytes without a name, and return its descriptor.

    Raises:
        NoSpace: There is not enough memory; none is taken.
        LimitExceeded: The file would exceed this process's file size limit.
    """
    check_file_size(size)
    system = os.statvfs(DIRECTORY)
    free = system.f_bavail * system.f_frsize
    if system.f_blocks and size > free:
        raise NoSpace(
            f"it takes {size} bytes, but {DIRECTORY} has {free} free: remove unused queues (ipcq ls), ask for less, "
            f"or sudo mount -o remount,size={size + system.f_blocks * system.f_frsize} {DIRECTORY}"
        )
    descriptor = noted(lambda: os.open(DIRECTORY, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600))
    try:
        os.fchmod(descriptor, mode)
        for offset in range(0, size, _CHUNK):
            os.posix_fallocate(descriptor, offset, min(_CHUNK, size - offset))
    except BaseException:
        closed(descriptor)
        raise
    return descriptor


def nameless_bell() -> int:
    """Return a FIFO without a name, open for reading and writing: a pipe that is opened again."""
    with no_fork:
        ends = os.pipe()
        try:
            return noted(lambda: os.open(f"/proc/self/fd/{ends[0]}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        finally:
            for end in ends:
                os.close(end)


def opened_again(descriptor: int) -> int:
    """Open the file of a descriptor again, as a separate open file."""
    return noted(lambda: os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC))


def publish(descriptor: int, name: str) -> None:
    """Give a file its name.

    Raises:
        FileExistsError: The name is taken.
    """
    # With a directory descriptor, which an absolute path ignores, Python calls linkat(2), which follows the link.
    os.link(f"/proc/self/fd/{descriptor}", path_of(name), src_dir_fd=descriptor, follow_symlinks=True)


def opened(name: str, request: Request) -> int:
    """Return a descriptor of the queue's file.

    Raises:
        QueueNotFound: There is no such queue, or only the leftover file of a last-close queue.
        PermissionDenied: Mode or owner deny access, or the file has a second name.
        CorruptQueue: It is not a regular file.
    """
    descriptor = open_file(name, os.O_RDWR)
    try:
        found = os.fstat(descriptor)
        check_owner(found.st_uid, request, shareable=True)
        if not stat.S_ISREG(found.st_mode):
            raise CorruptQueue("a file of this name is not a queue: remove it, or choose another name")
        if found.st_nlink > 1:
            raise PermissionDenied("its file has a second name, which ipcq never creates: remove both")
        if not found.st_nlink:
            raise QueueNotFound
        if _abandoned(descriptor):
            remove(descriptor, name, unless_held=True)
            raise QueueNotFound
    except BaseException:
        closed(descriptor)
        raise
    return descriptor


def open_file(name: str, how: int) -> int:
    """Open the file of a queue; close the descriptor with `ipcq.backend.closed`."""
    # Non-blocking, because the path may be a FIFO.
    return noted(lambda: os.open(path_of(name), how | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))


class Header(NamedTuple):
    """The header of a queue's file, as the extension writes it."""

    magic: int = 0
    version: int = 0
    word_size: int = 0
    pid_namespace: int = 0
    segment_size: int = 0
    data_offset: int = 0
    capacity: int = 0
    limit: int = 0
    max_messages: int = 0
    max_message_size: int = 0
    flags: int = 0
    checksum: int = 0


def read_header(descriptor: int) -> Header:
    """Read the header of a queue's file, and check only its magic number; all zeros if it is not a queue."""
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    head = os.pread(descriptor, _HEADER.size, 0) if regular else b""
    header = Header(*_HEADER.unpack(head)) if len(head) == _HEADER.size else Header()
    return header if header.magic == _MAGIC else Header()


# Probing


def exists(name: str) -> bool:
    try:
        descriptor = open_file(name, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ELOOP, errno.ENXIO):
            return True  # the name is taken, even if not by a queue
        raise
    try:
        abandoned = _abandoned(descriptor)
    finally:
        closed(descriptor)
    if abandoned:
        with suppress(OSError, MessageQueueError):  # this user may not be allowed to remove it
            unlink(name)
    return not abandoned


def names() -> list[str]:
    return [name for file in os.listdir(DIRECTORY) if (name := _name_of(file)) and exists(name)]


def _name_of(file: str) -> str:
    """Return the name of the queue in a file; empty if it is not a queue."""
    if file.startswith(_PREFIX):
        return "/" + file.removeprefix(_PREFIX)
    if not file.startswith(_ABRIDGED):
        return ""
    with suppress(OSError):
        how = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = noted(lambda: os.open(f"{DIRECTORY}/{file}", how))
        try:
            name = os.fsdecode(os.pread(descriptor, _NAME_SIZE, NAME_AT).partition(b"\0")[0])
        finally:
            closed(descriptor)
        if path_of(name or "/") == f"{DIRECTORY}/{file}":
            return name
    return ""


def _abandoned(descriptor: int) -> bool:
    """Return whether it is the file of a last-close queue without handles."""
    return bool(read_header(descriptor).flags & LAST_CLOSE) and not _locked(descriptor, LOCKS_AT, _SLOTS)


# Locks. They belong to the open file, not to the process, and end with it.


def _locked(descriptor: int, start: int, length: int) -> bool:
    """Return whether another open file has locked any of these bytes."""
    return _locked_byte(descriptor, start, length) is not None


def _locked_byte(descriptor: int, start: int, length: int) -> int | None:
    """Return one of these bytes that another open file has locked; None if there is none."""
    asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind, _, at, *_ = struct.unpack("hhqqi", fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else at


def handles(descriptor: int) -> int:
    """Count the open files that hold a slot, including this one."""
    count, ranges = 1, [(LOCKS_AT, LOCKS_AT + _SLOTS)]
    while ranges:
        start, end = ranges.pop()
        # Length 0 would mean: up to the largest offset.
        at = _locked_byte(descriptor, start, end - start) if start < end else None
        if at is not None:
            count += 1
            ranges += (start, at), (at + 1, end)
    return count


def _lock(descriptor: int, kind: int, start: int, length: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi", kind, os.SEEK_SET, start, length, 0))


@contextmanager
def _removing(descriptor: int) -> Iterator[None]:
    since = monotonic()
    while True:
        try:
            _lock(descriptor, fcntl.F_WRLCK, _REMOVAL, 1)
            break
        except BlockingIOError:
            if monotonic() >= since + _PATIENCE:
                raise TimedOutError(
                    "another process has been removing it for a second: continue or end that process"
                ) from None
            pause(since, since + _PATIENCE, 0.01)
    try:
        yield
    finally:
        with suppress(OSError):  # at the latest, the lock ends with the descriptor
            _lock(descriptor, fcntl.F_UNLCK, _REMOVAL, 1)


def is_linked(descriptor: int, lifetime: Lifetime) -> bool:
    """Return whether the file is still linked, and no remover that missed our slot lock can unlink it."""
    if lifetime == "last-close":
        with _removing(descriptor):  # a remover checks the slots after it took this lock
            pass
    return os.fstat(descriptor).st_nlink > 0


# Removing


def unlink(name: str) -> None:
    """Unlink the queue, and notify its handles.

    Raises:
        QueueNotFound: There is no such queue.
        PermissionError: This user is not allowed to.
    """
    try:
        descriptor = open_file(name, os.O_RDWR)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        os.unlink(path_of(name))  # not a queue, but it occupies the name
        return
    try:
        abandoned = _abandoned(descriptor)
        if not remove(descriptor, name, unless_held=abandoned) or abandoned:
            raise QueueNotFound
    finally:
        closed(descriptor)


def remove(descriptor: int, name: str, *, unless_held: bool = False) -> bool:
    """Remove the name if it refers to this file, and return whether it did.

    Args:
        descriptor: The file's descriptor, open for writing.
        name: The name of the queue.
        unless_held: Do not remove the name while any handle is open.
    """
    path = path_of(name)
    with ExitStack() as bell, _removing(descriptor):
        if unless_held and _locked(descriptor, LOCKS_AT, _SLOTS):
            return False
        try:
            if os.stat(path, follow_symlinks=False).st_ino != os.fstat(descriptor).st_ino:
                return False
            # Ring before and after the removal. Wherever this process is killed, a consumer that was woken by the first
            # byte finds the name gone, or leaves the byte there while this lock is held (csrc/doorbell.c).
            rung = None if unless_held else _ring(descriptor, name, bell)
            with suppress(FileNotFoundError):
                os.unlink(bell_of(name))
            os.unlink(path)
        except FileNotFoundError:
            return False
        with suppress(OSError):  # the name is gone; other handles notice by themselves that their file has no name
            if read_header(descriptor).magic:
                os.pwrite(descriptor, b"\1", _UNLINKED)
                _ring_again(descriptor, name, rung, bell)
    return True


def _ring(descriptor: int, name: str, closing: ExitStack) -> int | None:
    """Ring the doorbell permanently, and return its descriptor; None if there is none, or this user may not ring it.

    Raises:
        OSError: The descriptor table is full.
    """
    try:
        inode = os.pread(descriptor, _DOORBELL.size, _DOORBELL_AT)  # fewer bytes if the file was truncated
        if inode == _NO_DOORBELL:
            return None
        bell = noted(lambda: os.open(bell_of(name), os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # pollers would not be woken
        return None
    closing.callback(closed, bell)
    found = os.fstat(bell)
    if not stat.S_ISFIFO(found.st_mode) or _DOORBELL.pack(found.st_ino) != inode:
        return None
    _sound(bell)
    return bell


def _ring_again(descriptor: int, name: str, rung: int | None, closing: ExitStack) -> None:
    """Ring again. Also ring and remove a doorbell that was created while the name was being removed."""
    if rung is not None:
        _sound(rung)
    inode = os.pread(descriptor, _DOORBELL.size, _DOORBELL_AT)
    if inode == _NO_DOORBELL:
        return
    with suppress(FileNotFoundError):
        if _DOORBELL.pack(os.stat(bell_of(name), follow_symlinks=False).st_ino) == inode:
            with suppress(OSError):
                _ring(descriptor, name, closing)
            os.unlink(bell_of(name))


def _sound(bell: int) -> None:
    with suppress(BlockingIOError):  # the FIFO is full, so it is rung already
        os.write(bell, b"\0")


def release_slots(descriptor: int) -> None:
    """Release the slot of this open file."""
    _lock(descriptor, fcntl.F_UNLCK, LOCKS_AT, _SLOTS)
