"""The line that a warning points at: the one outside of ipcq that led to it, even if a thread of ours warns."""

import sys
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final, TypeVar

R = TypeVar("R")

#: Packages whose lines no warning points at. `logging` stands between a program and our handlers.
_PASSED_THROUGH: Final = ("ipcq", "logging")


@dataclass(frozen=True)
class Caller:
    """A line of somebody's program."""

    file: str
    line: int
    module: str


#: Stands in for the stack if a thread works on behalf of another line.
_assumed: Final[ContextVar[Caller | None]] = ContextVar("ipcq_caller", default=None)
# Python remembers in a module which warnings were shown; this is for lines whose module cannot be found.
_shown: Final[dict[Any, Any]] = {}


def caller() -> Caller:
    """Return the closest line on the stack that is not ours, or the outermost if all are."""
    assumed = _assumed.get()
    if assumed is not None:
        return assumed
    frame: FrameType = sys._getframe(1)
    while frame.f_back is not None and _module(frame).partition(".")[0] in _PASSED_THROUGH:
        frame = frame.f_back
    return Caller(frame.f_code.co_filename, frame.f_lineno, _module(frame))


def called_from(line: Caller, call: Callable[[], R]) -> R:
    """Return what a call returns; its warnings point at this line."""
    token = _assumed.set(line)
    try:
        return call()
    finally:
        _assumed.reset(token)


def warn(warning: Warning) -> None:
    """Warn as `warnings.warn` does, and point at the caller's line."""
    line = caller()
    module = sys.modules.get(line.module)
    shown = _shown if module is None else vars(module).setdefault("__warningregistry__", {})
    warnings.warn_explicit(warning, type(warning), line.file, line.line, line.module, shown)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
