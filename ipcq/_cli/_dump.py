"""Message files: written by `drain`, read by `load`.

A file is JSON Lines. The first line is a header that describes the queue. Each other line is a message: its priority,
and its wire bytes in base64, so the format does not depend on a serializer. Files can be concatenated.

Between the get and the write, a message exists only in memory. Everything that can fail therefore happens before the
get: the file is created, and disk blocks are reserved for the largest possible message. So a full disk is detected
while the message is still in the queue. Reserved, unused blocks read as NULs. `close` truncates them; a killed process
leaves them, and the reader skips them.

A message that is in a queue again is marked: its line begins with ``#``. The mark is a single byte, so a kill cannot
tear it. The reader skips marked lines.

Messages for a pipe are written to a file first. The header in the pipe names the file. `load` marks each message in the
file once it is in the queue, and removes the file once all are.
"""

import errno
import json
import os
import secrets
import select
import stat
import sys
from base64 import b64decode
from binascii import b2a_base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

import ipcq
from ipcq._cli._exits import Failure
from ipcq._cli._items import from_json, records
from ipcq._cli._streams import stdout

VERSION = 1

#: Bytes per read.
CHUNK: Final = 65536

#: Limits with which the queue can be recreated.
LIMITS = ("max_messages", "max_message_size", "buffer_size", "priorities")

#: Bytes to reserve at a time, to save system calls.
STEP = 1 << 20


#: Marks the line of a message that is in a queue again.
DONE: Final = b"#"


def header(queue: ipcq.Queue[Any], kept: str | None = None) -> bytes:
    """Return the first line of a file: the queue, its number of messages, and the path of the rescue file if any."""
    facts = {"name": queue.name, "backend": queue.backend, **limits_of(queue)}
    line = {"ipcq": "messages", "version": VERSION, "queue": facts, "messages": queue.qsize()}
    if kept is not None:
        line["kept"] = {"path": kept, "token": secrets.token_hex(16)}
    return _line(line)


def limits_of(queue: ipcq.Queue[Any]) -> dict[str, Any]:
    """Return the mode and the limits with which the queue can be recreated."""
    return {limit: getattr(queue, limit) for limit in ("mode", *LIMITS)}


def record(message: ipcq.Message[bytes]) -> bytes:
    """Return the line of a message."""
    # Faster than json. It shortens the window in which a message is taken but not written.
    return b'{"priority": %d, "base64": "%b"}\n' % (message.priority, b2a_base64(message.item, newline=False))


def _line(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


class Sink(Protocol):
    """A destination of lines."""

    def make_room(self) -> None:
        """Ensure that the next line can be written, before its message is taken."""

    def write(self, line: bytes) -> None:
        """Write one line. On return, it survives a kill of this process."""


class Stream:
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
    def ended(self) -> Iterator[Callable[[], bool]]:
        """Close stdout, so that the reader sees end of file; yield a function: is the reader known to be gone?"""
        place = -1
        if not stat.S_ISSOCK(os.fstat(self._descriptor).st_mode):  # a socket cannot be reopened
            with suppress(AttributeError, OSError):  # only Linux has O_PATH, and /proc may not be mounted
                # O_PATH is neither a read end nor a write end, so the reader still sees end of file.
                place = os.open(f"/proc/self/fd/{self._descriptor}", os.O_PATH | os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._descriptor)
        os.close(null)
        try:
            yield partial(_is_left, place)
        finally:
            if place >= 0:
                os.close(place)


def _is_left(place: int) -> bool:
    try:
        writing = os.open(f"/proc/self/fd/{place}", os.O_WRONLY | os.O_NONBLOCK)
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


class File:
    """A new file as a sink.

    Args:
        path: Path of the new file. An existing file is not touched.
        largest: Length in bytes of the longest possible line.
        durable: Sync every line to disk, for a queue that survives a reboot.
        step: Bytes to reserve at a time, at least `largest`. None reserves nothing.
    """

    def __init__(self, path: str, largest: int, *, durable: bool, step: int | None = STEP) -> None:
        self.path = path
        self._largest = largest
        self._durable = durable
        self._step = step
        self._first = self._begin = self._end = self._reserved = self._stale = 0
        self._file = open(path, "xb", buffering=0, opener=_private)  # noqa: SIM115 - closed by `close`

    def make_room(self) -> None:
        if self._step is None or not hasattr(os, "posix_fallocate"):
            return
        if self._end + self._largest > self._reserved:
            room = max(self._largest, self._step)
            try:
                os.posix_fallocate(self._file.fileno(), self._end, room)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # not supported by this file system
                    raise
            self._reserved = self._end + room

    def write(self, line: bytes) -> None:
        # Overwrite the stale lines that `clear` left behind this one.
        rest = memoryview(line.ljust(self._stale - self._end, b"\0"))
        self._file.seek(self._end)
        while rest:
            rest = rest[self._file.write(rest) :]
        if self._durable:
            os.fsync(self._file.fileno())
        self._begin, self._end = self._end, self._end + len(line)
        self._first = self._first or self._end

    @property
    def last(self) -> int:
        """Offset of the last line."""
        return self._begin

    def mark(self, offset: int) -> None:
        """Mark the message whose line begins at `offset` as being in a queue again."""
        self._file.seek(offset)
        self._file.write(DONE)

    def clear(self) -> None:
        """Make the next line overwrite all lines but the header. They are marked, or there is only one, marked here.

        Keep the reserved blocks: freeing and reserving them takes milliseconds on some file systems.
        """
        if self._end > self._first:
            self.mark(self._first)
            self._stale = max(self._stale, self._end)
            self._begin = self._end = self._first

    def take_back(self) -> None:
        """Remove the last line."""
        self._end = self._reserved = self._stale = self._begin
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


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # messages are private


class Loaded(NamedTuple):
    """One message from a file."""

    data: bytes
    priority: int


#: Other formats: first bytes, name, and how to convert.
_FORMATS: Final = (
    (b"\x1f\x8b", "a gzip file", "gzip -dc FILE | ipcq load NAME -"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "zstd -dc FILE | ipcq load NAME -"),
    (b"\xfd7zXZ\0", "an xz file", "xz -dc FILE | ipcq load NAME -"),
    (b"BZh", "a bzip2 file", "bzip2 -dc FILE | ipcq load NAME -"),
    (b"PK\3\4", "a zip archive", "unzip -p FILE | ipcq load NAME -"),
    (b"SQLite format 3\0", "an SQLite database", "export its rows as lines of JSON first"),
    *((b"\x80" + bytes((protocol,)), "a pickle", "put its objects from a program") for protocol in range(2, 6)),
    (b"\xef\xbb\xbf", "text with a byte order mark", "tail -c +4 FILE | ipcq load NAME -"),
    (b"\xff\xfe", "UTF-16", "iconv -f UTF-16 -t UTF-8 FILE | ipcq load NAME -"),
    (b"\xfe\xff", "UTF-16", "iconv -f UTF-16 -t UTF-8 FILE | ipcq load NAME -"),
)

#: Bytes of a line to inspect for telling text from binary data.
_GLANCE: Final = 4096


class Kept:
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
            self._directory = _held_directory(path, stack) if os.open in os.supports_dir_fd else None
            self._name = path if self._directory is None else os.path.basename(path)
            # Before the open, because opening a device can have side effects.
            if not stat.S_ISREG(self._status().st_mode):
                raise FileNotFoundError(path)
            how = os.O_RDWR
            for flag in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # no system has all of them
                how |= getattr(os, flag, 0)
            self._file = stack.enter_context(open(os.open(self._name, how, dir_fd=self._directory), "r+b", buffering=0))
            # The random token in the header proves that it is the drain's file.
            if not self._has(header + b"\n", 0):
                raise FileNotFoundError(path)
            self._closing = stack.pop_all()

    def passes(self, line: bytes, begin: int) -> bool:
        """Return whether the file has this line, which begins at `begin` in the loaded input; skip it if so."""
        if self._has(line, begin - self._start):
            self._end = begin + len(line) + 1
            return True
        return False

    def mark(self, begin: int) -> None:
        """Mark the message as being in the queue. Its line begins at `begin` in the loaded input and was skipped."""
        self._file.seek(begin - self._start)
        self._file.write(DONE)

    def close(self, *, done: bool) -> None:
        """Close the file. Remove it if all of its messages are in the queue."""
        with self._closing:
            self._file.seek(self._end - self._start)
            # A drain killed between its writes to file and pipe leaves a line that did not arrive.
            done = done and not any(chunk.strip(b"\0") for chunk in iter(partial(self._file.read, CHUNK), b""))
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
            data = self._file.read(min(len(rest), CHUNK))
            if not data or data != rest[: len(data)]:
                return False
            rest = rest[len(data) :]
        return True


def _held_directory(path: str, stack: ExitStack) -> int:
    how = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
    directory = os.open(os.path.dirname(path), how)
    stack.callback(os.close, directory)
    return directory


class Dump:
    """Input of `load`: one or more concatenated files of `drain`, or JSON Lines with one item per line."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.line = 0
        self.bytes = 0
        self.kept: list[Kept] = []
        """Rescue files that match the input so far."""
        self.messages: int | None = None
        """Number of messages that the queue had, if known."""
        self._begin = 0
        self._raw = b""
        self._current: Kept | None = None
        first = read(CHUNK)
        for begin, what, way in _FORMATS:
            if first.startswith(begin):  # before splitting lines: a large binary file may be a single line
                raise Failure(f"this is {what}, but `ipcq load` reads output of `ipcq drain` or lines of JSON: {way}")
        chunks = chain((first,), iter(partial(read, CHUNK), b""))
        self._lines = records(lambda _: next(chunks, b""), b"\n", None)
        self._first = self._next()
        self.json = self._is_json(self._first)
        """Whether the input is JSON Lines with items, not messages."""
        self.queue = {} if self.json else self._header(self._first)
        """Mode and limits that the queue had, if known."""

    def items(self) -> Iterator[Any]:
        """Yield the items of JSON Lines."""
        line = self._first
        while line:
            if line.strip():
                yield self._item(line)
            line = self._next()

    def __iter__(self) -> Iterator[Loaded]:
        while line := self._next():
            if b'"ipcq"' in line:
                self._header(line)
            elif line.startswith(DONE):
                self._pass()
            else:
                yield self._message(line)

    @property
    def is_kept(self) -> bool:
        """Whether the messages being read are also in a rescue file."""
        return self._current is not None

    def mark(self) -> None:
        """Mark the last message in the rescue file, if any, as being in the queue."""
        kept = self._pass()
        if kept is not None:
            kept.mark(self._begin)

    def _pass(self) -> Kept | None:
        """Skip the last line in the rescue file, too. Return that file if it has the line."""
        current = self._current
        if current is not None and not current.passes(self._raw, self.bytes - len(self._raw) - 1):
            # A filter in the pipe dropped or forged lines. Leave the file as it is.
            self._current = None
            self.kept.remove(current)
            current.close(done=False)
        return self._current

    def close(self, *, done: bool) -> None:
        """Close the rescue files. If `done`, remove those whose messages are all in the queue."""
        while self.kept:
            self.kept.pop().close(done=done)

    def _next(self) -> bytes:
        for line in self._lines:
            self._raw = line
            self.line += 1
            end = self.bytes + len(line) + 1
            # Blocks reserved by a killed drain read as NULs.
            line = line.lstrip(b"\0")
            self._begin, self.bytes = end - len(line) - 1, end
            if line := line.rstrip(b"\0"):
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
                    "is not complete JSON, and every item needs its own line: jq -c . FILE | ipcq load NAME -, or "
                    "jq -c .[] for the elements of a list"
                ) from error
            if line.startswith(b'{"ipcq"'):
                raise self._wrong("is damaged or truncated") from error
            raise self._wrong(
                f"is {_kind(line)}, but `ipcq load` reads output of `ipcq drain` or lines of JSON: `ipcq put NAME -` "
                "puts lines of text, and with --raw a whole file"
            ) from error
        return not isinstance(facts, dict) or not ("ipcq" in facts or facts.keys() == {"priority", "base64"})

    def _item(self, line: bytes) -> Any:
        try:
            item = from_json(line)
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"is not JSON, unlike the lines before it: {error}") from error
        if isinstance(item, dict) and item.get("ipcq") == "messages":
            raise self._wrong("starts output of `ipcq drain` after lines of JSON: load the two separately")
        return item

    def _header(self, line: bytes) -> dict[str, Any]:
        facts = self._facts(line)
        if facts.get("ipcq") != "messages" or not isinstance(facts.get("queue"), dict):
            raise self._wrong("is not a header of `ipcq drain`: the header is missing or was changed")
        if facts.get("version") != VERSION:
            raise self._wrong(f"has version {facts.get('version')!r}, but this ipcq reads {VERSION}: update ipcq")
        limits = {limit: facts["queue"].get(limit) for limit in ("mode", *LIMITS)}
        self.messages = facts.get("messages")
        for fact in (self.messages, *limits.values()):
            if fact is not None and not isinstance(fact, int):
                raise self._wrong(f"has {fact!r} where `ipcq drain` writes a number: it was changed")
        kept = facts.get("kept")
        self._current = None
        if isinstance(kept, dict):
            with suppress(OSError, KeyError, TypeError, ValueError):  # on another machine, or removed
                self._current = Kept(kept["path"], line, self._begin)
                self.kept.append(self._current)
        return limits

    def _message(self, line: bytes) -> Loaded:
        facts = self._facts(line)
        try:
            return Loaded(b64decode(facts["base64"], validate=True), facts["priority"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._wrong("is not a message of `ipcq drain`") from error

    def _facts(self, line: bytes) -> dict[str, Any]:
        try:
            facts = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._wrong("is damaged or truncated") from error
        return facts if isinstance(facts, dict) else {}

    def _wrong(self, what: str) -> Failure:
        return Failure(f"line {max(self.line, 1)} {what}")


def _kind(line: bytes) -> str:
    glance = line[:_GLANCE]
    try:
        text = glance.decode()
    except UnicodeDecodeError as error:
        text = glance[: error.start].decode()
        if error.start < len(glance) - 3:  # not just a character cut off by the glance's end
            return "binary data"
    return "binary data" if "\0" in text else "XML or HTML" if text.lstrip().startswith("<") else "plain text"
