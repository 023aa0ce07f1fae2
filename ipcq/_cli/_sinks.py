"""Where `drain` writes messages: a new file, or standard output."""

import errno
import os
import select
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, Protocol

from ipcq._cli._message_format import DONE_MARK
from ipcq._cli._streams import stdout

#: How much disk space is reserved at a time, to save system calls.
RESERVED_BYTES: Final = 1 << 20


class Sink(Protocol):
    """A destination of lines."""

    def make_room(self) -> None:
        """Ensure that the next line can be written, before its message is taken."""

    def write(self, line: bytes) -> None:
        """Write one line. On return, it survives a kill of this process."""


class StdoutSink:
    """Standard output as a sink. Unbuffered: a kill would lose buffered lines."""

    def __init__(self) -> None:
        self._descriptor = stdout().fileno()

    def make_room(self) -> None:
        if _has_no_reader(self._descriptor):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def has_reader(self) -> bool:
        """Return whether another process reads stdout: it is a pipe or a socket, not a file or a terminal."""
        mode = os.fstat(self._descriptor).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

    @contextmanager
    def end_of_file(self) -> Iterator[Callable[[], bool]]:
        """Close stdout, so that the reader sees end of file; yield a function: is the reader known to be gone?"""
        path_descriptor = -1
        if not stat.S_ISSOCK(os.fstat(self._descriptor).st_mode):  # a socket cannot be reopened
            with suppress(AttributeError, OSError):  # only Linux has O_PATH, and /proc may not be mounted
                # O_PATH is neither a read end nor a write end, so the reader still sees end of file.
                path_descriptor = os.open(f"/proc/self/fd/{self._descriptor}", os.O_PATH | os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._descriptor)
        os.close(null)
        try:
            yield partial(_has_lost_its_reader, path_descriptor)
        finally:
            if path_descriptor >= 0:
                os.close(path_descriptor)


def _has_lost_its_reader(path_descriptor: int) -> bool:
    try:
        writing = os.open(f"/proc/self/fd/{path_descriptor}", os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        return error.errno == errno.ENXIO  # fifo(7): no process has it open for reading
    try:
        return _has_no_reader(writing)
    finally:
        os.close(writing)


def _has_no_reader(descriptor: int) -> bool:
    if sys.platform == "win32":
        return False
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


class FileSink:
    """A new file as a sink.

    Args:
        path: Path of the new file. An existing file is not touched.
        max_line_bytes: Length in bytes of the longest possible line.
        durable: Sync every line to disk, for a queue that survives a reboot.
        reserve_bytes: Bytes to reserve at a time, at least `max_line_bytes`. None reserves nothing.
    """

    def __init__(
        self, path: str, max_line_bytes: int, *, durable: bool, reserve_bytes: int | None = RESERVED_BYTES
    ) -> None:
        self.path = path
        self._max_line_bytes = max_line_bytes
        self._durable = durable
        self._reserve_bytes = reserve_bytes
        self._header_end = self._line_begin = self._end = self._reserved_end = self._stale_end = 0
        self._file = open(path, "xb", buffering=0, opener=_open_private)  # noqa: SIM115  # closed by `close`

    def make_room(self) -> None:
        if self._reserve_bytes is None or not hasattr(os, "posix_fallocate"):
            return
        if self._end + self._max_line_bytes > self._reserved_end:
            room = max(self._max_line_bytes, self._reserve_bytes)
            try:
                os.posix_fallocate(self._file.fileno(), self._end, room)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # not supported by this file system
                    raise
            self._reserved_end = self._end + room

    def write(self, line: bytes) -> None:
        # Overwrite the stale lines that `clear` left behind this one.
        rest = memoryview(line.ljust(self._stale_end - self._end, b"\0"))
        self._file.seek(self._end)
        while rest:
            rest = rest[self._file.write(rest) :]
        if self._durable:
            os.fsync(self._file.fileno())
        self._line_begin, self._end = self._end, self._end + len(line)
        self._header_end = self._header_end or self._end

    @property
    def last(self) -> int:
        """Offset of the last line."""
        return self._line_begin

    def mark(self, offset: int) -> None:
        """Mark the message whose line begins at `offset` as being in a queue again."""
        self._file.seek(offset)
        self._file.write(DONE_MARK)

    def clear(self) -> None:
        """Make the next line overwrite all lines but the header. They are marked, or there is only one, marked here.

        Keep the reserved blocks: freeing and reserving them takes milliseconds on some file systems.
        """
        if self._end > self._header_end:
            self.mark(self._header_end)
            self._stale_end = max(self._stale_end, self._end)
            self._line_begin = self._end = self._header_end

    def take_back(self) -> None:
        """Remove the last line."""
        self._end = self._reserved_end = self._stale_end = self._line_begin
        self._file.truncate(self._end)

    def close(self, *, keep: bool) -> None:
        """Close the file. Sync it to disk if `keep`, else remove it."""
        with self._file:
            if keep:
                self._file.truncate(self._end)
                os.fsync(self._file.fileno())
        if not keep:
            with suppress(FileNotFoundError):  # already removed by another process
                os.unlink(self.path)
        elif sys.platform != "win32":
            directory = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # messages are private
