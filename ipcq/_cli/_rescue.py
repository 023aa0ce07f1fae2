"""Rescue files: where a verb keeps what it has taken from a queue until that is in another queue, or read.

A rescue file is a file of `_dump`, so `ipcq load` reads it. It is made before the first message is taken. Where the
queue can be looked into, a message is in the file before it is taken; elsewhere it is written as soon as it is taken.
"""

import os
import re
import shlex
from collections.abc import Callable

import click

import ipcq
from ipcq._cli._dump import STEP, File, record
from ipcq._cli._exits import Failure, complain
from ipcq._cli._options import Verb
from ipcq._cli._signals import Stop
from ipcq.backend import make_private_directory
from ipcq.errors import MessageQueueError

#: Bytes that a line may have beside the message: its keys, or the whole first line.
_REST = 4096


def rescue_option(verb: Verb) -> Verb:
    """Offer ``--rescue``."""
    text = "File for what is taken and has not arrived yet; by default a new file in the current directory."
    return click.option("--rescue", type=click.Path(), metavar="FILE", help=text)(verb)


def new_file(queue: ipcq.Queue[bytes], path: str, *, step: int | None = STEP) -> File:
    """Make a file for the messages of a queue.

    Raises:
        Failure: It exists already.
    """
    # Base64 makes four bytes of three.
    largest = queue.max_message_size * 4 // 3 + _REST
    durable = queue.capabilities.persistence >= ipcq.Persistence.DISK
    try:
        return File(path, largest, durable=durable, step=step)
    except FileExistsError as error:
        raise Failure(f"{path} exists already: name a new file") from error


def rescue_file(queue: ipcq.Queue[bytes], verb: str, path: str | None, *, step: int | None = STEP) -> File:
    """Make the rescue file: at the path, or in the current directory, or in the private one.

    Raises:
        Failure: There is no place for it.
    """
    if path is not None:
        return new_file(queue, os.path.abspath(path), step=step)
    stem = f"ipcq-{verb}-{re.sub('[^A-Za-z0-9._-]', '_', queue.name[1:])[:100]}-{os.getpid()}"
    trouble: Exception | None = None
    for place in (os.getcwd, _private):
        try:
            return _new(queue, os.path.join(place(), stem), step)
        except (OSError, MessageQueueError) as error:
            trouble = error
    raise Failure(f"there is no place for a rescue file: name one with --rescue FILE ({trouble})") from trouble


def _new(queue: ipcq.Queue[bytes], stem: str, step: int | None) -> File:
    """Make a file whose name begins with `stem`; a process that was killed may have left one with this number."""
    number = 0
    while os.path.lexists(path := f"{stem}{f'-{number}' if number else ''}.messages"):
        number += 1
    return new_file(queue, path, step=step)


def _private() -> str:
    return make_private_directory("rescue")


def load_command(name: str, path: str, skip: int = 0) -> str:
    """Return the command that puts the messages of a rescue file into a queue."""
    more = f" --skip {skip}" if skip else ""
    return f"`ipcq load {shlex.quote(name)} {shlex.quote(path)}{more}`"


def take(
    queue: ipcq.Queue[bytes], file: File, stop: Stop, check: Callable[[ipcq.Message[bytes]], None] = lambda _: None
) -> ipcq.Message[bytes]:
    """Take the next message into the file, which has made room for it, and return the message.

    Args:
        queue: Where to take it.
        file: Has the message when this returns, and before it is taken if the queue can be looked into.
        stop: Its second signal ends a write that hangs.
        check: Raises if the message must stay in the queue; not called if the queue cannot be looked into.

    Raises:
        QueueEmpty: There is none.
        QueueShutDown: There is none, and there will be none.
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
        file.take_back()  # somebody else took that one
    write_taken(file.write, record(taken), stop)
    return taken


def write_taken(write: Callable[[bytes], None], line: bytes, stop: Stop) -> None:
    """Write the line of a message that is taken; if that fails, print it on stderr."""
    try:
        # A reader that does not read blocks this for ever, so a second signal may end it.
        with stop.raising(2):
            write(line)
    except BaseException:
        kept = line.decode("ascii").rstrip()
        complain(f"stopped after this message was taken and before it was written; `ipcq load` reads the line: {kept}")
        raise
