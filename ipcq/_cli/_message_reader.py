"""Reading messages or items for `load`."""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import Any, Final, NamedTuple

from ipcq._cli._exits import Failure
from ipcq._cli._items import from_json, records
from ipcq._cli._message_format import CHUNK_BYTES, DONE_MARK, LIMITS, VERSION
from ipcq._cli._rescue_marker import RescueMarker


class LoadedMessage(NamedTuple):
    """One message from a file."""

    data: bytes
    priority: int


#: Other formats: first bytes, name, and how to convert them.
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

#: How much of a line is inspected to distinguish text from binary data.
_INSPECTED_BYTES: Final = 4096


class MessageReader:
    """Input of `load`: one or more concatenated files of `drain`, or JSON Lines with one item per line."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self.line = 0
        self.bytes = 0
        self.markers: list[RescueMarker] = []
        """For each rescue file that matches the input so far."""
        self.messages: int | None = None
        """Number of messages that the queue had, if known."""
        self._begin = 0
        self._raw = b""
        self._marker: RescueMarker | None = None
        first = read(CHUNK_BYTES)
        for prefix, format_name, advice in _FORMATS:
            if first.startswith(prefix):  # before splitting lines: a large binary file may be a single line
                raise Failure(
                    f"this is {format_name}, but `ipcq load` reads output of `ipcq drain` or lines of JSON: {advice}"
                )
        chunks = chain((first,), iter(partial(read, CHUNK_BYTES), b""))
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

    def __iter__(self) -> Iterator[LoadedMessage]:
        while line := self._next():
            if b'"ipcq"' in line:
                self._header(line)
            elif line.startswith(DONE_MARK):
                self._skip_in_rescue_file()
            else:
                yield self._message(line)

    @property
    def has_rescue_file(self) -> bool:
        """Whether the messages being read are also in a rescue file."""
        return self._marker is not None

    def mark(self) -> None:
        """Mark the last message in the rescue file, if any, as being in the queue."""
        marker = self._skip_in_rescue_file()
        if marker is not None:
            marker.mark(self._begin)

    def _skip_in_rescue_file(self) -> RescueMarker | None:
        """Skip the last line in the rescue file, too. Return that file if it has the line."""
        marker = self._marker
        if marker is not None and not marker.skip(self._raw, self.bytes - len(self._raw) - 1):
            # A filter in the pipe dropped or forged lines. Leave the file as it is.
            self._marker = None
            self.markers.remove(marker)
            marker.close(done=False)
        return self._marker

    def close(self, *, done: bool) -> None:
        """Close the rescue files. If `done`, remove those whose messages are all in the queue."""
        while self.markers:
            self.markers.pop().close(done=done)

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
            fields = from_json(line)
        except (ValueError, RecursionError) as error:
            if not line:
                raise self._failure("is missing: the file is empty") from error
            if line.lstrip()[:1] in (b"{", b"[") and not line.startswith(b'{"ipcq"'):
                raise self._failure(
                    "is not complete JSON, and every item needs its own line: jq -c . FILE | ipcq load NAME -, or "
                    "jq -c .[] for the elements of a list"
                ) from error
            if line.startswith(b'{"ipcq"'):
                raise self._failure("is damaged or truncated") from error
            raise self._failure(
                f"is {_kind(line)}, but `ipcq load` reads output of `ipcq drain` or lines of JSON: `ipcq put NAME -` "
                "puts lines of text, and with --raw a whole file"
            ) from error
        return not isinstance(fields, dict) or not ("ipcq" in fields or fields.keys() == {"priority", "base64"})

    def _item(self, line: bytes) -> Any:
        try:
            item = from_json(line)
        except (ValueError, RecursionError) as error:
            raise self._failure(f"is not JSON, unlike the lines before it: {error}") from error
        if isinstance(item, dict) and item.get("ipcq") == "messages":
            raise self._failure("starts output of `ipcq drain` after lines of JSON: load the two separately")
        return item

    def _header(self, line: bytes) -> dict[str, Any]:
        fields = self._fields(line)
        if fields.get("ipcq") != "messages" or not isinstance(fields.get("queue"), dict):
            raise self._failure("is not a header of `ipcq drain`: the header is missing or was changed")
        if fields.get("version") != VERSION:
            raise self._failure(f"has version {fields.get('version')!r}, but this ipcq reads {VERSION}: update ipcq")
        limits = {limit: fields["queue"].get(limit) for limit in ("mode", *LIMITS)}
        self.messages = fields.get("messages")
        for number in (self.messages, *limits.values()):
            if number is not None and not isinstance(number, int):
                raise self._failure(f"has {number!r} where `ipcq drain` writes a number: it was changed")
        rescue_file = fields.get("kept")
        self._marker = None
        if isinstance(rescue_file, dict):
            with suppress(OSError, KeyError, TypeError, ValueError):  # on another machine, or removed
                self._marker = RescueMarker(rescue_file["path"], line, self._begin)
                self.markers.append(self._marker)
        return limits

    def _message(self, line: bytes) -> LoadedMessage:
        fields = self._fields(line)
        try:
            return LoadedMessage(b64decode(fields["base64"], validate=True), fields["priority"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._failure("is not a message of `ipcq drain`") from error

    def _fields(self, line: bytes) -> dict[str, Any]:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._failure("is damaged or truncated") from error
        return fields if isinstance(fields, dict) else {}

    def _failure(self, problem: str) -> Failure:
        return Failure(f"line {max(self.line, 1)} {problem}")


def _kind(line: bytes) -> str:
    head = line[:_INSPECTED_BYTES]
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        text = head[: error.start].decode()
        if error.start < len(head) - 3:  # not just a character that is cut off at the end
            return "binary data"
    return "binary data" if "\0" in text else "XML or HTML" if text.lstrip().startswith("<") else "plain text"
