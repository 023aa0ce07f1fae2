"""Rescue files: they hold messages that a verb has taken until they are in another queue or read.

A rescue file is a message file, so `ipcq load` reads it. It is created before the first message is taken. If the
backend supports peek, a message is written before it is taken; otherwise right after.
"""

import os
import re
import shlex
from collections.abc import Callable

import click

import ipcq
from ipcq._cli._exits import Failure, complain
from ipcq._cli._message_format import record
from ipcq._cli._options import Verb
from ipcq._cli._signals import Stop
from ipcq._cli._sinks import RESERVED_BYTES, FileSink
from ipcq._redaction import without_credentials
from ipcq.backend import make_private_directory
from ipcq.errors import MessageQueueError

#: Upper bound for everything in a line but the message, and for the header.
_OVERHEAD_BYTES = 4096


def rescue_option(verb: Verb) -> Verb:
    """Add ``--rescue``."""
    text = "Keep messages in transit in FILE.  [default: a new file in the current directory]"
    return click.option("--rescue", type=click.Path(), metavar="FILE", help=text)(verb)


def new_file(queue: ipcq.Queue[bytes], path: str, *, reserve_bytes: int | None = RESERVED_BYTES) -> FileSink:
    """Create a file for the messages of a queue.

    Raises:
        Failure: The file already exists.
    """
    # Base64 encodes three bytes as four.
    max_line_bytes = queue.max_message_size * 4 // 3 + _OVERHEAD_BYTES
    durable = queue.capabilities.persistence >= ipcq.Persistence.DISK
    try:
        return FileSink(path, max_line_bytes, durable=durable, reserve_bytes=reserve_bytes)
    except FileExistsError as error:
        raise Failure(f"{path} already exists: name a new file") from error


def rescue_file(
    queue: ipcq.Queue[bytes], verb: str, path: str | None, *, reserve_bytes: int | None = RESERVED_BYTES
) -> FileSink:
    """Create the rescue file at `path`, by default in the current directory or else in the private directory.

    Raises:
        Failure: It cannot be created.
    """
    if path is not None:
        return new_file(queue, os.path.abspath(path), reserve_bytes=reserve_bytes)
    stem = f"ipcq-{verb}-{re.sub('[^A-Za-z0-9._-]', '_', queue.name[1:])[:100]}-{os.getpid()}"
    cause: Exception | None = None
    for directory in (os.getcwd, _private_rescue_directory):
        try:
            return _numbered_file(queue, os.path.join(directory(), stem), reserve_bytes)
        except (OSError, MessageQueueError) as error:
            cause = error
    raise Failure(f"cannot create a rescue file ({cause}): name one with --rescue FILE") from cause


def _numbered_file(queue: ipcq.Queue[bytes], stem: str, reserve_bytes: int | None) -> FileSink:
    """Create a file whose name begins with `stem`. A killed process with the same pid may have left one."""
    number = 0
    while os.path.lexists(path := f"{stem}{f'-{number}' if number else ''}.messages"):
        number += 1
    return new_file(queue, path, reserve_bytes=reserve_bytes)


def _private_rescue_directory() -> str:
    return make_private_directory("rescue")


def load_command(name: str, path: str, skip: int = 0) -> str:
    """Return the command that loads a rescue file into a queue."""
    more = f" --skip {skip}" if skip else ""
    return f"`ipcq load {shlex.quote(without_credentials(name))} {shlex.quote(path)}{more}`"


def take(
    queue: ipcq.Queue[bytes], file: FileSink, stop: Stop, check: Callable[[ipcq.Message[bytes]], None] = lambda _: None
) -> ipcq.Message[bytes]:
    """Move the next message into the file and return it. Call `file.make_room` first.

    Args:
        queue: The queue to get from.
        file: Has the message on return; with peek, before the message is taken.
        stop: A second signal ends a write that blocks.
        check: Raises if the message must stay in the queue. Not called without peek.

    Raises:
        QueueEmpty: The queue is empty.
        QueueShutDown: The queue is empty and shut down.
    """
    if not queue.capabilities.peek:
        taken = queue.get_message(timeout=0)
    else:
        seen = queue.peek_message()
        check(seen)
        file.write(record(seen))
        try:
            taken = queue.get_message(timeout=0)
        except BaseException:
            file.take_back()
            raise
        if taken == seen:
            return taken
        file.take_back()  # another consumer took the message that was peeked
    write_taken(file.write, record(taken), stop)
    return taken


def write_taken(write: Callable[[bytes], None], line: bytes, stop: Stop) -> None:
    """Write the line of a taken message. If that fails, print the line on stderr."""
    try:
        # If the reader does not read, this blocks indefinitely; a second signal ends it.
        with stop.raising(2):
            write(line)
    except BaseException:
        text = line.decode("ascii").rstrip()
        complain(f"a message was taken but not written; `ipcq load` accepts its line: {text}")
        raise
