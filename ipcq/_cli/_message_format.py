"""The format of message files, which `drain` writes and `load` reads.

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

import json
import secrets
from binascii import b2a_base64
from collections.abc import Mapping
from typing import Any, Final

import ipcq

VERSION: Final = 1

#: Files are read in chunks of this size.
CHUNK_BYTES: Final = 65536

#: Limits with which the queue can be recreated.
LIMITS: Final = ("max_messages", "max_message_size", "buffer_size", "priorities")

#: Marks the line of a message that is in a queue again.
DONE_MARK: Final = b"#"


def header(queue: ipcq.Queue[Any], rescue_path: str | None = None) -> bytes:
    """Return the first line of a file: the queue, its number of messages, and the path of the rescue file if any."""
    facts = {"name": queue.name, "backend": queue.backend, **limits_of(queue)}
    line = {"ipcq": "messages", "version": VERSION, "queue": facts, "messages": queue.qsize()}
    if rescue_path is not None:
        line["kept"] = {"path": rescue_path, "token": secrets.token_hex(16)}
    return _json_line(line)


def limits_of(queue: ipcq.Queue[Any]) -> dict[str, Any]:
    """Return the mode and the limits with which the queue can be recreated."""
    return {limit: getattr(queue, limit) for limit in ("mode", *LIMITS)}


def record(message: ipcq.Message[bytes]) -> bytes:
    """Return the line of a message."""
    # Faster than json. It shortens the window in which a message is taken but not written.
    return b'{"priority": %d, "base64": "%b"}\n' % (message.priority, b2a_base64(message.item, newline=False))


def _json_line(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
