"""The files that hold queues: their names, who may use them, and how they come and go.

A queue's file appears whole: it is made without a name, filled, and then linked to its name, which fails if the name is
taken. What is opened is judged by its descriptor, before a byte of it is read.

A queue that is to go with its last handle is removed by it. Where that one was killed, the file stays, but no slot's
byte is locked any more (csrc/layout.h): for everybody who looks, such a file is not there, and who sees it removes it.
All who remove a name lock one more byte of the file, and then look whether the name still leads there, so that nobody
removes a successor.
"""

import errno
import fcntl
import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
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
#: Bytes of a file that are not messages; with pages of 64 KiB it is more.
MOST_OVERHEAD: Final = 64 << 10

#: Flags of the header.
ORDERED: Final = 1
LAST_CLOSE: Final = 2
BYTES: Final = 4

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
#: Short enough to end between two ticks of a fast timer, after each of which the call begins anew.
_CHUNK: Final = 1 << 18
#: Mappings that one handle takes, and where the kernel says how many a process may have.
_MAPPINGS: Final = 4
_MAPPINGS_LIMIT: Final = Path("/proc/sys/vm/max_map_count")
#: Seconds to wait for who removes a name, which takes microseconds unless it is stopped.
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


_full: Final = partial(
    NoSpace, f"{DIRECTORY} or the memory is full: remove queues that nobody needs (ipcq ls), or ask for less"
)
_denied: Final = partial(PermissionDenied, f"its mode does not let this user: ask its owner, see ls -l {DIRECTORY}")

#: What the system's refusals mean here (`ipcq.backend.translated`).
ERRORS: Final[dict[int | type[BaseException], Callable[[], MessageQueueError]]] = {
    errno.ENOENT: QueueNotFound,
    errno.EEXIST: QueueExists,
    errno.EACCES: _denied,
    errno.EPERM: _denied,
    errno.ENOMEM: _no_memory,
    errno.ENOSPC: _full,
    errno.EDQUOT: _full,
    errno.ELOOP: partial(PermissionDenied, "its file is a symbolic link, which ipcq does not make: remove it"),
    MemoryError: partial(NoSpace, "no memory for it: free some and try again"),
}


def path_of(name: str) -> str:
    return _path(name, "shm")


def bell_of(name: str) -> str:
    """Return the path of the queue's doorbell (csrc/doorbell.h)."""
    return _path(name, "bell")


def _path(name: str, kind: str) -> str:
    file = f"ipcq-{kind}.{name[1:]}"
    if len(os.fsencode(file)) > 255:
        file = f"ipcq-{kind}-{hashlib.sha256(os.fsencode(name)).hexdigest()}"
    return f"{DIRECTORY}/{file}"


# Creating and opening


def nameless(size: int, mode: int) -> int:
    """Make a file of `size` zeros that has no name yet, and return its descriptor.

    Raises:
        NoSpace: There is not that much memory; nothing of it is taken then.
        LimitExceeded: This process may not make so large a file.
    """
    check_file_size(size)
    system = os.statvfs(DIRECTORY)
    free = system.f_bavail * system.f_frsize
    if system.f_blocks and size > free:
        raise NoSpace(
            f"it takes {size} bytes, {DIRECTORY} has {free} free: remove queues that nobody needs (ipcq ls), ask for "
            f"less, or sudo mount -o remount,size={size + system.f_blocks * system.f_frsize} {DIRECTORY}"
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
    """Return a FIFO for reading and writing that has no name, which is what a pipe is when it is opened again."""
    with no_fork:
        ends = os.pipe()
        try:
            return noted(lambda: os.open(f"/proc/self/fd/{ends[0]}", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        finally:
            for end in ends:
                os.close(end)


def opened_again(descriptor: int) -> int:
    """Return a descriptor of another open file for the same file."""
    return noted(lambda: os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC))


def publish(descriptor: int, name: str) -> None:
    """Give a file its name.

    Raises:
        FileExistsError: The name is taken.
    """
    # With a directory descriptor, which the absolute path makes meaningless, Python calls linkat and follows the link.
    os.link(f"/proc/self/fd/{descriptor}", path_of(name), src_dir_fd=descriptor, follow_symlinks=True)


def opened(name: str, request: Request) -> int:
    """Return a descriptor of the queue's file.

    Raises:
        QueueNotFound: There is none, or nobody holds it who could.
        PermissionDenied: It is not this user's to trust.
        CorruptQueue: It is no queue.
    """
    descriptor = open_file(name, os.O_RDWR)
    try:
        found = os.fstat(descriptor)
        check_owner(found.st_uid, request)
        if not stat.S_ISREG(found.st_mode):
            raise CorruptQueue("a file of this name is no queue: remove it, or choose another name")
        if found.st_nlink > 1:
            raise PermissionDenied("its file has another name beside this one, which ipcq does not make: remove both")
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
    """Open the file of a queue; the descriptor is for `closed` (`ipcq.backend`)."""
    # Without waiting, because what is there may be a FIFO of somebody's.
    return noted(lambda: os.open(path_of(name), how | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))


class Header(NamedTuple):
    """What a queue was created with, as the extension wrote it."""

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
    """Read the header of a queue's file, unchecked but for what makes it a queue's; zeros where it is none."""
    regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    head = os.pread(descriptor, _HEADER.size, 0) if regular else b""
    header = Header(*_HEADER.unpack(head)) if len(head) == _HEADER.size else Header()
    return header if header.magic == _MAGIC else Header()


# Looking


def exists(name: str) -> bool:
    try:
        descriptor = open_file(name, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in (errno.EACCES, errno.ELOOP, errno.ENXIO):
            return True  # something is there, whatever it is
        raise
    try:
        abandoned = _abandoned(descriptor)
    finally:
        closed(descriptor)
    if abandoned:
        with suppress(OSError, MessageQueueError):  # who may not remove it leaves it
            unlink(name)
    return not abandoned


def names() -> list[str]:
    return [name for file in os.listdir(DIRECTORY) if (name := _name_of(file)) and exists(name)]


def _name_of(file: str) -> str:
    """Return the name of the queue in a file; empty where there is none."""
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
    """Tell whether it is the file of a queue that goes with its last handle, and that one has gone."""
    return bool(read_header(descriptor).flags & LAST_CLOSE) and not _locked(descriptor, LOCKS_AT, _SLOTS)


# Locks. They belong to the open file, not to the process, and go with it.


def _locked(descriptor: int, start: int, length: int) -> bool:
    """Tell whether another open file has locked any of these bytes."""
    return _locked_byte(descriptor, start, length) is not None


def _locked_byte(descriptor: int, start: int, length: int) -> int | None:
    """Return which of these bytes another open file has locked, any one of several; None where there is none."""
    asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind, _, at, *_ = struct.unpack("hhqqi", fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else at


def handles(descriptor: int) -> int:
    """Count the open files that hold a slot, this one included."""
    count, ranges = 1, [(LOCKS_AT, LOCKS_AT + _SLOTS)]
    while ranges:
        start, end = ranges.pop()
        # Length 0 would mean: to the end of all files.
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
                raise TimedOutError("another process has been removing it for a second: continue or end that") from None
            pause(since, since + _PATIENCE, 0.01)
    try:
        yield
    finally:
        with suppress(OSError):  # the lock goes with the descriptor at the latest
            _lock(descriptor, fcntl.F_UNLCK, _REMOVAL, 1)


def is_linked(descriptor: int, lifetime: Lifetime) -> bool:
    """Tell whether the file has its name and nobody who does not know of this handle is about to remove it."""
    if lifetime == "last-close":
        with _removing(descriptor):  # who is removing it looked for slots after locking this
            pass
    return os.fstat(descriptor).st_nlink > 0


# Removing


def unlink(name: str) -> None:
    """Remove the queue and let its handles know.

    Raises:
        QueueNotFound: There is none.
        PermissionError: This user may not.
    """
    try:
        descriptor = open_file(name, os.O_RDWR)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        os.unlink(path_of(name))  # whatever it is, it stands in the way
        return
    try:
        abandoned = _abandoned(descriptor)
        if not remove(descriptor, name, unless_held=abandoned) or abandoned:
            raise QueueNotFound
    finally:
        closed(descriptor)


def remove(descriptor: int, name: str, *, unless_held: bool = False) -> bool:
    """Remove the name if it leads to this file, and return whether it did.

    Args:
        descriptor: Of the file, open for writing.
        name: Of the queue.
        unless_held: Leave it where any handle is open.
    """
    path = path_of(name)
    with ExitStack() as bell, _removing(descriptor):
        if unless_held and _locked(descriptor, LOCKS_AT, _SLOTS):
            return False
        try:
            if os.stat(path, follow_symlinks=False).st_ino != os.fstat(descriptor).st_ino:
                return False
            # Pollers are woken before and after the removal. Wherever this process is killed, a consumer that comes for
            # the first byte finds the name gone, or leaves the byte there while this lock is held (csrc/doorbell.c).
            rung = None if unless_held else _ring(descriptor, name, bell)
            with suppress(FileNotFoundError):
                os.unlink(bell_of(name))
            os.unlink(path)
        except FileNotFoundError:
            return False
        with suppress(OSError):  # the name is gone; handles that are not told see that their file has no name
            if read_header(descriptor).magic:
                os.pwrite(descriptor, b"\1", _UNLINKED)
                _ring_again(descriptor, name, rung, bell)
    return True


def _ring(descriptor: int, name: str, closing: ExitStack) -> int | None:
    """Ring the doorbell for good, and return its descriptor; None if there is none that this user may ring.

    Raises:
        OSError: There is no free descriptor for it.
    """
    try:
        inode = os.pread(descriptor, _DOORBELL.size, _DOORBELL_AT)  # fewer bytes where the file was cut off
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
    """Ring again. Ring and remove a doorbell that was created between the removals of the first and of the name too."""
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
    with suppress(BlockingIOError):  # it is full, so it is rung already
        os.write(bell, b"\0")


def release_slots(descriptor: int) -> None:
    """Give up the slot that was taken by this open file."""
    _lock(descriptor, fcntl.F_UNLCK, LOCKS_AT, _SLOTS)
