"""Which exit code and which line on stderr stand for which error: the one place that decides it."""

import re

import click

from ipcq._opening.options import OPTIONS
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

#: The arguments of `ipcq.open` that the command line has, and what they are called there.
FLAGS = {"backend": "--backend", **{name: option.flag for name, option in OPTIONS.items() if option.flag}}

# The core's errors name arguments; whoever reads them here types flags. What is said to come from a URL keeps its name.
_NAMES = "|".join(FLAGS)
_ARGUMENT = re.compile(
    rf"(?<!option )\b(?P<flag>{_NAMES})=(?:True\b|(?![^ :;,.]))"  # as in allow_pickle=True, and of require= alone
    rf"|(?<!option )\b(?P<valued>{_NAMES})="
    rf"|(?:^|(?<=; ))(?P<fact>{_NAMES})(?= is )"
)

#: What else the core advises, and how that is done on the command line.
_WORDS = (
    ("open with serializer='raw'", "say --raw"),
    ("unlink it", "`ipcq rm` it"),
    ("unlink the one", "`ipcq rm` the one"),
    ("within open_timeout", "in time"),
)

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
        text = where + in_shell_words(said)
    else:
        text = str(error)
    return "; ".join([text, *getattr(error, "__notes__", ())])


def in_shell_words(text: str) -> str:
    """Name flags and commands where a text of the core names arguments and functions."""
    for ours, theirs in _WORDS:
        text = text.replace(ours, theirs)
    return _ARGUMENT.sub(_flag, text).replace("--mode 0o", "--mode 0")


def _flag(argument: re.Match[str]) -> str:
    return FLAGS[argument[argument.lastgroup or ""]] + (" " if argument.lastgroup == "valued" else "")


def complain(line: str) -> None:
    """Print one line on stderr."""
    click.echo(f"ipcq: {redacted(line)}", err=True)
