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
from functools import partial
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

import ipcq
from ipcq._cli._exits import Failure
from ipcq._cli._items import base64, from_json, records
from ipcq._cli._streams import stdout

VERSION = 1

#: Bytes that are read at a time.
CHUNK: Final = 65536

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


#: How files of other formats begin, what they are, and the way from there.
_FORMATS: Final = (
    (b"\x1f\x8b", "a gzip file", "gzip -dc FILE | ipcq load NAME -"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "zstd -dc FILE | ipcq load NAME -"),
    (b"\xfd7zXZ\0", "an xz file", "xz -dc FILE | ipcq load NAME -"),
    (b"BZh", "a bzip2 file", "bzip2 -dc FILE | ipcq load NAME -"),
    (b"PK\3\4", "a zip archive", "unzip -p FILE | ipcq load NAME -"),
    (b"SQLite format 3\0", "a database of SQLite", "write its rows as lines of JSON first"),
    *((b"\x80" + bytes((protocol,)), "a pickle", "put its objects from a program") for protocol in range(2, 6)),
    (b"\xef\xbb\xbf", "text with a byte order mark", "tail -c +4 FILE | ipcq load NAME -"),
    (b"\xff\xfe", "UTF-16", "iconv -f UTF-16 -t UTF-8 FILE | ipcq load NAME -"),
    (b"\xfe\xff", "UTF-16", "iconv -f UTF-16 -t UTF-8 FILE | ipcq load NAME -"),
)

#: How far into a line that is no JSON a text can be told from other bytes.
_GLANCE: Final = 4096


class Dump:
    """A file that is read, or several that were joined: of what `drain` wrote, or of lines of JSON, an item each."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.line = 0
        self.bytes = 0
        first = read(CHUNK)
        for begin, what, way in _FORMATS:
            if first.startswith(begin):  # before a line is looked for, which may be all of a large file
                raise Failure(
                    f"this is {what}, and `ipcq load` reads what `ipcq drain` writes, or lines of JSON: {way}"
                )
        chunks = chain((first,), iter(partial(read, CHUNK), b""))
        self._lines = records(lambda _: next(chunks, b""), b"\n", None)
        self._first = self._next()
        self.json = self._is_json(self._first)
        """Whether it has items in lines of JSON, and not messages."""
        self.queue = {} if self.json else self._header(self._first)
        """Mode and limits that the queue had, where that is known."""

    def items(self) -> Iterator[Any]:
        """Return the items of lines of JSON."""
        line = self._first
        while line:
            if line.strip():
                yield self._item(line)
            line = self._next()

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

    def _is_json(self, line: bytes) -> bool:
        try:
            facts = from_json(line)
        except (ValueError, RecursionError) as error:
            if not line:
                raise self._wrong("is missing: the file is empty") from error
            if line.lstrip()[:1] in (b"{", b"[") and not line.startswith(b'{"ipcq"'):
                raise self._wrong(
                    "is not JSON by itself, and an item has one line: jq -c . FILE | ipcq load NAME -, or jq -c .[] "
                    "for the elements of a list"
                ) from error
            if line.startswith(b'{"ipcq"'):
                raise self._wrong("is damaged or cut off") from error
            raise self._wrong(
                f"is {_kind(line)}, and `ipcq load` reads what `ipcq drain` writes, or lines of JSON: `ipcq put NAME "
                "-` puts lines of text, and with --raw a whole file"
            ) from error
        return not isinstance(facts, dict) or not ("ipcq" in facts or facts.keys() == {"priority", "base64"})

    def _item(self, line: bytes) -> Any:
        try:
            item = from_json(line)
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"is not JSON, as those before it are: {error}") from error
        if isinstance(item, dict) and item.get("ipcq") == "messages":
            raise self._wrong("begins what `ipcq drain` writes, behind lines of JSON: load the two by themselves")
        return item

    def _header(self, line: bytes) -> dict[str, Any]:
        facts = self._facts(line)
        if facts.get("ipcq") != "messages" or not isinstance(facts.get("queue"), dict):
            raise self._wrong("does not begin what `ipcq drain` writes: its first line is missing, or was changed")
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


def _kind(line: bytes) -> str:
    glance = line[:_GLANCE]
    try:
        text = glance.decode()
    except UnicodeDecodeError as error:
        text = glance[: error.start].decode()
        if error.start < len(glance) - 3:  # which a character that is cut in two would not leave
            return "no text"
    return "no text" if "\0" in text else "XML or HTML" if text.lstrip().startswith("<") else "other text"
