"""Standard input and output as bytes, with an error if the shell closed them."""

import sys
from typing import BinaryIO

from ipcq._cli._exits import Failure


def stdin() -> BinaryIO:
    """Return stdin as a binary stream."""
    if sys.stdin is None:
        raise Failure("stdin is closed")
    return sys.stdin.buffer


def stdout() -> BinaryIO:
    """Return stdout as a binary stream."""
    if sys.stdout is None:
        raise Failure("stdout is closed")
    return sys.stdout.buffer


def stdin_is_terminal() -> bool:
    """Return whether stdin is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()
