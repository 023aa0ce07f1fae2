"""The exit code and the line on stderr for each error."""

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

# The first match wins; any other error is ERROR.
CODES: tuple[tuple[type[MessageQueueError], int], ...] = (
    (InvalidArgument, USAGE),
    (BackendUnknown, USAGE),
    (QueueFull, FULL),
    (TimedOutError, EMPTY),
    (QueueNotFound, NOT_FOUND),
)

#: The flag of each argument of `ipcq.open`.
FLAGS = {"backend": "--backend", **{name: option.flag for name, option in OPTIONS.items() if option.flag}}

# Errors of the core name arguments; the shell has flags. Options quoted from a URL keep their names.
_NAMES = "|".join(FLAGS)
_ARGUMENT = re.compile(
    rf"(?<!option )\b(?P<flag>{_NAMES})=(?:True\b|(?![^ :;,.]))"  # as in allow_pickle=True, and of require= alone
    rf"|(?<!option )\b(?P<valued>{_NAMES})="
    rf"|(?:^|(?<=; ))(?P<fact>{_NAMES})(?= is | must be )"
    rf"|(?:(?<=pass )|(?<=leave out )|(?<=instead of ))(?P<advice>{_NAMES})\b"
)

#: Other advice of the core, and its wording for the command line.
_WORDS = (
    ("open with serializer='raw'", "pass --raw"),
    ("open with serializer='arrays'", "get it in Python, or pass --raw"),
    ("unlink and recreate it", "`ipcq rm` and recreate it"),
    ("unlink it", "`ipcq rm` it"),
    ("unlink the other", "`ipcq rm` the other"),
    ("within open_timeout", "in time"),
)

# The queue would vanish when the command exits.
USELESS_ADVICE = re.compile(r", or try backend='\w+' with lifetime='last-close'[^:;]*$")


class Failure(Exception):
    """An error that a verb detects itself: an exit code, and a line for stderr unless it was printed before."""

    def __init__(self, line: str = "", code: int = ERROR) -> None:
        super().__init__(line)
        self.code = code


def code_of(error: BaseException) -> int:
    """Return the exit code for the error."""
    if isinstance(error, Failure):
        return error.code
    return next((code for kind, code in CODES if isinstance(error, kind)), ERROR)


def line_of(error: BaseException) -> str:
    """Return the error as one line, with the notes that a verb added."""
    if isinstance(error, KeyboardInterrupt):
        text = "interrupted"
    elif isinstance(error, MessageQueueError):
        detail = error.detail or error.wording
        prefix, _, suffix = str(error).rpartition(detail)
        # "auto" was requested, but nothing can fail on a backend of that name.
        prefix = prefix.replace(" on backend 'auto'", "")
        if isinstance(error, QueueNotFound):
            detail = "no such queue: `ipcq ls` lists existing queues"
        text = prefix + in_shell_words(USELESS_ADVICE.sub("", detail)) + suffix
    else:
        text = str(error)
    return "; ".join([text, *getattr(error, "__notes__", ())])


def in_shell_words(text: str) -> str:
    """Replace arguments and functions in a text of the core with flags and commands."""
    for python, shell in _WORDS:
        text = text.replace(python, shell)
    return _ARGUMENT.sub(_flag, text).replace("--mode 0o", "--mode 0")


def _flag(argument: re.Match[str]) -> str:
    return FLAGS[argument[argument.lastgroup or ""]] + (" " if argument.lastgroup == "valued" else "")


def complain(line: str) -> None:
    """Print one line on stderr."""
    click.echo(f"ipcq: {redacted(line)}", err=True)
