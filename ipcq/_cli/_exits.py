"""Which exit code and which line on stderr stand for which error: the one place that decides it."""

import re

import click

from ipcq._redaction import redacted
from ipcq.errors import (
    BackendUnknown,
    InvalidArgument,
    MessageQueueError,
    QueueFull,
    QueueNotFound,
    TimedOutError,
)

OK = 0
ERROR = 1
USAGE = 2
EMPTY = 3
FULL = 4
NOT_FOUND = 5
INTERRUPTED = 130

# The first that fits counts; what is not here is an ERROR.
CODES: tuple[tuple[type[MessageQueueError], int], ...] = (
    (InvalidArgument, USAGE),
    (BackendUnknown, USAGE),
    (QueueFull, FULL),
    (TimedOutError, EMPTY),
    (QueueNotFound, NOT_FOUND),
)

# The core's errors name the arguments of `ipcq.open`; whoever reads them here types options.
ARGUMENT = re.compile(r"\b(backend|max_messages|max_message_size|serializer)=|\b(allow_pickle|other_users)=True")


# A queue that goes with its last handle would go with the command.
NO_WAY_OUT = re.compile(r", or try backend='\w+' with lifetime='last-close'[^:;]*$")


class Failure(Exception):
    """What a verb itself finds wrong: its line for stderr, none where all is said already, and its exit code."""

    def __init__(self, line: str = "", code: int = ERROR) -> None:
        super().__init__(line)
        self.code = code


def code_of(error: BaseException) -> int:
    """Return the exit code that stands for the error."""
    if isinstance(error, Failure):
        return error.code
    return next((code for kind, code in CODES if isinstance(error, kind)), ERROR)


def line_of(error: BaseException) -> str:
    """Say the error in one line, with what a verb noted about it."""
    if isinstance(error, KeyboardInterrupt):
        text = "interrupted"
    elif isinstance(error, MessageQueueError):
        said = error.detail or error.wording
        # "auto" was asked for, but it is no backend that anything happened on.
        where = str(error).removesuffix(said).replace(" on backend 'auto'", "")
        if isinstance(error, QueueNotFound):
            said = "no such queue: `ipcq ls` lists those that exist"
        said = NO_WAY_OUT.sub("", said)
        text = where + in_options(said.replace("open with serializer='raw'", "say --raw"))
    else:
        text = str(error)
    return "; ".join([text, *getattr(error, "__notes__", ())])


def in_options(text: str) -> str:
    """Name options where a text of the core names arguments."""
    return ARGUMENT.sub(_option, text)


def _option(argument: re.Match[str]) -> str:
    option = "--" + (argument[1] or argument[2]).replace("_", "-")
    return f"{option} " if argument[1] else option


def complain(line: str) -> None:
    """Print one line on stderr."""
    click.echo(f"ipcq: {redacted(line)}", err=True)
