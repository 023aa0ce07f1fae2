"""Telling the exceptions of signal handlers from those of the code that they interrupt.

A signal handler may raise between any two steps of its thread, including inside a ``try`` that converts the exceptions
of a serializer, a plugin or the system to our errors. An exception from a signal handler must pass unchanged.
"""

# Not `signal`, which wraps this module and converts every number and handler to an enum, at a hundred times the cost.
import _signal
from types import CodeType
from typing import Final

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
