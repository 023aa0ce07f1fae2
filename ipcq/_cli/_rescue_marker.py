"""Marking messages in the rescue file of a `drain` into a pipe, once they are in a queue."""

import os
import stat
from contextlib import ExitStack, suppress
from functools import partial

from ipcq._cli._message_format import CHUNK_BYTES, DONE_MARK


class RescueMarker:
    """The rescue file of a drain into a pipe, opened by the `load` that reads the pipe.

    The path comes from untrusted input. So only a regular file is opened, and only lines are marked that equal the
    loaded input byte for byte. The directory stays open, so the file is removed from the same directory even if the
    path leads elsewhere by then.

    Args:
        path: Path of the file.
        header: Its first line.
        start: Offset of that line in the loaded input, in bytes.

    Raises:
        OSError: The file does not exist, or this user may not write to it.
    """

    def __init__(self, path: str, header: bytes, start: int) -> None:
        self.path = path
        self._start = start
        self._end = start + len(header) + 1
        if not os.path.isabs(path):  # relative to the drain's directory, which is unknown here
            raise FileNotFoundError(path)
        with ExitStack() as stack:
            # Windows has no directory descriptors.
            self._directory = _open_directory(path, stack) if os.open in os.supports_dir_fd else None
            self._name = path if self._directory is None else os.path.basename(path)
            # Before the open, because opening a device can have side effects.
            if not stat.S_ISREG(self._status().st_mode):
                raise FileNotFoundError(path)
            flags = os.O_RDWR
            for flag in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # no system has all of them
                flags |= getattr(os, flag, 0)
            self._file = stack.enter_context(
                open(os.open(self._name, flags, dir_fd=self._directory), "r+b", buffering=0)
            )
            # The random token in the header proves that it is the drain's file.
            if not self._has(header + b"\n", 0):
                raise FileNotFoundError(path)
            self._closing = stack.pop_all()

    def skip(self, line: bytes, begin: int) -> bool:
        """Skip this line, which begins at `begin` in the loaded input; return False if the file does not have it."""
        if self._has(line, begin - self._start):
            self._end = begin + len(line) + 1
            return True
        return False

    def mark(self, begin: int) -> None:
        """Mark the message as being in the queue. Its line begins at `begin` in the loaded input and was skipped."""
        self._file.seek(begin - self._start)
        self._file.write(DONE_MARK)

    def close(self, *, done: bool) -> None:
        """Close the file. Remove it if all of its messages are in the queue."""
        with self._closing:
            self._file.seek(self._end - self._start)
            # A drain killed between its writes to file and pipe leaves a line that did not arrive.
            done = done and not any(chunk.strip(b"\0") for chunk in iter(partial(self._file.read, CHUNK_BYTES), b""))
            self._file.close()  # Windows cannot remove an open file
            if done:
                with suppress(FileNotFoundError):  # already removed by another process
                    os.unlink(self._name, dir_fd=self._directory)

    def _status(self) -> os.stat_result:
        return os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)

    def _has(self, line: bytes, offset: int) -> bool:
        self._file.seek(offset)
        rest = memoryview(line)
        while rest:
            data = self._file.read(min(len(rest), CHUNK_BYTES))
            if not data or data != rest[: len(data)]:
                return False
            rest = rest[len(data) :]
        return True


def _open_directory(path: str, stack: ExitStack) -> int:
    flags = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
    directory = os.open(os.path.dirname(path), flags)
    stack.callback(os.close, directory)
    return directory
