"""Messages in a file: what `drain` writes and `load` reads.

A file is lines of JSON. The first one says what the queue was, each other one is a message with its priority and its
bytes, as they were on the wire, in base64; so nothing depends on what the bytes mean. Files can be joined by ``cat``.

A message that was taken is in nobody's keeping until it is written, so everything that can fail is done before: the
file is made, and blocks of the disk are reserved for the largest message there may be, so that a full disk is noticed
while the message is still in the queue. What is reserved and not used reads as NULs, which are cut off at the end; a
process that was killed leaves them, and whoever reads skips them.
"""

import errno
import json
import os
import select
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import ipcq
from ipcq._cli._exits import Failure
from ipcq._cli._items import base64, records
from ipcq._cli._streams import stdout

VERSION = 1

#: The limits that a queue is created with again.
LIMITS = ("max_messages", "max_message_size", "buffer_size", "priorities")

#: Bytes that are reserved at a time, to spare system calls.
STEP = 1 << 20


def header(queue: ipcq.Queue[Any]) -> bytes:
    """Return the line that says what the queue was."""
    facts = {"name": queue.name, "backend": queue.backend, "mode": queue.mode}
    limits = {limit: getattr(queue, limit) for limit in LIMITS}
    return _line({"ipcq": "messages", "version": VERSION, "queue": {**facts, **limits}})


def record(message: ipcq.Message[bytes]) -> bytes:
    """Return the line that stands for a message."""
    return _line({"priority": message.priority, "base64": base64(message.item)})


def _line(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


class Sink(Protocol):
    """Where lines go."""

    def make_room(self) -> None:
        """Find out whether the next line can be written, before anything is taken."""

    def write(self, line: bytes) -> None:
        """Write one line, and return when it outlives this process."""


class Stream:
    """Standard output as a sink, without a buffer: what is in one would be lost or held up at the end."""

    def __init__(self) -> None:
        self._descriptor = stdout().fileno()

    def make_room(self) -> None:
        if sys.platform != "win32":
            poll = select.poll()
            poll.register(self._descriptor, 0)
            if any(event & select.POLLERR for _, event in poll.poll(0)):
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]


class File:
    """A new file as a sink.

    Args:
        path: Where to make it; what is there already is not touched.
        largest: Bytes of the longest line there may be.
        durable: What is written outlives the machine's failure, as the queue does.
    """

    def __init__(self, path: str, largest: int, *, durable: bool) -> None:
        self.path = path
        self._largest = largest
        self._durable = durable
        self._begin = self._end = self._reserved = 0
        self._file = open(path, "xb", buffering=0, opener=_private)  # noqa: SIM115 - closed by `close`

    def make_room(self) -> None:
        if self._end + self._largest > self._reserved and hasattr(os, "posix_fallocate"):
            room = max(self._largest, STEP)
            try:
                os.posix_fallocate(self._file.fileno(), self._end, room)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # not every file system can
                    raise
            self._reserved = self._end + room

    def write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[self._file.write(rest) :]
        if self._durable:
            os.fsync(self._file.fileno())
        self._begin, self._end = self._end, self._end + len(line)

    def take_back(self) -> None:
        """Take the last line out again."""
        self._end = self._reserved = self._begin
        self._file.truncate(self._end)
        self._file.seek(self._end)

    def close(self, *, keep: bool) -> None:
        """Make it lasting, or remove it."""
        with self._file:
            self._file.truncate(self._end)
            os.fsync(self._file.fileno())
        if not keep:
            os.unlink(self.path)
        elif sys.platform != "win32":
            directory = os.open(os.path.dirname(self.path) or ".", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # messages are nobody else's business


class Loaded(NamedTuple):
    """One message of a file."""

    data: bytes
    priority: int


class Dump:
    """A file that is read, or several that were joined."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.line = 0
        self.bytes = 0
        self._lines = records(read, b"\n", None)
        self.queue = self._header(self._next())
        """Mode and limits that the queue had."""

    def __iter__(self) -> Iterator[Loaded]:
        while line := self._next():
            if b'"ipcq"' in line:
                self._header(line)
            else:
                yield self._message(line)

    def _next(self) -> bytes:
        for line in self._lines:
            self.line += 1
            self.bytes += len(line) + 1
            # What was reserved by a drain that was killed.
            if line := line.strip(b"\0"):
                return line
        return b""

    def _header(self, line: bytes) -> dict[str, Any]:
        facts = self._facts(line)
        if facts.get("ipcq") != "messages" or not isinstance(facts.get("queue"), dict):
            raise self._wrong("does not begin what `ipcq drain` writes: `ipcq put --json` takes lines of JSON")
        if facts.get("version") != VERSION:
            raise self._wrong(f"says version {facts.get('version')!r}, this is for version {VERSION}: update ipcq")
        return {limit: facts["queue"].get(limit) for limit in ("mode", *LIMITS)}

    def _message(self, line: bytes) -> Loaded:
        facts = self._facts(line)
        try:
            return Loaded(b64decode(facts["base64"], validate=True), facts["priority"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._wrong("is no message of `ipcq drain`") from error

    def _facts(self, line: bytes) -> dict[str, Any]:
        try:
            facts = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._wrong("is damaged or cut off") from error
        return facts if isinstance(facts, dict) else {}

    def _wrong(self, what: str) -> Failure:
        return Failure(f"line {max(self.line, 1)} {what}")
