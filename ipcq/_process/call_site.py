"""The line that a warning points at: the caller's line outside ipcq, even if one of our threads warns."""

import sys
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from types import FrameType
from typing import Any, Final, NamedTuple, TypeVar

R = TypeVar("R")

#: Packages whose frames are skipped. `logging` is between a program and our handlers.
_SKIPPED_PACKAGES: Final = ("ipcq", "logging")


class Caller(NamedTuple):
    """A line of the user's program."""

    file: str
    line: int
    module: str


#: Replaces the stack while a thread works on behalf of another line.
_assumed: Final[ContextVar[Caller | None]] = ContextVar("ipcq_caller", default=None)
# Python records shown warnings in the caller's module; this is the record for modules that cannot be found.
_shown: Final[dict[Any, Any]] = {}


def caller() -> Caller:
    """Return the innermost line on the stack outside ipcq, or the outermost line if all are inside."""
    assumed = _assumed.get()
    if assumed is not None:
        return assumed
    frame: FrameType = sys._getframe(1)
    while frame.f_back is not None and _module(frame).partition(".")[0] in _SKIPPED_PACKAGES:
        frame = frame.f_back
    return Caller(frame.f_code.co_filename, frame.f_lineno, _module(frame))


def called_from(line: Caller, call: Callable[[], R]) -> R:
    """Return the result of a call, with its warnings pointing at this line."""
    token = _assumed.set(line)
    try:
        return call()
    finally:
        _assumed.reset(token)


def warn(warning: Warning) -> None:
    """Warn like `warnings.warn`, and point at the caller's line."""
    line = caller()
    module = sys.modules.get(line.module)
    shown = _shown if module is None else vars(module).setdefault("__warningregistry__", {})
    warnings.warn_explicit(warning, type(warning), line.file, line.line, line.module, shown)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
