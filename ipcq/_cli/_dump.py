"""Messages in a file: what `drain` writes and `load` reads.

A file is lines of JSON. The first one says what the queue was, each other one is a message with its priority and its
bytes, as they were on the wire, in base64; so nothing depends on what the bytes mean. Files can be joined by ``cat``.

A message that was taken is in nobody's keeping until it is written, so everything that can fail is done before: the
file is made, and blocks of the disk are reserved for the largest message there may be, so that a full disk is noticed
while the message is still in the queue. What is reserved and not used reads as NULs, which are cut off at the end; a
process that was killed leaves them, and whoever reads skips them.

A message that has been put somewhere is marked in the file: its line then begins with ``#``. That is one byte, so no
kill can leave half of it, and whoever loads the file passes over such lines.

What goes into a pipe goes into a file first. The first line in the pipe names it, and `load` marks each message there
once it is in the queue, and removes the file once all of them are.
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

#: Bytes that are read at a time.
CHUNK: Final = 65536

#: The limits that a queue is created with again.
LIMITS = ("max_messages", "max_message_size", "buffer_size", "priorities")

#: Bytes that are reserved at a time, to spare system calls.
STEP = 1 << 20


#: Marks the line of a message that is in a queue again.
DONE: Final = b"#"


def header(queue: ipcq.Queue[Any], kept: str | None = None) -> bytes:
    """Return the line that says what the queue was, how many messages it had, and where a file of them is kept."""
    facts = {"name": queue.name, "backend": queue.backend, **limits_of(queue)}
    line = {"ipcq": "messages", "version": VERSION, "queue": facts, "messages": queue.qsize()}
    if kept is not None:
        line["kept"] = {"path": kept, "token": secrets.token_hex(16)}
    return _line(line)


def limits_of(queue: ipcq.Queue[Any]) -> dict[str, Any]:
    """Return mode and limits with which a queue can be created again."""
    return {limit: getattr(queue, limit) for limit in ("mode", *LIMITS)}


def record(message: ipcq.Message[bytes]) -> bytes:
    """Return the line that stands for a message."""
    # Without json, which takes longer: a message that is taken and not yet written may be lost meanwhile.
    return b'{"priority": %d, "base64": "%b"}\n' % (message.priority, b2a_base64(message.item, newline=False))


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
        if _has_no_reader(self._descriptor):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def write(self, line: bytes) -> None:
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def has_reader(self) -> bool:
        """Tell whether another process reads it: it is a pipe or a socket, not a file or a terminal."""
        mode = os.fstat(self._descriptor).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

    @contextmanager
    def ended(self) -> Iterator[Callable[[], bool]]:
        """Let the reader see the end, and yield a function that tells whether the reader is known to be gone."""
        place = -1
        if not stat.S_ISSOCK(os.fstat(self._descriptor).st_mode):  # which cannot be opened a second time
            with suppress(AttributeError, OSError):  # Linux alone has O_PATH, and /proc need not be mounted
                # Neither a reading nor a writing end, so the reader sees the end of its input.
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
        return error.errno == errno.ENXIO  # fifo(7): nobody has it open for reading
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
        path: Where to make it; what is there already is not touched.
        largest: Bytes of the longest line there may be.
        durable: What is written outlives the machine's failure, as the queue does.
        step: Bytes to reserve at a time, or what `largest` needs if that is more; None reserves nothing.
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
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # not every file system can
                    raise
            self._reserved = self._end + room

    def write(self, line: bytes) -> None:
        # Whatever `clear` left there must not follow the line.
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
        """Where the last line begins."""
        return self._begin

    def mark(self, offset: int) -> None:
        """Mark the message whose line begins there: it is in a queue again."""
        self._file.seek(offset)
        self._file.write(DONE)

    def clear(self) -> None:
        """Have the next line overwrite those after the first one; they are marked, or there is one alone, marked here.

        The reserved blocks are kept: freeing and reserving them takes milliseconds on some file systems.
        """
        if self._end > self._first:
            self.mark(self._first)
            self._stale = max(self._stale, self._end)
            self._begin = self._end = self._first

    def take_back(self) -> None:
        """Take the last line out again."""
        self._end = self._reserved = self._stale = self._begin
        self._file.truncate(self._end)

    def close(self, *, keep: bool) -> None:
        """Make it lasting, or remove it."""
        with self._file:
            if keep:
                self._file.truncate(self._end)
                os.fsync(self._file.fileno())
        if not keep:
            with suppress(FileNotFoundError):  # somebody was faster
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


class Kept:
    """The rescue file of a drain into a pipe, as the `load` that reads the pipe finds it.

    What names it may come from anybody. So nothing is opened but a plain file, nothing is marked but what has been
    loaded, byte for byte, and the directory is held open: what is removed at the end is in the same directory, whatever
    its path leads to by then.

    Args:
        path: Where it is.
        header: Its first line.
        start: How many bytes were before this line in what is loaded.

    Raises:
        OSError: It is not there, or not this user's to write.
    """

    def __init__(self, path: str, header: bytes, start: int) -> None:
        self.path = path
        self._start = start
        self._end = start + len(header) + 1
        if not os.path.isabs(path):  # whoever made it says where it is, and not where it is from here
            raise FileNotFoundError(path)
        with ExitStack() as stack:
            # Windows has no such descriptors.
            self._directory = _held_directory(path, stack) if os.open in os.supports_dir_fd else None
            self._name = path if self._directory is None else os.path.basename(path)
            # First, because opening is enough to start some devices.
            if not stat.S_ISREG(self._status().st_mode):
                raise FileNotFoundError(path)
            how = os.O_RDWR
            for flag in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # not every system has each
                how |= getattr(os, flag, 0)
            self._file = stack.enter_context(open(os.open(self._name, how, dir_fd=self._directory), "r+b", buffering=0))
            # The line has a random number in it, so it is that file and no other that somebody named.
            if not self._has(header + b"\n", 0):
                raise FileNotFoundError(path)
            self._closing = stack.pop_all()

    def passes(self, line: bytes, begin: int) -> bool:
        """Tell whether the file has this line, which begins there in what is loaded, and pass over it if so."""
        if self._has(line, begin - self._start):
            self._end = begin + len(line) + 1
            return True
        return False

    def mark(self, begin: int) -> None:
        """Mark the message whose line begins there in what is loaded, and was passed over: it is in the queue."""
        self._file.seek(begin - self._start)
        self._file.write(DONE)

    def close(self, *, done: bool) -> None:
        """Remove it if everything in it is in the queue."""
        with self._closing:
            self._file.seek(self._end - self._start)
            # The drain may have been killed after it wrote to the file and before it wrote to the pipe.
            done = done and not any(chunk.strip(b"\0") for chunk in iter(partial(self._file.read, CHUNK), b""))
            self._file.close()  # or Windows does not remove it
            if done:
                with suppress(FileNotFoundError):  # somebody was faster
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
    """A file that is read, or several that were joined: of what `drain` wrote, or of lines of JSON, an item each."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.line = 0
        self.bytes = 0
        self.kept: list[Kept] = []
        """Where drains keep their messages, as far as what came is what is in there."""
        self.messages: int | None = None
        """How many messages the queue had, where that is known."""
        self._begin = 0
        self._raw = b""
        self._current: Kept | None = None
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
            elif line.startswith(DONE):
                self._pass()
            else:
                yield self._message(line)

    @property
    def is_kept(self) -> bool:
        """Whether what comes is also in a file that a drain keeps."""
        return self._current is not None

    def mark(self) -> None:
        """Mark the last message in the drain's rescue file: it is in the queue."""
        kept = self._pass()
        if kept is not None:
            kept.mark(self._begin)

    def _pass(self) -> Kept | None:
        """Follow the last line in the file of its drain; return that file if it has the line."""
        current = self._current
        if current is not None and not current.passes(self._raw, self.bytes - len(self._raw) - 1):
            # Something between the drain and here left lines out, or somebody made them up. The file stays as it is.
            self._current = None
            self.kept.remove(current)
            current.close(done=False)
        return self._current

    def close(self, *, done: bool) -> None:
        """Remove the rescue files of the drains, if everything in them is in the queue."""
        while self.kept:
            self.kept.pop().close(done=done)

    def _next(self) -> bytes:
        for line in self._lines:
            self._raw = line
            self.line += 1
            end = self.bytes + len(line) + 1
            # What was reserved by a drain that was killed.
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
        limits = {limit: facts["queue"].get(limit) for limit in ("mode", *LIMITS)}
        self.messages = facts.get("messages")
        for fact in (self.messages, *limits.values()):
            if fact is not None and not isinstance(fact, int):
                raise self._wrong(f"has {fact!r} where `ipcq drain` writes a number: it was changed")
        kept = facts.get("kept")
        self._current = None
        if isinstance(kept, dict):
            with suppress(OSError, KeyError, TypeError, ValueError):  # it is on another machine, or gone
                self._current = Kept(kept["path"], line, self._begin)
                self.kept.append(self._current)
        return limits

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
