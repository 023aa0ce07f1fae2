"""Telling the exceptions of signal handlers from those of the code that they interrupt.

A signal handler may raise between any two steps of its thread, including inside a ``try`` that converts the exceptions
of a serializer, a plugin or the system to our errors. An exception from a signal handler must pass unchanged.
"""

# Not `signal`, which wraps this module and converts every number and handler to an enum, at a hundred times the cost.
import _signal
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import Any, Final

from ipcq.errors import MessageQueueError

_Kinds = type[BaseException] | tuple[type[BaseException], ...]

_NUMBERS: Final = tuple(_signal.valid_signals())


def reraise_from_handler(error: BaseException) -> None:
    """Raise `error` again if it came from a Python function that is currently a signal handler."""
    # The first frame caught the error. If there is no other frame, a C function raised it, so no handler can have.
    trace = error.__traceback__ and error.__traceback__.tb_next
    handlers = _handlers() if trace is not None else ()
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            raise error
        trace = trace.tb_next


# Classes: `contextlib` would make a reference cycle with an error that passes through, which keeps objects alive.


class translating:  # noqa: N801  # used as a function
    """A context manager that converts exceptions to our errors, except those of a signal handler.

    Args:
        kinds: The classes of exceptions to convert. Our own errors pass unchanged.
        ours: Returns our error for an exception, or None to let the exception pass. The original is chained.
    """

    __slots__ = ("_kinds", "_ours")

    def __init__(self, kinds: _Kinds, ours: Callable[[Any], MessageQueueError | None]) -> None:
        self._kinds = kinds
        self._ours = ours

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ours = self.meaning(error)
        if ours is not None:
            try:
                raise ours from error
            finally:
                del ours, error  # break the cycle of error, traceback and this frame

    def meaning(self, error: BaseException | None) -> MessageQueueError | None:
        """Return the error to raise instead of this one, or None to let it pass."""
        if not isinstance(error, self._kinds) or isinstance(error, MessageQueueError):
            return None
        reraise_from_handler(error)
        return self._ours(error)


class suppressed:  # noqa: N801  # used as a function, as `contextlib.suppress` is
    """A context manager like `contextlib.suppress`, except that exceptions of a signal handler pass.

    Args:
        *kinds: The classes of exceptions to suppress.
    """

    __slots__ = ("_kinds",)

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, self._kinds):
            return False
        reraise_from_handler(error)
        return True


def _handlers() -> set[CodeType]:
    handlers = set()
    for number in _NUMBERS:
        handler = _signal.getsignal(number)
        if callable(handler):
            # A plain function, a method, a functools.partial, or an object with __call__.
            function = getattr(handler, "func", handler)
            function = getattr(function, "__func__", function)
            code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
            if code is not None:
                handlers.add(code)
    return handlers
