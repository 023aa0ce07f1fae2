"""Standard input and output as bytes, and what is said where a shell has closed them."""

import sys
from typing import BinaryIO

from ipcq._cli._exits import Failure


def stdin() -> BinaryIO:
    """Return stdin as a stream of bytes."""
    if sys.stdin is None:
        raise Failure("stdin is closed")
    return sys.stdin.buffer


def stdout() -> BinaryIO:
    """Return stdout as a stream of bytes."""
    if sys.stdout is None:
        raise Failure("stdout is closed")
    return sys.stdout.buffer


def asks() -> bool:
    """Tell whether somebody sits at stdin."""
    return sys.stdin is not None and sys.stdin.isatty()
